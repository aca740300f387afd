"""Attentions written apart from the code, through the command line: the outcome at each level against what is expected.

    python benchmarks/written_apart.py [--only TEXT] [--expected right] [--profile gate] [--seed 0] [--device cpu] [--jobs 2]

Prints a row each: whether it is as expected, the outcome at each level, the seconds, and the last line of the run. Exit
status 1 where one is not: a right one that is different at `values` or `training`, or not equivalent there; a wrong one
that is equivalent; one that is wrong at a level of its own and different elsewhere; one without an oracle, for which none
is offered.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rights.index import PAIRS

from equivcheck.report.levels import LEVELS
from equivcheck.report.model import Report

_PAIRS = Path(__file__).parent / "rights"
_SHORT = {
    "equivalent": "=",
    "different": "X",
    "unsupported": "u",
    "deviation": "d",
    "not judged": "?",
    "not applicable": "-",
}


def verdict_on(expected: str, report: Report, status: int) -> str:
    """What is not as expected; empty if nothing is."""
    levels = report.levels
    numbers = [levels["values"], levels["training"]]
    if expected == "right":
        if "different" in numbers:
            return "ACCUSED"
        return "" if status == 0 else f"verdict {report.verdict}"
    if expected == "wrong":
        return "" if "different" in numbers else "MISSED"
    if expected == "refuses":
        return "" if "different" in levels.values() else "MISSED"
    own = expected.removeprefix("wrong at ")
    if levels[own] != "different":
        return "MISSED"
    return "ACCUSED" if "different" in numbers else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those with this text in their names")
    parser.add_argument("--expected", default="", help="those of which this is expected")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--part", default="0/1", help="every N-th pair from the K-th on, as K/N")
    args = parser.parse_args()
    first, step = map(int, args.part.split("/"))
    chosen = [p for p in PAIRS if args.only in p[0] and args.expected in ("", p[4])][first::step]
    off = 0
    for name, kind, reference, candidate, expected, *options in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.json"
            command = [sys.executable, "-m", "equivcheck", "verify", reference, candidate, "--kind", kind]
            command += ["--profile", args.profile, "--seed", args.seed, "--device", args.device, "--jobs", args.jobs]
            command += ["--require", "values,training", "--json", str(file), *options]
            done = subprocess.run(command, cwd=_PAIRS, capture_output=True, text=True, check=False)
            report = Report.load(file) if file.exists() else None
        lines = (done.stdout or done.stderr).strip().splitlines()
        said = "NO REPORT" if report is None else verdict_on(expected, report, done.returncode)
        if expected == "no oracle":
            said = "" if done.returncode == 2 and "--oracle" in lines[-1] else "NOT OFFERED"
        shown = "" if report is None else " ".join(_SHORT[report.levels[level]] for level in LEVELS)
        off += bool(said)
        seconds = time.monotonic() - began
        print(
            f"{name:34} {expected:19} {shown:8} {seconds:6.1f} s  {said or 'as expected'}  | {lines[-1][:150]}",
            flush=True,
        )
        if said and report is not None:
            for result in report.results:
                for finding in result.shown:
                    text = finding.counterexample.message.splitlines()[0]
                    print(
                        f"      {result.name_of(finding)} [{finding.level}] {finding.counterexample.case}: {text[:170]}",
                        flush=True,
                    )
                if result.outcome == "not judged":
                    print(f"      {result.name} not judged: {'; '.join(result.notes)[:200]}", flush=True)
    print(f"{off} of {len(chosen)} not as expected")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
