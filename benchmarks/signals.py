"""Signals to a run at random moments: `kill -9` of a worker and of the supervisor, Ctrl-C, SIGTERM.

    python benchmarks/signals.py [--times 10] [--seed 0] [--only worker]

A killed worker leaves the report as it is without, but for times; a killed supervisor leaves no false verdict; both signals end in
a partial report and exit status 2. No process is left. Exit status 1 where one of these is not so.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKS = ("output", "checkpoint", "interface", "purity")
_TIMES = ("seconds", "created", "integrity")


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    checks = [word for check in CHECKS for word in ("--check", check)]
    command = [sys.executable, "-m", "equivcheck", "verify", "--device", "cpu", "--profile", "quick", "--jobs", "2"]
    return subprocess.Popen(
        [*command, *checks, "--json", str(out)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def descendants(root: int) -> dict[int, str]:
    """The processes below `root`, with their command lines."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                lines[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: lines[pid] for pid in found - {root}}


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not any(word in k for word in _TIMES)}
    return [plain(v) for v in value] if isinstance(value, list) else value


def report(out: Path) -> object:
    return plain(json.loads(out.read_text())) if out.exists() else None


def gone(pids: dict[int, str]) -> list[str]:
    """Those that are still there after five seconds."""
    for _ in range(50):
        left = [f"{pid} {line}" for pid, line in pids.items() if Path(f"/proc/{pid}").exists() and not _zombie(pid)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def one(folder: Path, what: str, moment: float, chance: random.Random) -> tuple[int | None, object, list[str], str]:
    """The exit status of a run to which `what` was done, its report, the processes that it left, and what was hit."""
    out = folder / "report.json"
    out.unlink(missing_ok=True)
    process = start(folder, out)
    time.sleep(moment)
    below, hit = descendants(process.pid), ""
    if what == "worker":
        parents = {pid: descendants(pid) for pid, line in below.items() if "equivcheck.worker" in line}
        leaves = [pid for pid, under in parents.items() if not under]
        if leaves:
            hit = str(chance.choice(leaves))
            os.kill(int(hit), signal.SIGKILL)
    else:
        os.kill(process.pid, {"supervisor": signal.SIGKILL, "ctrl-c": signal.SIGINT, "term": signal.SIGTERM}[what])
    status = process.wait()
    return status, report(out), gone(below), hit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=("worker", "supervisor", "ctrl-c", "term"))
    given = parser.parse_args()
    chance, wrong = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        whole_status, whole, left, _ = one_whole(folder)
        took = time.monotonic() - began
        print(f"a whole run: exit status {whole_status}, {took:.1f} s")
        for what in given.only or ("worker", "supervisor", "ctrl-c", "term"):
            for number in range(given.times if what in ("worker", "supervisor") else max(1, given.times // 2)):
                moment = chance.uniform(0.1, 0.9) * took
                status, made, left, hit = one(folder, what, moment, chance)
                verdict = made.get("verdict") if isinstance(made, dict) else None
                good = {
                    "worker": status == whole_status and made == whole,
                    "supervisor": verdict in (None, "partial") or made == whole,
                    "ctrl-c": (status, verdict) == (2, "partial"),
                    "term": (status, verdict) == (2, "partial"),
                }[what] and not left
                wrong += not good
                print(
                    f"{what} {number + 1}: at {moment:.1f} s, exit {status}, {verdict}, {hit} {'good' if good else f'WRONG {left}'}"
                )
    return int(bool(wrong))


def one_whole(folder: Path) -> tuple[int | None, object, list[str], str]:
    out = folder / "report.json"
    process = start(folder, out)
    return process.wait(), report(out), [], ""


if __name__ == "__main__":
    sys.exit(main())
