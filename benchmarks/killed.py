"""Kill `equivcheck verify --json` at random moments: no file that is left may say that it is complete and not be.

A file is complete where it has the results and the planted faults of a run that nobody killed; that happens where the kill comes
between the last write and the end of the process.

python benchmarks/killed.py --kills 20 --seed 0
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from equivcheck.errors import ReportError
from equivcheck.report.model import Report


def command(folder: Path) -> list[str]:
    """A run that takes some seconds, and writes every form of its report."""
    checks = ["--check", "checkpoint", "--check", "interface", "--check", "purity", "--check", "errors"]
    files = ["--json", str(folder / "x.json"), "--report", str(folder / "all")]
    return [sys.executable, "-m", "equivcheck", "verify", "--device", "cpu", "--profile", "quick", *checks, *files]


def established(report: Report) -> object:
    """What two runs of one seed have in common."""
    return [(r.name, r.outcome, r.cases, r.worst_ratio) for r in report.results], report.sensitivity.planted


def left_by(folder: Path, after_s: float | None, whole: Report | None = None) -> tuple[int, dict[str, str]]:
    """The exit status of a run that is killed after so long (None: never), and what its files are."""
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = {}
    for place in (folder / "x.json", folder / "all" / "report.json"):
        if not place.exists():
            said[place.name] = "no file"
            continue
        try:
            report = Report.load(place)
            done = report.complete and (whole is None or established(report) == established(whole))
            said[place.name] = "complete" if done else "partial" if report.verdict == "partial" else "NOT COMPLETE"
        except ReportError as error:
            said[place.name] = f"unreadable: {error}"
        # whoever reads it without equivcheck must not find another answer
        if json.loads(place.read_text())["complete"] is not (said[place.name] != "partial"):
            said[place.name] = "contradicts itself"
    return process.returncode, said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    drawn = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        left_by(Path(folder), None)  # so that the next one finds what is compiled
        began = time.monotonic()
        status, said = left_by(Path(folder), None)
        duration = time.monotonic() - began
        if status or set(said.values()) != {"complete"}:
            print(f"the run itself ended with {status} and {said}")
            return 1
        green = (Path(folder) / "x.json").read_bytes()
        whole = Report.load(Path(folder) / "x.json")
    print(f"a whole run: {duration:.1f} s")
    found: Counter[str] = Counter()
    for number in range(options.kills):
        after = drawn.uniform(0.0, duration)
        with tempfile.TemporaryDirectory() as folder:
            older = number % 2 == 1  # every other time a green report lies there already
            if older:
                (Path(folder) / "x.json").write_bytes(green)
            status, said = left_by(Path(folder), after, whole)
            killed = status == -signal.SIGKILL
            untouched = older and (Path(folder) / "x.json").read_bytes() == green
        if not killed:
            kind = "ended before the kill"
        elif untouched:
            kind = "killed before it began to judge: the older report is as it was"
        else:
            bad = set(said.values()) - {"no file", "partial", "complete"}
            kind = f"BAD: {said}" if bad else f"killed: {said['x.json']}"
        found[kind] += 1
        print(f"{after:5.2f} s: {kind}", flush=True)
    print(dict(found))
    return 1 if any(kind.startswith("BAD") for kind in found) else 0


if __name__ == "__main__":
    sys.exit(main())
