"""How fast the suite is: where the time of `verify` goes, and how much of it is the computations that are compared.

    python benchmarks/suite_speed.py [--profile gate] [--device cpu] [--jobs N] [--faults 12] [--out FILE]

Runs `verify` on the pair that ships and tells cases per second, the time of each check, and the overhead: the time of the
whole run over that of the computations in it, the bare time. Those are forward passes, backward passes and optimizer steps
  - of reference and candidate (a planted fault is a candidate), on the device that is judged;
  - of the oracle, in float64, where it runs;
  - of the oracle with every operation perturbed, of which the budget is made: no verdict is reached without them.
On CUDA each is timed until the device has done it. Not among them is all else: drawing cases, building modules, drawing
weights and inputs, copies between devices, comparisons, statistics, the report. What the perturbed runs count is told three
ways: as they ran, which is the overhead that is meant where one number is told; as so many plain runs of the oracle on the
same problem; not at all. Then how the time grows with the number of cases and with T, and over every N-th fault the seconds
to the first counterexample. With --out writes all of it as JSON, and as markdown beside it.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from equivcheck.api import verify
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.faults import FAULTS
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.numerics.monte_carlo import Rounding
from equivcheck.numerics.oracle import Widened
from equivcheck.pairs import perturbed_runs
from equivcheck.pairs.loading import load
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment, sources
from equivcheck.runtime.device import device_name

sys.path.insert(0, str(Path(__file__).parent))
from sightings import sight

ORIGINAL = "equivcheck.attention:CausalSelfAttention"
FLASH = "equivcheck.attention:FlashCausalSelfAttention"


class Account:
    """Seconds of the outermost calls of modules, optimizers and the autograd engine, by who was running."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self.runs = device, Counter(), Counter()
        self.oracle_s: dict[int, float] = {}  # problem -> its plain oracle run
        self._depth, self._modes = 0, []

    def _who(self) -> str:
        if any(issubclass(mode, Rounding) for mode in self._modes):
            return "perturbed"
        return "oracle" if self._modes else "pair"

    def timed(self, function):
        def inner(*args, **kwargs):
            if self._depth:
                return function(*args, **kwargs)
            self._depth, began = 1, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                self._depth = 0
                self.seconds[self._who()] += time.perf_counter() - began

        return inner

    @contextmanager
    def keeping(self):
        """Inside, accounts are kept."""
        together, oracle, in_turn = perturbed_runs.oracle_together, Problem._oracle, perturbed_runs.oracle_in_turn
        enter, leave = Widened.__enter__, Widened.__exit__
        call, backward, grad = nn.Module.__call__, torch.autograd.backward, torch.autograd.grad
        step = torch.optim.AdamW.step

        def entered(mode):
            self._modes.append(type(mode))
            return enter(mode)

        def left(mode, *args):
            self._modes.pop()
            return leave(mode, *args)

        def own_oracle(problem, *args):
            before = self.seconds["oracle"]
            found = oracle(problem, *args)
            self.oracle_s[id(problem)] = self.seconds["oracle"] - before
            return found

        def counted(perturbed):
            def inner(problem, original, count, *, gradients):
                self.seconds["perturbed as plain"] += count * self.oracle_s.get(id(problem), 0.0)
                self.runs["perturbed"] += count
                return perturbed(problem, original, count, gradients=gradients)

            return inner

        Widened.__enter__, Widened.__exit__ = entered, left
        Problem._oracle = own_oracle
        perturbed_runs.oracle_together, perturbed_runs.oracle_in_turn = counted(together), counted(in_turn)
        nn.Module.__call__ = self.timed(call)
        torch.autograd.backward, torch.autograd.grad = self.timed(backward), self.timed(grad)
        torch.optim.AdamW.step = self.timed(step)
        try:
            yield self
        finally:
            Widened.__enter__, Widened.__exit__ = enter, leave
            Problem._oracle = oracle
            perturbed_runs.oracle_together, perturbed_runs.oracle_in_turn = together, in_turn
            nn.Module.__call__ = call
            torch.autograd.backward, torch.autograd.grad = backward, grad
            torch.optim.AdamW.step = step


def whole(profile: str, device: str, shared: dict[str, int]) -> dict[str, object]:
    where = resolve(ORIGINAL, FLASH, kind="module", device=device).device
    plain = verify(ORIGINAL, FLASH, device=device, profile=profile, **shared)
    with Account(where).keeping() as account:
        kept = verify(load(ORIGINAL), load(FLASH), device=device, profile=profile)  # objects run in this process
    s = account.seconds
    pair, oracle, ran, as_plain = s["pair"], s["oracle"], s["perturbed"], s["perturbed as plain"]
    return {
        "profile": profile,
        "verdict": plain.verdict,
        "seconds": plain.seconds,
        "seconds with accounts": kept.seconds,
        "cases": plain.cases,
        "cases per second": plain.cases / plain.seconds,
        "sensitivity_s": plain.sensitivity.seconds,
        "faults": len(plain.sensitivity.planted),
        "computations_s": {
            "reference, candidate and faults": pair,
            "oracle": oracle,
            "perturbed, as they ran": ran,
            "perturbed, as so many plain oracle runs": as_plain,
        },
        "perturbed runs": account.runs["perturbed"],
        # of one and the same run, so that a busy machine slows both
        "overhead": {
            "perturbed runs not counted": kept.seconds / (pair + oracle),
            "perturbed runs counted as plain oracle runs": kept.seconds / (pair + oracle + as_plain),
            "perturbed runs counted as they ran": kept.seconds / (pair + oracle + ran),
        },
        "checks": {r.name: {"cases": r.cases, "seconds": round(r.seconds, 2)} for r in plain.results},
    }


def growth(device: str) -> dict[str, dict[int, float]]:
    subject = resolve(ORIGINAL, FLASH, kind="module", device=device)
    check = next(c for c in CHECKS if c.name == "output")
    by_cases = {}
    for planned in (25, 50, 100, 200):
        search = Search(check, subject, planned, 30, float("inf"))
        began = time.perf_counter()
        search.run(classes(check, subject, DTYPES, planned), seed_for(0, check.name))
        by_cases[len(search.passed)] = round(time.perf_counter() - began, 3)
    gradients = next(c for c in CHECKS if c.name == "gradients")
    by_length = {}
    for T in (16, 64, 256, 512, 1024):
        times = []
        for seed in range(5):
            case = Case(batch_size=1, seq_len=T, n_head=2, head_size=32, block_size=T, seed=seed)
            began = time.perf_counter()
            gradients.run(subject, case)
            times.append(time.perf_counter() - began)
        by_length[T] = round(1e3 * statistics.median(times), 2)
    return {"seconds over cases of the check output": by_cases, "ms a case of the check gradients over T": by_length}


def sightings(device: str, profile: str, every: int) -> dict[str, object]:
    base = resolve(ORIGINAL, ORIGINAL, kind="module", device=device)
    rows = [sight(base.with_candidate(f.attention, f.name), profile, 0, 0.0) for f in FAULTS[::every]]
    times = sorted(row["first_s"] for row in rows if row["first_s"] is not None)
    return {
        "faults": len(rows),
        "seen": len(times),
        "median_s": statistics.median(times),
        "nine in ten_s": times[int(0.9 * (len(times) - 1))],
        "largest_s": times[-1],
    }


def page(found: dict[str, object]) -> str:
    run = found["run"]
    total = run["seconds"]
    lines = [
        "# Speed of the suite",
        "",
        f"`equivcheck verify`, profile {run['profile']}, {found['device']}, torch {found['environment']['torch']}: "
        f"{run['cases']} cases and {run['faults']} planted faults in {total:.1f} s, {run['cases per second']:.1f} cases a second, "
        f"{run['sensitivity_s']:.1f} s of it for the faults.",
        "",
        "| computations | seconds |",
        "| --- | --- |",
        *(f"| {name} | {seconds:.2f} |" for name, seconds in run["computations_s"].items()),
        "",
        f"Perturbed runs: {run['perturbed runs']}. Accounts were kept in a run of {run['seconds with accounts']:.1f} s.",
        "",
        "| overhead, with | time of verify / computations |",
        "| --- | --- |",
        *(f"| {name} | {value:.2f} |" for name, value in run["overhead"].items()),
        "",
        "| check | cases | seconds | ms a case |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {of['cases']} | {of['seconds']} | {1e3 * of['seconds'] / max(of['cases'], 1):.0f} |"
            for name, of in run["checks"].items()
        ),
    ]
    for name, values in (found.get("growth") or {}).items():
        lines += ["", f"{name}: " + ", ".join(f"{k}: {v}" for k, v in values.items())]
    if found.get("first counterexample"):
        told = ", ".join(
            f"{k} {v if isinstance(v, int) else round(v, 2)}" for k, v in found["first counterexample"].items()
        )
        lines += ["", f"Seconds to the first counterexample: {told}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, help="processes that share the timed run; accounts are kept in one process")
    parser.add_argument("--faults", type=int, default=12, help="every N-th fault is searched for; 0: none")
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    subject = resolve(ORIGINAL, FLASH, kind="module", device=args.device)
    found = {
        "device": device_name(subject.device),
        "environment": environment(subject.device),
        "sources": sources(subject.reference, subject.candidate),
        "run": whole(args.profile, args.device, {} if args.jobs is None else {"jobs": args.jobs}),
        "growth": {} if args.no_growth else growth(args.device),
        "first counterexample": sightings(args.device, args.profile, args.faults) if args.faults else {},
    }
    print(page(found))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(page(found))


if __name__ == "__main__":
    main()
