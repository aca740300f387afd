"""Every fault of `equivcheck.faults`, put through the checks of a profile: is it seen, by what, how soon, how small?

    python benchmarks/sightings.py [--profile gate] [--device cpu] [--only NAME] [--no-shrink] [--by-name] [--part I/N] [--out FILE]
    python benchmarks/sightings.py --merge FILE... --out FILE

Prints a row a fault and the totals; with --out writes the rows as JSON. Checks are run in the order of the registry,
those of a module as `equivcheck verify` chooses them, from the first on, until one fails: the seconds are what a user
waits for the first counterexample, and then for the smallest one. With --by-name the checks alone are run that should see
the fault. Part I/N takes every N-th fault from the I-th on and keeps on disk what it has reached; --merge puts together
what there is. With --right the subjects are the right ones, none of which may be seen. Exit status 1 where one is seen, or
a wrong one is not.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from parts import Kept, dumped, reached, share, write

from equivcheck.checks import CHECKS
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch
from equivcheck.faults import FAULTS, RIGHT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve


class _Timed(Search):
    """A search that remembers when it failed first."""

    first_s: float | None = None
    first_case: int = 0
    started: float = 0.0

    def visit(self, case):
        try:
            super().visit(case)
        except Mismatch:
            if self.first_s is None:
                self.first_s = time.monotonic() - self.started
                self.first_case = len(self.passed) + 1
            raise


def sight(
    subject: Pair,
    profile: str,
    seed: int,
    shrinks: int,
    max_s: float = float("inf"),
    among: Collection[str] = (),
) -> dict[str, object]:
    began, cases = time.monotonic(), 0
    for check in CHECKS:
        if subject.kind not in check.kinds or not check.judges or (among and check.name not in among):
            continue
        search = _Timed(check, subject, check.cases[profile], shrinks, began + max_s)
        search.started = began
        search.run(classes(check, subject, DTYPES, search.planned, profile=profile), seed_for(seed, check.name))
        if search.minimal is not None:
            mismatch = search.failed[search.minimal]
            return {
                "check": check.name,
                "first_s": round(search.first_s, 2),
                "cases": cases + search.first_case,
                "total_s": round(time.monotonic() - began, 2),
                "case": search.minimal.id,
                "message": str(mismatch).splitlines()[0][:160],
            }
        cases += len(search.passed)
    spent = round(time.monotonic() - began, 2)
    return {"check": None, "first_s": None, "cases": cases, "total_s": spent, "case": "", "message": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th fault from the I-th on")
    parser.add_argument("--right", action="store_true", help="the right ones instead: none may be seen")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--by-name", action="store_true", help="only the checks that should see the fault: quicker")
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="no further fault after so long")
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    members = RIGHT if args.right else FAULTS
    order = [member.name for member in members]
    if args.merge:
        rows = sorted((row for part in reached(args.merge) for row in part), key=lambda row: order.index(row["fault"]))
    else:
        rows = study(args, members)
    told(args, rows, order)
    if args.out:
        write(args.out, dumped(rows))
    sys.exit(1 if any(bool(row["check"]) is args.right for row in rows) else 0)


def study(args: argparse.Namespace, members: Any) -> list[dict[str, Any]]:
    """The rows of one part."""
    original = "equivcheck.attention:CausalSelfAttention"
    base = resolve(original, original, kind="module", device=args.device)
    part, parts = share(args.part)
    rows: list[dict[str, Any]] = []
    keep, began = Kept(args.out, every_s=0.0), time.monotonic()
    for fault in members[part::parts]:
        if args.only and fault.name not in args.only:
            continue
        if time.monotonic() - began > args.max_seconds:
            break
        subject = base.with_candidate(fault.attention, fault.name)
        among = getattr(fault, "seen_by", ()) if args.by_name else ()
        row = sight(subject, args.profile, args.seed, 0 if args.no_shrink else 100, among=among)
        row = {"fault": fault.name, "seen_by": list(getattr(fault, "seen_by", ())), **row}
        rows.append(row)
        keep(rows)
        times_told = f"{row['first_s'] or 0:6.2f} s {row['total_s']:6.2f} s"
        print(f"{fault.name:45s} {row['check'] or 'NOT SEEN':10s} {times_told}  {row['case']}", flush=True)
    return rows


def told(args: argparse.Namespace, rows: list[dict[str, Any]], order: list[str]) -> None:
    """The totals, and who was not reached."""
    seen = [row for row in rows if row["check"]]
    times = [row["first_s"] for row in seen]
    print(
        f"{len(seen)} of {len(rows)} seen in profile {args.profile} on {args.device}, torch {torch.__version__}; "
        f"seconds to the first counterexample: median {statistics.median(times) if times else 0:.2f}, "
        f"largest {max(times, default=0):.2f}; "
        f"not seen: {', '.join(r['fault'] for r in rows if not r['check']) or 'none'}"
    )
    if args.merge:
        missing = sorted(set(order) - {row["fault"] for row in rows}, key=order.index)
        print(f"not reached: {', '.join(missing) or 'none'} of {len(order)}")


if __name__ == "__main__":
    main()
