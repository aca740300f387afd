"""Every fault of `equivcheck.faults`, through the checks that should see it: at which levels is it different?

    python benchmarks/fault_levels.py [--profile gate] [--seed 0] [--device cpu] [--only TEXT] [--part I/N]

Prints a row a fault: the level at which it is wrong, the levels at which it is different, the findings, and seconds. Exit
status 1 where a fault is not different at the level at which it is wrong.
"""

import argparse
import sys
import time
import warnings

from parts import of_part, takes_parts

import equivcheck
from equivcheck.attention import CausalSelfAttention
from equivcheck.faults import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    takes_parts(parser)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = of_part(FAULTS, args)
    off = 0
    for fault in chosen:
        began = time.monotonic()
        report = equivcheck.verify(
            CausalSelfAttention,
            fault.attention,
            kind="module",
            checks=list(fault.seen_by),
            profile=args.profile,
            seed=args.seed,
            device=args.device,
        )
        different = [level for level, outcome in report.levels.items() if outcome == "different"]
        findings = ", ".join(name for result in report.results for name in result.differing)
        said = "" if fault.level in different else "  OFF"
        off += bool(said)
        spent = time.monotonic() - began
        print(
            f"{fault.name:45} {fault.level:10} {'+'.join(different):24} {findings:30} {spent:6.1f} s{said}", flush=True
        )
    print(f"{len(chosen) - off} of {len(chosen)} are different at the level at which they are wrong")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
