"""`judge` over many candidates against `verify` on each of them: the same verdicts, and the time of one over the other.

    python benchmarks/judged.py [--count 100] [--wrong 80] [--profile quick] [--check NAME]... [--device cpu] [--seed 0]

The candidates are functions in a folder: right ones, by tiles of drawn sizes, and ones with a drawn fault of
`with_readings.py`. `judge` and `verify` get the same options. Prints every candidate whose verdict, levels or checks
differ, or whose verdict is not the one that is expected. Exit status 1 where there is one.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diagnosis import faults

_HERE = Path(__file__).parent
_ORIGINAL = '''"""Attention spelled out."""

import math

import torch


def original(q, k, v, *, is_causal):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril(k.size(-2) - q.size(-2))
        scores = scores.masked_fill(~seen, -math.inf)
    return scores.softmax(dim=-1) @ v
'''
_CANDIDATE = '''"""Attention by tiles of queries and blocks of keys."""

import torch
from with_readings import Built, function

BUILT = {built}


def candidate(q, k, v, *, is_causal):
    if is_causal or BUILT != Built():
        return function(q, k, v, is_causal=is_causal, built=BUILT)
    tiles = (function(tile, k, v, is_causal=False, built=BUILT) for tile in q.split({tile}, dim=-2))
    return torch.cat(tuple(tiles), dim=-2)
'''


def candidates(folder: Path, count: int, wrong: int, rng: random.Random) -> dict[str, bool]:
    """Write the candidates; whether each is right, by its name."""
    drawn: dict[str, bool] = {}
    right = [True] * (count - wrong) + [False] * wrong
    rng.shuffle(right)
    built: list[Any] = []
    for number, is_right in enumerate(right):
        while not is_right and not built:
            built = [f.built for f in faults(rng) if "function" in f.forms]
            rng.shuffle(built)
        source = _CANDIDATE.format(built="Built()" if is_right else repr(built.pop()), tile=rng.randint(8, 200))
        (folder / f"c{number:03}.py").write_text(source, encoding="utf-8")
        drawn[f"c{number:03}"] = is_right
    return drawn


def entry(report: dict[str, Any]) -> dict[str, Any]:
    """What the two commands must agree on."""
    return {name: report[name] for name in ("verdict", "exit_status", "exit_reason", "levels")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--wrong", type=int, default=80)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--check", action="append", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    options = ["--kind", "function", "--profile", args.profile, "--device", args.device]
    options += ["--domain", "kv_len == seq_len", *(x for name in args.check for x in ("--check", name))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow.py").write_text(_ORIGINAL, encoding="utf-8")
        shutil.copy(_HERE / "with_readings.py", folder)
        right = candidates(folder, args.count, args.wrong, random.Random(args.seed))
        files = [f"{name}.py:candidate" for name in right]

        def command(*words: str) -> float:
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "equivcheck", *words], cwd=folder, capture_output=True, check=False)
            return time.monotonic() - began

        seconds = command("judge", "slow.py:original", *files, *options, "--json", "judged.json")
        entries = json.loads((folder / "judged.json").read_text(encoding="utf-8"))["candidates"]
        judged = {Path(one["given"].partition(":")[0]).stem: one for one in entries}
        print(f"judge: {len(judged)} candidates in {seconds:.0f} s", flush=True)
        apart, off = 0.0, 0
        for name, is_right in right.items():
            alone = command("verify", "slow.py:original", f"{name}.py:candidate", *options, "--json", "report.json",
                            "--no-remembered")  # fmt: skip
            apart += alone
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            one, other = entry(judged[name]), entry(report)
            checks = {result["name"]: result["outcome"] for result in report["results"]}
            if one != other or judged[name]["checks"] != checks or (one["verdict"] == "equivalent") != is_right:
                off += 1
                print(f"{name} ({'right' if is_right else 'wrong'}): judge {one}, verify {other}", flush=True)
    print(f"verify, one by one: {apart:.0f} s; judge takes {seconds / apart:.2f} of it, times of the ranks included")
    print(f"{off} of {len(right)} verdicts are not the same, or not as expected")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
