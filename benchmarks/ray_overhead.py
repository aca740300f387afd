"""The time of `verify --workers ray` over that of `verify --jobs N` on one machine: what Ray and the shards cost.

    python benchmarks/ray_overhead.py [--rounds 1] [--jobs 2] [--profile quick] [--check NAME]... [PAIR...]

Both run on the CPU, in turn; Ray's cluster is started with the command, and ends with it. Each task of Ray has one
process, so that Ray has as many shards as this machine has CPUs. `verify` runs all cases after a difference, too, as
shards do. Prints the seconds of each run, the ratio of the medians, and whether the verdicts are the same. Exit status 1
where they are not.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", nargs="*")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--check", action="append", default=[])
    args = parser.parse_args()
    options = [*args.pair, "--device", "cpu", "--profile", args.profile, "--all", "--no-remembered"]
    options += [word for name in args.check for word in ("--check", name)]
    ways = {"jobs": ["--jobs", str(args.jobs)], "ray": ["--workers", "ray:local", "--jobs", "1"]}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    verdicts: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        for number in range(args.rounds):
            for way in sorted(ways, reverse=bool(number % 2)):
                began = time.monotonic()
                command = [sys.executable, "-m", "equivcheck", "verify", *options, *ways[way], "--json", str(report)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                seconds[way].append(time.monotonic() - began)
                if not report.exists():
                    print(done.stderr, file=sys.stderr)
                    return 1
                content = json.loads(report.read_text(encoding="utf-8"))
                report.unlink()
                verdicts.add(content["verdict"])
                cases = sum(result["cases"] for result in content["results"])
                print(f"{way}: {seconds[way][-1]:.1f} s, {content['verdict']}, {cases} cases", flush=True)
    jobs, ray = (statistics.median(seconds[way]) for way in ("jobs", "ray"))
    print(f"--workers ray takes {ray / jobs:.2f} times as long as --jobs {args.jobs} ({ray:.1f} s and {jobs:.1f} s)")
    if len(verdicts) > 1:
        print(f"the verdicts are not the same: {', '.join(sorted(verdicts))}")
    return 1 if len(verdicts) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
