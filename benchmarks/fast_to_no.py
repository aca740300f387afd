"""Wrong attentions against the right one: how soon the first difference is printed, and how long a whole run takes.

    python benchmarks/fast_to_no.py [--profile gate] [--whole N] [--part I/N] [--only TEXT]

Runs the shipped pair first and once more at the end, then each fault of `equivcheck.faults` until its first difference.
With --whole N every N-th fault is run to its end as well. Prints a row a fault: seconds to the first difference and its
share of the right pair's run, the check that saw it, and the whole run's share; then the median, the 95 % quantile, and
the later ones by name. All in one process, so that shares are of one machine in one state.
"""

import argparse
import statistics
import sys
import time
import warnings
from typing import Any

from parts import of_part, takes_parts

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.faults import FAULTS

_LATE = 0.15  # of the right pair's run


class _First:
    """A listener that notes when the first difference is seen, and by which check."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: float | None = None
        self.check = "NOT SEEN"

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: Any) -> None: ...

    def differs(self, check: str, level: str, case: str, message: str) -> None:
        if self.seconds is None:
            self.seconds, self.check = time.monotonic() - self.began, check


def run(candidate: Any, profile: str, *, fail_fast: bool) -> tuple[_First, float]:
    """The first difference of a run, and its seconds."""
    listener = _First()
    equivcheck.verify(
        CausalSelfAttention,
        candidate,
        kind="module",
        device="cpu",
        profile=profile,
        listener=listener,
        fail_fast=fail_fast,
    )
    return listener, time.monotonic() - listener.began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--whole", type=int, default=0, metavar="N", help="run every N-th fault to its end, too")
    takes_parts(parser)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = of_part(FAULTS, args)
    _, right_s = run(FlashCausalSelfAttention, args.profile, fail_fast=False)
    print(f"the right pair: {right_s:.1f} s", flush=True)
    shares: dict[str, float] = {}
    whole: list[float] = []
    for number, fault in enumerate(chosen):
        first, _ = run(fault.attention, args.profile, fail_fast=True)
        shares[fault.name] = float("inf") if first.seconds is None else first.seconds / right_s
        text = ""
        if args.whole and number % args.whole == 0:
            _, seconds = run(fault.attention, args.profile, fail_fast=False)
            whole.append(seconds / right_s)
            text = f"  whole run {whole[-1]:.2f}"
        print(f"{fault.name:45} {first.seconds or 0:6.2f} s {shares[fault.name]:7.1%}  {first.check}{text}", flush=True)
    _, again_s = run(FlashCausalSelfAttention, args.profile, fail_fast=False)
    print(f"the right pair again: {again_s:.1f} s")
    ordered = sorted(shares.values())
    late = [name for name, of_right in shares.items() if of_right > _LATE]
    print(
        f"{len(ordered)} faults in profile {args.profile}: first difference after {statistics.median(ordered):.1%} of the "
        f"right pair's run in the median, {ordered[int(0.95 * (len(ordered) - 1))]:.1%} at 95 %; "
        f"later than {_LATE:.0%}: {', '.join(late) or 'none'}"
    )
    if whole:
        print(f"whole runs of {len(whole)}: {statistics.median(whole):.2f} in the median, {max(whole):.2f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
