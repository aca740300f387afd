"""Rules by which attentions are told apart, on the same subjects and cases: wrong ones seen, right ones accused.

    python benchmarks/power.py [--device cpu] [--cases 40] [--max-seconds S] [--part I/N] [--out FILE]
    python benchmarks/power.py --merge FILE... [--sightings FILE]... [--out reports/cpu/power.json]

The subjects are all of `equivcheck.faults.FAULTS` and `RIGHT`. The rules:

guide         the guide's own test: B=4, T=64, C=256, 8 heads, eval, float32, torch's initial weights, one input of
              torch.randn; outputs may differ by less than 1e-5.
fixed         absolute and relative tolerances by dtype: those of the eager-against-SDPA test in
              huggingface/transformers, tests/test_modeling_common.py (`_test_eager_matches_sdpa_inference`): 1e-6 and
              1e-4 in float32, 5e-3 both in float16, 1e-2 both in bfloat16 (3e-2 relative for the CUDA kernels). It has
              none for float64, which gets float32's. There 80 % of a batch's entries are enough; here all are held.
assert_close  torch.testing.assert_close with the tolerances of the dtype, against the original in the same dtype.
twice         the greatest error may be twice the original's own plus 1e-5, outputs and gradients alike: that is
              Dao-AILab/flash-attention, tests/test_flash_attn.py (`test_flash_attn_causal`), here against float64.
budget        equivcheck's budget by `checks.holding.hold`, on the cases of the three rules above.
gate          `equivcheck verify --profile gate`: all checks, on the cases that it draws itself.

`fixed` to `budget` see the same cases, drawn as in false_alarms.py up to T=130 (train without dropout, so that results
can be compared), once on outputs alone and once on outputs and gradients. A tensor that is not finite in the original
is left out for `fixed`, `assert_close` and `twice`. Raising where the original runs counts as seen by every rule.
Seconds are what somebody with one candidate waits for: the original's and the oracle's runs count each time.

The row of `gate` is taken from benchmarks/sightings.py, run with and without --right, whose files --sightings names; how
many of the subjects they have is told. Part I/N takes every N-th subject from the I-th on and keeps on disk what it has
reached; --merge adds the parts up, whatever ended them. Writes JSON, and beside it a Markdown page and a plot.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from false_alarms import draw, markdown, plain
from parts import Kept, dumped, reached, share, write
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.faults import FAULTS, RIGHT
from equivcheck.gpt import GPTConfig
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Results
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment, sources
from equivcheck.runtime.device import device_name

SCHEMA = 1
RULES = {
    "guide": "the guide's own test",
    "fixed": "fixed tolerances (transformers)",
    "assert_close": "assert_close, defaults",
    "twice": "twice the eager error + 1e-5",
    "budget": "the budget alone, same cases",
    "gate": "equivcheck, gate profile",
}
ON_CASES = ("fixed", "assert_close", "twice", "budget")
IN_VALUES = frozenset({"output", "gradients", "causality", "logits", "bias"})
FIXED_ATOL = {torch.float32: 1e-6, torch.float64: 1e-6, torch.float16: 5e-3, torch.bfloat16: 1e-2}
FIXED_RTOL = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 5e-3, torch.bfloat16: 1e-2}
FLOOR = 1e-5
SUBJECTS = (*(("wrong", fault) for fault in FAULTS), *(("right", right) for right in RIGHT))


# --- the rules --------------------------------------------------------------------------------------------------------


def differs_fixed(got: Tensor, own: Tensor, truth: Tensor) -> bool:
    """By the table of transformers, element by element."""
    rtol = 3e-2 if own.is_cuda and own.dtype is torch.bfloat16 else FIXED_RTOL[own.dtype]
    return not torch.allclose(got, own, atol=FIXED_ATOL[own.dtype], rtol=rtol)


def differs_assert_close(got: Tensor, own: Tensor, truth: Tensor) -> bool:
    """By torch.testing's defaults."""
    try:
        torch.testing.assert_close(got, own)
    except AssertionError:
        return True
    return False


def differs_twice(got: Tensor, own: Tensor, truth: Tensor) -> bool:
    """By the greatest error of flash-attention's tests."""
    mine, its = ((x.to(truth.device, torch.float64) - truth).abs().max().item() for x in (got, own))
    return not mine <= 2 * its + FLOOR  # a NaN is a difference


DIFFERS: dict[str, Callable[[Tensor, Tensor, Tensor], bool]] = {
    "fixed": differs_fixed,
    "assert_close": differs_assert_close,
    "twice": differs_twice,
}


def accused(rule: str, names: Sequence[str], got: Results, own: Results, values: dict[str, Tensor]) -> str:
    """The first of these tensors that the rule calls different, or nothing."""
    for name in names:
        mine, its = got.get(name), own.get(name)
        if its is None or not bool(its.isfinite().all()):
            continue
        try:
            if mine is None or DIFFERS[rule](mine, its, values[name]):
                return name
        except (RuntimeError, ValueError):  # another shape or dtype
            return name
    return ""


def guide(attention: Callable[[Any], torch.nn.Module], device: torch.device) -> str:
    """What the guide's test says of it: nothing where it passes."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=1, block_size=64, n_layer=1, n_head=8, n_embd=256)
    original = CausalSelfAttention(config).to(device).eval()
    try:
        candidate = attention(config).to(device).eval()
        candidate.load_state_dict(original.state_dict())
        x = torch.randn(4, 64, 256, device=device)
        with torch.no_grad():
            difference = (original(x) - candidate(x)).abs().max().item()
    except Exception as error:
        return type(error).__name__
    return "" if difference < 1e-5 else "output"


# --- the cases that rules share ---------------------------------------------------------------------------------------


@dataclass
class Prepared:
    """What every rule needs of a case, and how long it takes to get: the original's results and the truth."""

    case: Case
    own: Results
    truth: Truth
    own_s: float
    oracle_s: float
    truth_s: float
    refined_s: float = 0.0

    def shared_s(self, rule: str) -> float:
        return self.own_s + {"twice": self.oracle_s, "budget": self.truth_s}.get(rule, 0.0)


def prepare(base: Pair, cases: Sequence[Case]) -> list[Prepared]:
    """Run the original and the oracle of each case; cases in which the original raises are left out."""
    found = []
    for case in cases:
        problem, began = base.problem(case), time.perf_counter()
        try:
            own = problem.run(problem.reference, problem.inputs, gradients=True)
        except Exception:
            continue
        own_s, began = time.perf_counter() - began, time.perf_counter()
        problem.oracle_values(gradients=True)
        oracle_s, began = time.perf_counter() - began, time.perf_counter()
        truth = problem.truth(gradients=True)
        truth.sample(refined=False)
        found.append(Prepared(case, own, truth, own_s, oracle_s, time.perf_counter() - began))
    return found


def on_cases(base: Pair, attention: Any, name: str, prepared: Sequence[Prepared], rules: Sequence[str]) -> dict:
    """For each rule, with outputs alone and with gradients: the first case that tells a difference, and the cost."""
    seen: dict[str, dict[str, Any]] = {}
    spent = dict.fromkeys(rules, 0.0)
    subject = base.with_candidate(attention, name)
    for number, ready in enumerate(prepared, 1):
        left = [rule for rule in rules if rule not in seen or f"{rule} outputs" not in seen]
        if not left:
            break
        problem, began = subject.problem(ready.case), time.perf_counter()  # its own inputs: some write into them
        raised = ""
        try:
            got = problem.run(problem.candidate, problem.inputs, gradients=True)
        except Exception as error:
            raised, got = type(error).__name__, {}
        run_s = time.perf_counter() - began
        outputs = [n for n in ready.truth.values if not n.startswith("grad ")]
        rest = [n for n in ready.truth.values if n.startswith("grad ")]
        for rule in left:
            began = time.perf_counter()
            if rule == "budget" and not raised:
                there, refined = _held(problem, ready, got, outputs)
                also, refined_too = ("", False) if there else _held(problem, ready, got, rest)
                extra = _refinement(ready, refined or refined_too, time.perf_counter() - began)
            else:
                there = raised or accused(rule, outputs, got, ready.own, ready.truth.values)
                also, extra = there or accused(rule, rest, got, ready.own, ready.truth.values), 0.0
            spent[rule] += run_s + ready.shared_s(rule) + time.perf_counter() - began + extra
            found = {"cases": number, "seconds": round(spent[rule], 3), "case": ready.case.id}
            if there:
                seen.setdefault(f"{rule} outputs", {**found, "where": there})
            if there or also:
                seen.setdefault(rule, {**found, "where": there or also})
    return seen


def _held(problem: Any, ready: Prepared, got: Results, names: Sequence[str]) -> tuple[str, bool]:
    asked = []

    def own() -> Results:
        asked.append(True)
        return ready.own

    try:
        compare_all(problem, ready.truth, got, own, names)
    except Mismatch as mismatch:
        return mismatch.where or "difference", bool(asked)
    return "", bool(asked)


def _refinement(ready: Prepared, used: bool, elapsed: float) -> float:
    """Many perturbed runs are made for the first candidate that needs them, and count for each that does."""
    if not used:
        return 0.0
    if not ready.refined_s:
        ready.refined_s = elapsed
        return 0.0
    return ready.refined_s


# --- the run ----------------------------------------------------------------------------------------------------------


def study(args: argparse.Namespace) -> dict[str, Any]:
    """The subjects of one part under the rules that share cases, and under the guide's."""
    name = "equivcheck.attention:CausalSelfAttention"
    base = replace(resolve(name, name, kind="module", device=args.device), memory=Memory(2**31)).with_oracle_beside()
    (part, parts), began, keep = share(args.part), time.monotonic(), Kept(args.out)
    prepared = prepare(base, [draw(number, args.seed, max_seq_len=130) for number in range(args.cases)])
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "device": device_name(base.device),
        "environment": environment(base.device),
        "sources": sources(base.reference, base.candidate),
        "cases": len(prepared),
        "case_ids": [ready.case.id for ready in prepared],
        "seconds": 0.0,
        "subjects": [],
    }
    for group, member in SUBJECTS[part::parts]:
        if time.monotonic() - began > args.max_seconds:
            break
        row = {
            "name": member.name,
            "group": group,
            "kind": getattr(member, "kind", ""),
            "in_values": bool(IN_VALUES & set(getattr(member, "seen_by", ()))),
            "seen": on_cases(base, member.attention, member.name, prepared, ON_CASES),
        }
        at = time.perf_counter()
        where = guide(member.attention, base.device)
        if where:
            row["seen"]["guide"] = {"cases": 1, "seconds": round(time.perf_counter() - at, 3), "where": where}
        data["subjects"].append(row)
        data["seconds"] = round(time.monotonic() - began, 1)
        keep(data)
        said = ", ".join(rule for rule in RULES if rule in row["seen"])
        print(f"{data['seconds']:5.0f} s  {group} {member.name}: {said or 'nobody'}", flush=True)
    return data


def merged(found: Iterable[dict[str, Any]], sightings: Sequence[Path]) -> dict[str, Any]:
    """All parts, and what the gate's own run saw."""
    first, *rest = found
    for other in rest:
        if other["case_ids"] != first["case_ids"] or other["sources"] != first["sources"]:
            print("warning: the parts differ in their cases or in their source", file=sys.stderr)
        first["subjects"] += other["subjects"]
        first["seconds"] = round(first["seconds"] + other["seconds"], 1)
    order = [member.name for _, member in SUBJECTS]
    first["subjects"].sort(key=lambda row: order.index(row["name"]))
    gate = {row["fault"]: row for rows in reached(sightings) for row in rows} if sightings else {}
    first["rules"] = [rule for rule in RULES if rule != "gate" or gate]
    for row in first["subjects"]:
        sighted = gate.get(row["name"])
        row["gate_known"] = sighted is not None
        if sighted is not None and sighted["check"]:
            told = {"cases": sighted["cases"], "seconds": sighted["first_s"], "case": sighted["case"]}
            row["seen"]["gate"] = {**told, "where": sighted["check"]}
    return first


# --- what is told -----------------------------------------------------------------------------------------------------


def of(data: dict[str, Any], group: str) -> list[dict[str, Any]]:
    return [row for row in data["subjects"] if row["group"] == group]


def totals(data: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One row a rule."""
    wrong, right = of(data, "wrong"), of(data, "right")
    shown = [row for row in wrong if row["in_values"]]
    known = {group: sum(row["gate_known"] for row in of(data, group)) for group in ("wrong", "right")}
    header = [
        "rule", f"wrong seen of {len(wrong)}", f"of {len(shown)} that show in values", "by outputs alone",
        f"right accused of {len(right)}", "by outputs alone", "cases to the first sighting", "seconds",
    ]  # fmt: skip
    table = []
    for rule in data["rules"]:
        seen = [row["seen"][rule] for row in wrong if rule in row["seen"]]
        alone = f"{rule} outputs"
        both = [str(_count(group, alone)) if rule in ON_CASES else "-" for group in (wrong, right)]
        cases = [s["cases"] for s in seen if s["cases"] is not None]
        times = [s["seconds"] for s in seen if s["seconds"] is not None]
        table.append(
            [RULES[rule], _of(len(seen), known["wrong"], len(wrong), rule), str(_count(shown, rule)), both[0],
             _of(_count(right, rule), known["right"], len(right), rule), both[1],
             f"{statistics.median(cases):g}" if cases else "-", f"{statistics.median(times):.2f}" if times else "-"]
        )  # fmt: skip
    return header, table


def _of(count: int, known: int, every: int, rule: str) -> str:
    return str(count) if rule != "gate" or known == every else f"{count} of {known} that were run"


def by_kind(data: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Of each kind of fault, how many each rule sees."""
    wrong = of(data, "wrong")
    kinds = dict.fromkeys(row["kind"] for row in wrong)
    table = []
    for kind in kinds:
        rows = [row for row in wrong if row["kind"] == kind]
        table.append([kind, str(len(rows)), *(str(_count(rows, rule)) for rule in data["rules"])])
    return ["kind", "faults", *data["rules"]], table


def _count(rows: Sequence[dict[str, Any]], rule: str) -> int:
    return sum(rule in row["seen"] for row in rows)


def page(data: dict[str, Any]) -> str:
    """The Markdown page."""
    known = sum(row["gate_known"] for row in data["subjects"])
    gate = f"The gate's are those of benchmarks/sightings.py, which reached {known} of these {len(data['subjects'])}."
    lines = [
        "# The power of the rules",
        f"{len(of(data, 'wrong'))} of {len(FAULTS)} wrong and {len(of(data, 'right'))} of {len(RIGHT)} right attentions, "
        f"{data['cases']} cases; "
        f"{data['device']}, torch {data['environment']['torch']}, source {data['sources']['equivcheck'][:12]}. "
        f"{gate} Medians are over the wrong ones that the rule sees. What the rules are, and where their numbers come "
        "from, is told at the top of `benchmarks/power.py`.",
        markdown(*totals(data)),
        "![Wrong ones seen and right ones accused by each rule](power.svg)",
        "Wrong ones seen, by kind:",
        markdown(*by_kind(data)),
        "## Right ones accused",
    ]
    for rule in data["rules"]:
        names = [
            f"{row['name']} ({row['seen'][rule]['where']}, `{row['seen'][rule].get('case', 'its one case')}`)"
            for row in of(data, "right")
            if rule in row["seen"]
        ]
        lines.append(f"- {RULES[rule]}: {'; '.join(names) or 'none'}")
    lines.append("## Wrong ones not seen")
    for rule in data["rules"]:
        names = [
            row["name"]
            for row in of(data, "wrong")
            if rule not in row["seen"] and (rule != "gate" or row["gate_known"])
        ]
        lines.append(f"- {RULES[rule]} ({len(names)}): {', '.join(names) or 'none'}")
    return "\n\n".join(lines).replace("\n\n- ", "\n- ") + "\n"


def plot(data: dict[str, Any], path: Path) -> None:
    """Bars: the share of wrong ones seen and of right ones accused, by rule."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rules = data["rules"][::-1]
    figure, axes = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
    for offset, group, colour, label in (
        (0.2, "wrong", "#2a7f9e", "wrong ones seen"),
        (-0.2, "right", "#c8553d", "right ones accused"),
    ):
        rows = of(data, group)
        counts = [_count(rows, rule) for rule in rules]
        shares = [100 * count / max(1, len(rows)) for count in counts]
        places = [place + offset for place in range(len(rules))]
        bars = axes.barh(places, shares, height=0.38, color=colour, label=f"{label}, of {len(rows)}")
        axes.bar_label(bars, labels=[str(count) for count in counts], padding=3, fontsize=9)
    axes.set_yticks(range(len(rules)), [RULES[rule] for rule in rules])
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20), [f"{share} %" for share in range(0, 101, 20)])
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # the same picture is the same file
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--sightings", type=Path, nargs="+", default=[], help="JSON of benchmarks/sightings.py")
    parser.add_argument("--out", type=Path, help="JSON; a Markdown page and a plot go beside it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    args.out = args.out or Path("reports") / args.device / "power.json"
    data = merged(reached(args.merge) if args.merge else [study(args)], args.sightings)
    write(args.out, dumped(data))
    print(plain(*totals(data)))
    print(f"{data['seconds']:.0f} s on {data['device']}")
    if args.merge or args.part == "0/1":
        write(args.out.with_suffix(".md"), page(data))
        plot(data, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
