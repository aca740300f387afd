"""Candidates and originals that die, hang or deceive, through the command line: what came of each, and in how many seconds.

    python benchmarks/hostile.py [--only TEXT] [--device cuda]

Prints a row each: the exit status, the seconds, what is not as it must be, and the last line of the run. Exit status 1 where
one ends as it must not: with exit status 0, without a report that names the case, or with a process left.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hostile.attentions import ALL, ON_CUDA
from hostile.running import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those with this text in their names")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="on cuda also what a kernel can do")
    args = parser.parse_args()
    wrong = 0
    members = (*ALL, *ON_CUDA) if args.device == "cuda" else ALL
    for hostile in members:
        if args.only not in hostile.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            ran = run(hostile, Path(folder), device=args.device)
        faults = ran.faults(hostile)
        wrong += bool(faults)
        last = ran.text.strip().splitlines()[-1] if ran.text.strip() else ""
        print(
            f"{hostile.name:36} {ran.status}  {ran.seconds:6.1f} s  {'; '.join(faults) or 'as it must'}  | {last[:110]}",
            flush=True,
        )
        if faults:
            print("\n".join(f"      {line[:200]}" for line in ran.text.splitlines()[-14:]), flush=True)
    print(f"{wrong} of {len(members)} not as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
