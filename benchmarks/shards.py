"""Shards of the shipped pair's run, merged, against the whole run: the same report but for times.

    python benchmarks/shards.py [--counts 1 2 3 7 16] [--profile gate] [--device cpu] [--jobs 2] [--wrong]

`--wrong` takes a candidate that is different, and compares with `verify --all`. The shards are run one after the other.
Prints for each number of shards whether the merged report equals the whole one, the exit statuses, and the seconds of
all shards over those of the whole run. Of seven shards one is left out, which must make the merged report partial, and
reports of two seeds must be refused. Exit status 1 where something is not so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ORIGINAL = "equivcheck.attention:CausalSelfAttention"
_FLASH = "equivcheck.attention:FlashCausalSelfAttention"
_WRONG = """
from equivcheck.attention import FlashCausalSelfAttention


class Candidate(FlashCausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.01 if x.size(1) > 128 else y
"""


def comparable(file: Path) -> dict[str, Any]:
    """A report without times, and without the case that showed a fault: each shard looks for one of its cases."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name in ("seconds", "created", "integrity", "time_spent"):
        content.pop(name, None)
    for result in content["results"]:
        del result["seconds"]
    sensitivity = content["sensitivity"]
    sensitivity.pop("seconds", None)
    sensitivity["caught_by"] = sorted(sensitivity["caught_by"])
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 7, 16])
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--wrong", action="store_true")
    args = parser.parse_args()
    off = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wrong.py").write_text(_WRONG, encoding="utf-8")
        pair = [_ORIGINAL, "wrong.py:Candidate" if args.wrong else _FLASH]
        options = ["--profile", args.profile, "--device", args.device, "--jobs", args.jobs]

        def command(*words: str) -> tuple[int, float, str]:
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "equivcheck", *words], cwd=folder, capture_output=True, text=True, check=False
            )
            last = (done.stdout or done.stderr).strip().splitlines()[-1]
            return done.returncode, time.monotonic() - began, last

        def shard(number: int, of: int, file: str, *more: str) -> tuple[int, float, str]:
            return command("verify", *pair, *options, "--shard", f"{number}/{of}", "--json", file, *more)

        every = ["--all"] if args.wrong else []
        expected, whole_s, last = command("verify", *pair, *options, *every, "--no-remembered", "--json", "whole.json")
        print(f"whole: exit status {expected}, {whole_s:.0f} s: {last}", flush=True)
        whole = comparable(folder / "whole.json")
        for count in args.counts:
            files = [f"{count}-{number}.json" for number in range(1, count + 1)]
            done = [shard(number, count, file) for number, file in enumerate(files, 1)]
            status, _, last = command("merge", *files, "--json", "merged.json")
            merged = comparable(folder / "merged.json")
            apart = [name for name in whole | merged if whole.get(name) != merged.get(name)]
            share = sum(seconds for _, seconds, _ in done) / whole_s
            right = status == expected and not apart
            off += not right
            print(
                f"{count} shards: exit statuses {sorted({status for status, *_ in done})}, merged {status}, "
                f"{'the same report' if right else f'other {apart}'}, {share:.2f} of the whole run's time",
                flush=True,
            )
            if count == 7:
                status, _, last = command(
                    "merge", *(file for file in files if file != "7-3.json"), "--json", "lost.json"
                )
                verdict = json.loads((folder / "lost.json").read_text(encoding="utf-8"))["verdict"]
                off += (status, verdict) != (2, "partial")
                print(f"shard 3 of 7 lost: exit status {status}, verdict {verdict}: {last}", flush=True)
        one, other = (
            shard(1, 2, "s1.json", "--check", "output"),
            shard(2, 2, "s2.json", "--check", "output", "--seed", "1"),
        )
        status, _, last = command("merge", "s1.json", "s2.json")
        off += status != 2
        print(f"shards of two seeds ({one[0]} and {other[0]}): exit status {status}: {last}", flush=True)
    print(f"{off} not as expected")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
