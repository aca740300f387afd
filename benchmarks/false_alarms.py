"""Right attentions, held against the oracle in many cases: does the budget ever accuse one, and how near does it come?

    python benchmarks/false_alarms.py --device cpu|cuda --cases N [--max-seconds S] [--part I/N] [--out FILE]
    python benchmarks/false_alarms.py --merge PART... --out reports/<device>/false_alarms.json

A case is drawn from its number alone (`draw`), with the size tables of `equivcheck.cases.strategies`: all dtypes, regimes
and layouts, now and then more heads or samples than the tables have, eval with any rates and train without dropout. Its
truth is computed once, outputs and gradients; then right implementations are held against it by
`equivcheck.checks.base.compare_all.hold`, one tensor at a time, with few perturbed runs first and many where those do not
do. On the CPU they take turns: everything in `equivcheck.faults.RIGHT`, the flash and the math kernel, and the original
itself. On CUDA the flash, cuDNN, memory-efficient and math kernels are forced in each case, and the others take turns.
FlexAttention has cases of its own in a few shapes, compiled one by one; it never runs eagerly. What raises is counted as
refused, with the first reason, and not as passed.

A ratio says how near a tensor came to an alarm, which takes both few and many perturbed runs: it is the lesser of the
two, where the few say more than 0.3. The original itself is held without the allowance of twice its own error: where it
leaves the budget, the model of rounding has a gap, which is counted beside the false alarms and not among them. A result
that is not finite where the truth and the original's own are is wrong whatever is allowed to rounding: it is told apart, and
is no false alarm.

Part I/N runs the cases whose number is I modulo N, in any order and on any machine, and keeps on disk what it has
reached, every few seconds; --merge adds the parts up, whatever ended them, and the page says how many cases of those
that were planned were reached. On CUDA the oracle of what is small runs on the CPU, as in `equivcheck verify`. Writes
JSON, and the same as a Markdown page beside it. Exit status 1 where there was a false alarm.
"""

import argparse
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from parts import Kept, dumped, reached, share, write
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import sizes
from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.faults import RIGHT
from equivcheck.numerics.comparison import compare
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment, sources
from equivcheck.runtime.device import device_name
from equivcheck.runtime.kernel_trace import KERNELS

SCHEMA = 1
TENSORS = ("output", "grad x", "weights", "biases")
KERNELS_ON = {"cpu": {name: KERNELS[name] for name in ("flash", "math")}, "cuda": KERNELS}
ORIGINAL = "the original"
FLEX = "FlexAttention"
FLEX_SHAPES = tuple((T, D) for T in (128, 256) for D in (16, 32, 64))
_GAPS_TOLD = 40
_BEYOND = 41  # one case in so many, and of each part of the study, as no number of parts has this factor
_LOOKED_AT = 0.3  # a ratio above, found on few perturbed runs, is measured again on many


def draw(number: int, seed: int = 0, *, max_seq_len: int = 512) -> Case:
    """The case of this number: sizes as `strategies.cases` weighs them, all else evenly; no two have one seed."""
    rng = random.Random(f"{seed}:{number}")
    seq_len = rng.choice(sizes(max_seq_len, typical=48))
    # as in strategies.cases: long sequences get few heads and short batches
    room = max(1, 2**17 // (seq_len * seq_len))
    n_head = rng.choice(sizes(max(1, min(8, room)), typical=4))
    training = rng.random() < 0.5
    rates = (0.0,) if training else (0.0, 0.1, 0.5)
    batch_size = rng.choice(sizes(max(1, min(4, room // n_head)), typical=3))
    head_size = rng.choice(sizes(max(1, min(128, 512 // n_head)), typical=24))
    if number % _BEYOND == 0:  # more heads, more samples, or wider heads, as `case_space` has them
        seq_len = rng.randint(2, 8)
        batch_size, n_head, head_size = rng.choice(
            (
                (rng.randint(1, 2), rng.randint(65, 96), rng.randint(1, 5)),
                (rng.randint(257, 300), rng.randint(1, 2), rng.randint(1, 8)),
                (rng.randint(1, 2), rng.randint(1, 2), 256),
            )
        )
    return Case(
        batch_size=batch_size,
        seq_len=seq_len,
        n_head=n_head,
        head_size=head_size,
        block_size=seq_len + rng.choice((0, 0, 1, 7, 64)),
        dtype=rng.choice(DTYPES),
        training=training,
        attn_pdrop=rng.choice(rates),
        resid_pdrop=rng.choice(rates),
        regime=rng.choice(REGIMES),
        layout=rng.choice(LAYOUTS),
        seed=seed * 10**6 + number,
    )


def draw_flex(number: int, seed: int, shapes: Sequence[tuple[int, int]]) -> Case:
    """The same, in one of a few shapes: each is compiled, and that takes seconds."""
    seq_len, head_size = shapes[number % len(shapes)]
    return draw(number, seed).but(
        batch_size=2,
        seq_len=seq_len,
        n_head=2,
        head_size=head_size,
        block_size=seq_len + number % 2 * 7,
        seed=seed * 10**6 + 5 * 10**5 + number,
    )


# --- implementations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Implementation:
    """A right attention, and what must be active around its runs."""

    name: str
    attention: Callable[[Any], nn.Module]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def kernels(device: str) -> list[Implementation]:
    """The shipped attention with one kernel of scaled_dot_product_attention forced."""

    def one(name: str, backend: SDPBackend) -> Implementation:
        return Implementation(f"kernel {name}", FlashCausalSelfAttention, lambda: sdpa_kernel(backend))

    return [one(name, backend) for name, backend in KERNELS_ON[device].items()]


def rewritten() -> list[Implementation]:
    """The original, and what computes the same in other words."""
    return [Implementation(ORIGINAL, CausalSelfAttention), *(Implementation(r.name, r.attention) for r in RIGHT)]


class FlexCausalSelfAttention(CausalSelfAttention):
    """FlexAttention's own kernel, compiled for each shape, with a causal block mask; an uncompiled run is an error."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        return self._merge(_flex()(q, k, v, block_mask=_block_mask(x.size(1), x.device)))


_compiled: dict[str, Any] = {}
_masks: dict[tuple[int, torch.device], Any] = {}


def _flex() -> Any:
    if "flex" not in _compiled:
        import torch._dynamo
        from torch.nn.attention.flex_attention import flex_attention

        torch._dynamo.config.recompile_limit = 512  # type: ignore[attr-defined]
        # fullgraph: past the limit, or at a graph break, it raises where it would else run eagerly
        _compiled["flex"] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return _compiled["flex"]


def _block_mask(length: int, device: torch.device) -> Any:
    if (length, device) not in _masks:
        from torch.nn.attention.flex_attention import create_block_mask

        _masks[length, device] = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=device)
    return _masks[length, device]


# --- one case ---------------------------------------------------------------------------------------------------------


def tensor_class(name: str) -> str:
    """Which column a compared tensor belongs to."""
    if name in TENSORS:
        return name
    return "biases" if name.endswith("bias") else "weights"


class Tally:
    """What was counted; `data` is what is written, and two of them add up."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.data = data or {
            "schema": SCHEMA, "cases": 0, "flex_cases": 0, "pairs": 0, "tensors": 0, "refined": 0, "partly_judged": 0,
            "seconds": 0.0, "parts": [], "visited": {}, "alarms": [], "gaps": [], "gap_pairs": 0, "unbuilt": {},
            "not_finite": [],
            "refused": {}, "held": {}, "worst": {}, "kernels": {},
        }  # fmt: skip

    def visit(self, case: Case) -> None:
        mode = "train" if case.training else "eval"
        for name, value in (("dtype", case.dtype), ("regime", case.regime), ("layout", case.layout), ("mode", mode)):
            _add(self.data["visited"].setdefault(name, {}), value, 1)

    def refuse(self, who: str, case: Case, error: Exception) -> None:
        entry = self.data["refused"].setdefault(f"{who}|{case.dtype}", {"count": 0, "case": case.id, "reason": ""})
        entry["count"] += 1
        entry["reason"] = entry["reason"] or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def see(self, who: str, case: Case, name: str, ratio: float, refined: bool) -> None:
        self.data["tensors"] += 1
        self.data["refined"] += refined
        key = f"{who}|{case.dtype}|{tensor_class(name)}|{case.regime}"
        entry = self.data["worst"].setdefault(
            key, {"tensors": 0, "refined": 0, "ratio": 0.0, "ratio_refined": 0.0, "case": "", "tensor": ""}
        )
        entry["tensors"] += 1
        entry["refined"] += refined
        if refined:
            entry["ratio_refined"] = max(entry["ratio_refined"], ratio)
        if ratio > entry["ratio"]:
            entry.update(ratio=ratio, case=case.id, tensor=name)

    def merge(self, other: "Tally") -> None:
        mine, its = self.data, other.data
        if mine["parts"] and any(mine[k] != its[k] for k in ("device", "seed", "environment", "sources")):
            print("warning: the parts differ in device, seed, environment or source", file=sys.stderr)
        for key in ("cases", "flex_cases", "pairs", "tensors", "refined", "partly_judged", "seconds", "gap_pairs"):
            mine[key] += its[key]
        for key in ("parts", "alarms", "gaps", "not_finite"):
            mine[key] += its[key]
        for key in ("held", "unbuilt"):
            for name, count in its[key].items():
                _add(mine[key], name, count)
        for name, counts in its["visited"].items():
            for value, count in counts.items():
                _add(mine["visited"].setdefault(name, {}), value, count)
        for key, entry in its["refused"].items():
            known = mine["refused"].setdefault(key, {**entry, "count": 0})
            known["count"] += entry["count"]
        for key, entry in its["worst"].items():
            known = mine["worst"].setdefault(key, dict(entry))
            if known is not entry and known != entry:
                larger = max(known, entry, key=lambda e: e["ratio"])
                summed = {n: known[n] + entry[n] for n in ("tensors", "refined")}
                known.update({**larger, **summed, "ratio_refined": max(known["ratio_refined"], entry["ratio_refined"])})
        for key, names in its["kernels"].items():
            mine["kernels"][key] = sorted({*mine["kernels"].get(key, ()), *names})
        for key in ("device", "seed", "environment", "sources", "planned"):
            mine.setdefault(key, its[key])


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1e6 else "inf"  # no budget at all, or a result that is not finite


def _add(counts: dict[str, int], key: str, number: int) -> None:
    counts[key] = counts.get(key, 0) + number


def hold_each(
    problem: Problem, got: Results, own: Callable[[], Results] | None
) -> Iterator[tuple[str, float, bool, str, bool]]:
    """By tensor: name, ratio, were many perturbed runs needed, the message where it fails, was all of it judged."""
    truth = problem.truth(gradients=True)
    for name in dict.fromkeys((*truth.values, *got)):
        asked = []

        def mine(asked: list[bool] = asked) -> Results:
            asked.append(True)  # hold looks at the original's own result exactly when it takes many perturbed runs
            return {} if own is None else own()

        try:
            held = compare_all(problem, truth, got, mine, [name])
            ratio = held.ratio or 0.0
            if ratio > _LOOKED_AT and not asked:  # few runs say little; an alarm would take both
                moved, given = truth.sample(refined=True).deviations[name], got.get(name)
                dtype, value = problem.case.torch_dtype, truth.values[name]
                again = compare(
                    name, given, value, moved, dtype=dtype, reference=None, certain=True, device=problem.device
                )
                ratio = min(ratio, again.ratio)
            yield name, ratio, bool(asked), "", not held.notes
        except Mismatch as mismatch:
            yield name, mismatch.ratio, bool(asked), str(mismatch), True


def judge(tally: Tally, problem: Problem, implementations: Sequence[Implementation], base: Pair) -> None:
    """Hold each implementation against the truth of one case."""
    case, kept = problem.case, []

    def own() -> Results:
        if not kept:
            kept.append(problem.run(problem.reference, problem.inputs, gradients=True))
        return kept[0]

    for it in implementations:
        known = tally.data["refused"].get(f"{it.name}|{case.dtype}", {"count": 0})
        if it.name == FLEX and known["count"] >= 3 and not tally.data["held"].get(f"{it.name}|{case.dtype}"):
            known["count"] += 1  # a refusal to compile takes seconds as well: it is not asked for again
            continue
        try:
            candidate = base.with_candidate(it.attention, it.name).build_candidate(case, problem.make_reference)
            with it.around():
                got = _profiled(tally, it, case, lambda c=candidate: problem.run(c, problem.inputs, gradients=True))
        except Exception as error:
            tally.refuse(it.name, case, error)
            continue
        tally.data["pairs"] += 1
        _add(tally.data["held"], f"{it.name}|{case.dtype}", 1)
        failed, judged = [], True
        broken = it.name != ORIGINAL and breaks_down(problem, got, own)
        for name, ratio, refined, message, whole in hold_each(problem, got, None if it.name == ORIGINAL else own):
            if not broken:
                tally.see(it.name, case, name, ratio, refined)
            judged = judged and whole
            if message:
                failed.append({"tensor": name, "ratio": ratio, "message": message})
        tally.data["partly_judged"] += not judged
        if failed:
            found = {"implementation": it.name, "case": case.id, "failed": sorted(failed, key=lambda f: -f["ratio"])}
            if it.name == ORIGINAL:
                tally.data["gap_pairs"] += 1
                if len(tally.data["gaps"]) < _GAPS_TOLD:
                    tally.data["gaps"].append(found)
                continue
            tally.data["not_finite" if broken else "alarms"].append(found)
            worst = found["failed"][0]
            print(f"{'NOT FINITE' if broken else 'FALSE ALARM'} {it.name} {case.id}\n{worst['message']}", flush=True)


def breaks_down(problem: Problem, got: Results, own: Callable[[], Results]) -> bool:
    """Whether a result is not finite where the truth is, and the original's own too."""
    if all(value is None or bool(value.isfinite().all()) for value in got.values()):
        return False
    truth, its = problem.truth(gradients=True).values, own()
    for name, value in got.items():
        known = its.get(name)
        if value is not None and known is not None and name in truth:
            finite = truth[name].isfinite().to(value.device) & known.isfinite()
            if bool((finite & ~value.isfinite()).any()):
                return True
    return False


def _profiled(tally: Tally, it: Implementation, case: Case, run: Callable[[], Results]) -> Results:
    """The result of `run`; on CUDA the attention kernels' names are kept, once by implementation and dtype."""
    key = f"{it.name}|{case.dtype}"
    forced = it.name == FLEX or it.name.startswith("kernel ")
    if not forced or not torch.cuda.is_available() or key in tally.data["kernels"]:
        return run()
    result = run()  # compiles and refuses outside the profiler
    names: set[str] = set()
    with suppress(RuntimeError), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    with suppress(Exception):
        names = {event.key[:120] for event in profile.key_averages()}
    mark = ("attention", "attn", "flash", "fmha", "flex", "sdpa", "softmax")
    tally.data["kernels"][key] = sorted(n for n in names if any(m in n.lower() for m in mark))[:12]
    return result


# --- the run ----------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> Tally:
    """All cases of one part, or as many as there is time for."""
    part, parts = share(args.part)
    name = "equivcheck.attention:CausalSelfAttention"
    base = replace(resolve(name, name, kind="module", device=args.device), memory=Memory(2**26)).with_oracle_beside()
    kind = base.device.type
    forced, turns = kernels(kind), rewritten()
    if kind == "cpu":
        forced, turns = [], [*forced, *turns]
    per_case = min(len(turns), args.per_case if args.per_case is not None else 6 if kind == "cpu" else 2)
    flex_cases = args.flex_cases if args.flex_cases is not None else args.cases // 4 if kind == "cuda" else 0
    tally, began, turn, told = Tally(), time.monotonic(), part * 7, 0.0
    tally.data |= {"device": device_name(base.device), "seed": args.seed, "planned": args.cases}
    tally.data |= {"environment": environment(base.device), "sources": sources(base.reference, base.candidate)}
    # each part compiles shapes of its own
    shapes = FLEX_SHAPES[part % len(FLEX_SHAPES) :: parts] or FLEX_SHAPES[part % len(FLEX_SHAPES) :][:1]
    todo = [(number, False) for number in range(part, args.cases, parts)]
    todo += [(number, True) for number in range(part, flex_cases, parts)]
    todo.sort()  # FlexAttention's among the others, so that a run cut short has seen both
    keep = Kept(args.out)
    for number, flex in todo:
        spent = time.monotonic() - began
        if args.max_seconds is not None and spent > args.max_seconds:
            break
        case = draw_flex(number // parts, args.seed + part, shapes) if flex else draw(number, args.seed)
        if flex:
            chosen = [Implementation(FLEX, FlexCausalSelfAttention)]
        else:
            chosen = [*forced, *(turns[(turn + i) % len(turns)] for i in range(per_case))]
            turn += per_case
        problem = base.problem(case)
        try:
            problem.run(problem.reference, problem.inputs, gradients=True)
        except Exception as error:  # the original does not run here: there is nothing to compare
            _add(tally.data["unbuilt"], f"{case.dtype}: {type(error).__name__}", 1)
            continue
        judge(tally, problem, chosen, base)
        tally.visit(case)
        tally.data["flex_cases" if flex else "cases"] += 1
        tally.data["seconds"] = round(time.monotonic() - began, 1)
        tally.data["parts"] = [f"{args.part} ({tally.data['cases']} cases, {tally.data['seconds']:.0f} s)"]
        keep(tally.data)
        if spent - told > 60:
            told = spent
            d = tally.data
            print(f"{spent:.0f} s: {d['cases']} cases, {d['pairs']} pairs, {len(d['alarms'])} alarms", flush=True)
    return tally


# --- what is told -----------------------------------------------------------------------------------------------------


def _fold(tally: Tally, keep: Sequence[int]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The entries of `worst` over the given fields of their key: implementation 0, dtype 1, tensor 2, regime 3."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for key, entry in tally.data["worst"].items():
        fields = key.split("|")
        known = found.setdefault(tuple(fields[i] for i in keep), {**entry, "tensors": 0, "refined": 0})
        larger = max(known, entry, key=lambda e: e["ratio"])
        known.update(
            ratio=larger["ratio"], case=larger["case"], tensor=larger["tensor"],
            ratio_refined=max(known["ratio_refined"], entry["ratio_refined"]),
            tensors=known["tensors"] + entry["tensors"], refined=known["refined"] + entry["refined"],
        )  # fmt: skip
    return found


def summary(tally: Tally) -> str:
    """The counts in two sentences."""
    d = tally.data
    share = d["refined"] / max(1, d["tensors"])
    flex = f" and {d['flex_cases']} of {FLEX}" if d["flex_cases"] else ""
    return (
        f"{d['cases']} distinct cases of {d['planned']} that were planned{flex}, "
        f"{d['pairs']} pairs of case and implementation, {d['tensors']} tensors: "
        f"{len(d['alarms'])} false alarms, and {len(d['not_finite'])} results that are not finite. "
        f"Many perturbed runs were needed for {share:.2%} of the tensors; "
        f"{d['partly_judged']} pairs had elements beyond the dtype, which were not judged. "
        f"The original itself left the budget in {d['gap_pairs']} of its {_count(tally, ORIGINAL)} cases. "
        f"{_nearest_told(tally)}{d['seconds']:.0f} s in {len(d['parts'])} parts on {d['device']}, "
        f"torch {d['environment']['torch']}, "
        f"source {d['sources']['equivcheck'][:12]}."
    )


def _nearest_told(tally: Tally) -> str:
    entries = [(e["ratio"], k) for k, e in _fold(tally, (0, 1, 2)).items() if k[0] != ORIGINAL]
    if not entries:
        return ""
    ratio, (who, dtype, tensor) = max(entries)
    room = f"; at least {1 / ratio:.1f} times that error would have passed" if 0 < ratio <= 1 else ""
    looked_at = f" (up to {_LOOKED_AT} a ratio of few perturbed runs stands, above it that of many)"
    return f"The largest ratio of a right one is {_short(ratio)} ({who}, {dtype}, {tensor}){looked_at}{room}. "


def kernel_rows(tally: Tally) -> tuple[list[str], list[list[str]]]:
    """By kernel and dtype: the largest ratio of each kind of tensor, and how many times that error would have passed at least."""
    worst = _fold(tally, (0, 1, 2))
    forced = [*(it.name for it in kernels("cuda")), FLEX]
    table = []
    for who in forced:
        for dtype in DTYPES:
            pairs = tally.data["held"].get(f"{who}|{dtype}", 0)
            refused = tally.data["refused"].get(f"{who}|{dtype}", {"count": 0})["count"]
            if not pairs:
                if refused:
                    table.append([who, dtype, "0", str(refused), *("-" for _ in TENSORS), "-"])
                continue
            ratios = [worst.get((who, dtype, t), {}).get("ratio") for t in TENSORS]
            largest = max(r for r in ratios if r is not None)
            room = f"{1 / largest:.1f} x" if 0 < largest <= 1 else "any" if not largest else "none"
            cells = ["-" if r is None else _short(r) for r in ratios]
            table.append([who, dtype, str(pairs), str(refused), *cells, room])
    return ["kernel", "dtype", "cases", "refused", *TENSORS, "room left"], table


def _count(tally: Tally, who: str) -> int:
    return sum(count for key, count in tally.data["held"].items() if key.split("|")[0] == who)


def rows(tally: Tally) -> tuple[list[str], list[list[str]]]:
    """By implementation: pairs held, and in each dtype the largest ratio of outputs, grad x, weights and biases."""
    worst = _fold(tally, (0, 1, 2))
    refused: Counter[str] = Counter()
    for key, entry in tally.data["refused"].items():
        refused[key] += entry["count"]
    names = list(dict.fromkeys([*(k.split("|")[0] for k in (*tally.data["held"], *tally.data["refused"]))]))
    known = [*(it.name for it in kernels("cuda")), FLEX, *(it.name for it in rewritten())]
    order = {name: i for i, name in enumerate(known)}
    table = []
    for who in sorted(names, key=lambda n: order.get(n, 99)):
        cells = []
        for dtype in DTYPES:
            ratios = [worst.get((who, dtype, t), {}).get("ratio") for t in TENSORS]
            text = " ".join("-" if r is None else _short(r) for r in ratios)
            if tally.data["held"].get(f"{who}|{dtype}", 0) == 0:
                text = f"refused {refused[f'{who}|{dtype}']}" if refused[f"{who}|{dtype}"] else "-"
            elif refused[f"{who}|{dtype}"]:
                text += f" ({refused[f'{who}|{dtype}']} refused)"
            cells.append(text)
        table.append([who, str(_count(tally, who)), *cells])
    return ["implementation", "cases", *DTYPES], table


def by_regime(tally: Tally) -> tuple[list[str], list[list[str]]]:
    """By regime and dtype: the largest ratio of any right one, and the share of tensors that needed many runs."""
    worst = _fold(tally, (3, 1))
    table = []
    for regime in REGIMES:
        found = [worst.get((regime, dtype)) for dtype in DTYPES]
        cells = [
            "-" if f is None else f"{_short(f['ratio'])} ({f['refined'] / max(1, f['tensors']):.1%})" for f in found
        ]
        table.append([regime, *cells])
    return ["regime", *DTYPES], table


def nearest(tally: Tally, count: int) -> list[str]:
    """The pairs that came nearest to an alarm, as they were judged in the end."""
    found = sorted(_fold(tally, (0, 1, 2)).items(), key=lambda item: -item[1]["ratio"])
    return [f"{e['ratio']:.3f} {k[0]}, {e['tensor']}: {e['case']}" for k, e in found[:count]]


def plain(header: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(row[i]) for row in (header, *table)) for i in range(len(header))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in (header, *table))
    return "\n".join(line.rstrip() for line in lines)


def markdown(header: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """The same for a page."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *table)]
    return "\n".join((lines[0], "|" + " --- |" * len(header), *lines[1:]))


def page(tally: Tally) -> str:
    """The Markdown page."""
    d = tally.data
    refused = [
        [*key.split("|"), str(e["count"]), e["reason"].replace("|", "/")] for key, e in sorted(d["refused"].items())
    ]
    ran = [
        [*key.split("|"), ", ".join(names).replace("|", "/") or "no name told"]
        for key, names in sorted(d["kernels"].items())
    ]
    visited = "; ".join(f"{k}: " + ", ".join(f"{n} {c}" for n, c in sorted(v.items())) for k, v in d["visited"].items())
    parts = [
        "# False alarms",
        summary(tally),
        "By kernel and dtype: the largest ratio of error to budget (above 1 is an alarm) of outputs, gradient of x, "
        "gradients of weights and of biases, and how many times the largest error would still have passed, at least:",
        markdown(*kernel_rows(tally)),
        "By implementation: the largest ratio of outputs, gradient of x, gradients of weights, gradients of biases:",
        markdown(*rows(tally)),
        "The same by regime, with the share of tensors that were judged on many perturbed runs:",
        markdown(*by_regime(tally)),
        f"Cases visited: {visited}.",
        "Nearest to an alarm:\n\n" + "\n".join(f"- {line}" for line in nearest(tally, 10)),
    ]
    if d["alarms"]:
        parts.append("## False alarms told\n\n" + _told(d["alarms"]))
    if d["not_finite"]:
        told = "Accused, and rightly: no budget makes these right. The truth is finite there, and so is what the original gives."
        parts.append(f"## Not finite\n\n{told}\n\n" + _told(d["not_finite"]))
    if d["gaps"]:
        parts.append("## Where the original itself leaves the budget\n\n" + _told(d["gaps"]))
    if refused:
        parts += ["## Refused", markdown(["implementation", "dtype", "times", "first reason"], refused)]
    if ran:
        parts += ["## Kernels seen", markdown(["implementation", "dtype", "kernels"], ran)]
    parts.append("Made by `benchmarks/false_alarms.py`, parts " + ", ".join(d["parts"]) + ".")
    return "\n\n".join(parts) + "\n"


def _told(found: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        f"- {f['implementation']}, `{f['case']}`: {f['failed'][0]['message'].splitlines()[0]}" for f in found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cases", type=int, default=200, help="of the whole, over all parts")
    parser.add_argument("--per-case", type=int, help="that take turns, in each case: 6 on cpu, 2 on cuda")
    parser.add_argument("--flex-cases", type=int, help=f"cases of {FLEX} on top: a quarter of --cases on cuda")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--part", default="0/1", help="I/N: the cases whose number is I modulo N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="parts to add up instead of a run")
    parser.add_argument("--out", type=Path, help="JSON; a Markdown page goes beside it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # each forced kernel says why the others were not taken
    warnings.filterwarnings("error", message=".*flex_attention called without torch.compile.*")
    if args.merge:
        tally = Tally()
        for data in reached(args.merge):
            tally.merge(Tally(data))
    else:
        tally = run(args)
    out = args.out or Path(f"reports/{args.device}/false_alarms.json")
    write(out, dumped(tally.data))
    write(out.with_suffix(".md"), page(tally))
    print(plain(*kernel_rows(tally)))
    print("largest ratio of output, grad x, weights, biases")
    print(plain(*rows(tally)))
    print("largest ratio, and how often many perturbed runs were needed")
    print(plain(*by_regime(tally)))
    print("\n".join(nearest(tally, 5)))
    print(summary(tally))
    sys.exit(1 if tally.data["alarms"] else 0)


if __name__ == "__main__":
    main()
