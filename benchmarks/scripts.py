"""Scripts of counterexamples: each runs without equivcheck and shows its difference.

    python benchmarks/scripts.py [--count 50] [--seed 0] [--profile quick]

A fault with drawn numbers is built into a function or a module of `with_readings.py`, or one is drawn of the wrong ones
of `rights/`. The pair is compared, every counterexample of level `values` is replayed with `--script`, and the script is
run by an interpreter that has torch and no equivcheck. Ends when there are so many scripts. Exit status 1 where a script
does not run, shows no difference, or fewer than half of the counterexamples have one.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from diagnosis import faults
from rights.index import PAIRS

from equivcheck.report.model import Report

_HERE = Path(__file__).parent
_MODULES = {"nanogpt": "NanoGPT", "grouped": "Grouped", "rotary": "Rotary"}
_PAIR = '''"""One fault, built in."""

from functools import partial

from with_readings import Built, Grouped, NanoGPT, Rotary, function

BUILT = {built}


def original(q, k, v, *, is_causal):
    return function(q, k, v, is_causal=is_causal, built=Built())


def candidate(q, k, v, *, is_causal):
    return function(q, k, v, is_causal=is_causal, built=BUILT)


class Candidate({form}):
    def __init__(self, config):
        super().__init__(config, BUILT)
'''


def drawn(rng: random.Random, folder: Path) -> tuple[str, str, str, str]:
    """The name, kind, original and candidate of a wrong pair in a folder."""
    if rng.random() < 0.4:
        name, kind, reference, candidate, *_ = rng.choice(
            [p for p in PAIRS if p[4] == "wrong" and p[1] in ("function", "module")]
        )
        for file in (_HERE / "rights").glob("*.py"):
            shutil.copy(file, folder)
        return name, kind, reference, candidate
    fault = rng.choice(list(faults(rng)))
    form = rng.choice(fault.forms)
    shutil.copy(_HERE / "with_readings.py", folder)
    text = _PAIR.format(built=repr(fault.built), form=_MODULES.get(form, "NanoGPT"))
    (folder / "pair.py").write_text(text, encoding="utf-8")
    if form == "function":
        return f"{form} {fault.right} {fault.parameters}", "function", "pair.py:original", "pair.py:candidate"
    return (
        f"{form} {fault.right} {fault.parameters}", "module", f"with_readings.py:{_MODULES[form]}", "pair.py:Candidate"
    )  # fmt: skip


def run(folder: Path, *command: str, bare: bool = False) -> tuple[int, str]:
    """The exit status and the last line of a command, or of a script by an interpreter without equivcheck."""
    interpreter = sys.executable
    environment = dict(os.environ)
    if bare:  # PYTHONPATH reads no .pth file: a package that is installed for editing cannot be imported
        interpreter = str(Path(sys.base_prefix) / "bin" / Path(sys.executable).name)
        environment["PYTHONPATH"] = str(Path(torch.__file__).parents[1])
    done = subprocess.run(
        [interpreter, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="quick")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    status, line = run(Path(tempfile.gettempdir()), "-c", "import torch, equivcheck", bare=True)
    if status == 0 or "equivcheck" not in line:
        sys.exit(f"the interpreter of the scripts must have torch and no equivcheck: {line}")
    scripts, wrong, refused, pairs, lines = 0, 0, Counter[str](), 0, list[int]()
    while scripts < args.count and pairs < 4 * args.count:
        pairs += 1
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            title, kind, reference, candidate = drawn(rng, folder)
            common = [reference, candidate, "--kind", kind, "--device", "cpu"]
            verify = [
                "-m",
                "equivcheck",
                "verify",
                *common,
                "--profile",
                args.profile,
                "--seed",
                str(rng.randrange(100)),
            ]
            run(
                folder, *verify, "--check", "output", "--check", "gradients", "--no-remembered", "--json", "report.json"
            )
            cases = dict.fromkeys(
                found.counterexample.case
                for result in Report.load(folder / "report.json").results
                for found in result.shown
                if found.level == "values"
            )
            for case in cases:
                replay = ["-m", "equivcheck", "replay", case, *common, "--check", "output", "--check", "gradients"]
                status, line = run(folder, *replay, "--script", "shown.py")
                if not (folder / "shown.py").exists():
                    refused[line] += 1
                    continue
                lines.append(len((folder / "shown.py").read_text(encoding="utf-8").splitlines()))
                status, line = run(folder, "shown.py", bare=True)
                scripts += 1
                wrong += (status, line[:7]) != (1, "differs")
                print(f"{title:70} {case}  {status} {line[:60]}", flush=True)
                (folder / "shown.py").unlink()
    print(f"{scripts} scripts of {pairs} pairs, {wrong} of them wrong; {max(lines, default=0)} lines at most")
    for reason, count in refused.most_common():
        print(f"  none for {count}: {reason[:160]}")
    return 1 if wrong or scripts < args.count or refused.total() > scripts else 0


if __name__ == "__main__":
    sys.exit(main())
