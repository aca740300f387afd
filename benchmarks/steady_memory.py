"""The memory of a long run: does a worker keep what it no longer needs?

    python benchmarks/steady_memory.py [--minutes 30] [--first 5] [--profile thorough] [--jobs 2] [--device cpu]
                                       [--every 5] [--limit 0.2] [--out FILE] [-- OPTIONS OF VERIFY]

Runs `equivcheck verify` on the pair that ships, for so many minutes, and reads the resident memory of each worker from /proc
every few seconds. Prints for each worker its peak in the first minutes and its peak after them. A worker that began later is
compared with the largest of the first minutes. All that the command takes may stand after --, such as a seed or a pair.
Exit status 1 where a later peak is more than --limit above the first one, 2 where the run ended too early to say anything.
The resident memory of a fork has the pages that it shares with its parent: torch alone is some hundred MiB.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """The resident memory of a worker at a time after the start of the run."""

    seconds: float
    process: int
    resident_bytes: int


@dataclass(frozen=True)
class Peaks:
    """The peaks of one worker, in the first minutes (of any worker, if it began after them) and later, and their ratio."""

    process: int
    began_s: float
    ended_s: float
    first_bytes: int
    later_bytes: int

    @property
    def growth(self) -> float:
        """How far the later peak is above the first one, as a share of that."""
        return self.later_bytes / self.first_bytes - 1.0


def peaks(samples: Iterable[Sample], first_s: float) -> list[Peaks]:
    """The peaks of each worker that lived after the first minutes, in the order in which they began."""
    by_process: dict[int, list[Sample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    early = [s.resident_bytes for some in by_process.values() for s in some if s.seconds <= first_s]
    rows = []
    for process, some in by_process.items():
        later = [s.resident_bytes for s in some if s.seconds > first_s]
        before = [s.resident_bytes for s in some if s.seconds <= first_s] or early
        if later and before:
            rows.append(Peaks(process, some[0].seconds, some[-1].seconds, max(before), max(later)))
    return rows


def page(rows: Iterable[Peaks], first_s: float, limit: float) -> str:
    """The peaks as a table in markdown."""
    lines = [
        f"| worker | from, s | to, s | peak in the first {first_s:.0f} s, MiB | peak later, MiB | growth |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, row in enumerate(rows):
        mib = f"{row.first_bytes / MIB:.0f} | {row.later_bytes / MIB:.0f}"
        mark = "" if row.growth <= limit else " **grows**"
        lines.append(f"| {number} | {row.began_s:.0f} | {row.ended_s:.0f} | {mib} | {100 * row.growth:+.1f} %{mark} |")
    return "\n".join(lines)


def children(parents: Mapping[int, int], of: Iterable[int]) -> list[int]:
    """The processes whose parent is one of these."""
    known = set(of)
    return [process for process, parent in parents.items() if parent in known]


def parents_now() -> dict[int, int]:
    """Each process of this machine -> its parent."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    return parents


def resident_now(process: int) -> int:
    """The resident memory of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def sampled(command: list[str], every_s: float, most_s: float) -> tuple[list[Sample], str]:
    """The samples of a run's workers, which are children of the nursery, and the last line that the run printed."""
    samples: list[Sample] = []
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            while run.poll() is None and time.monotonic() - began < most_s:
                parents = parents_now()
                for worker in children(parents, children(parents, [run.pid])):
                    if resident := resident_now(worker):
                        samples.append(Sample(time.monotonic() - began, worker, resident))
                time.sleep(every_s)
        finally:
            if run.poll() is None:
                run.terminate()  # the run writes a partial report, and ends its workers
        printed = run.communicate()[0]
    return samples, (printed.strip().splitlines() or ["the run printed nothing"])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--first", type=float, default=5.0, help="the minutes that the later ones are compared with")
    parser.add_argument("--profile", default="thorough")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--limit", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("options", nargs="*", help="of verify, after --")
    args = parser.parse_args()
    if not args.first < args.minutes:
        parser.error(f"--first {args.first:g} --minutes {args.minutes:g}: fewer minutes than all of them are allowed")
    words = ["--profile", args.profile, "--jobs", str(args.jobs), "--device", args.device]
    words += ["--max-seconds", str(60 * args.minutes), *args.options]
    command = [sys.executable, "-m", "equivcheck", "verify", *words]
    first_s = 60 * args.first
    samples, last = sampled(command, args.every, 60 * args.minutes + 60)
    rows = peaks(samples, first_s)
    text = "\n".join([f"`equivcheck verify {' '.join(words)}`: {last}", "", page(rows, first_s, args.limit)])
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": words, "samples": [asdict(s) for s in samples]}, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(f"# The memory of a long run\n\n{text}\n")
    if not rows:
        print(f"the run has no worker after {first_s:.0f} s: give fewer minutes as --first")
        sys.exit(2)
    sys.exit(1 if any(row.growth > args.limit for row in rows) else 0)


if __name__ == "__main__":
    main()
