"""The declared environments: what a user installs who has nothing else, on the newest and on the lowest versions.

    python .ci/declared.py

Builds the wheel. Makes a fresh environment for each of the two, with the tested torch and nothing that is not declared, verifies
the pair that ships from another folder, and uses the other commands and the pytest plugin. Exit status 1, with the output,
where something fails, the verdict is not `equivalent` or a planted fault survived. Leaves nothing behind.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from lowest import lowest

ROOT = Path(__file__).resolve().parent.parent

SUITE = """
import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

TestPair = equivcheck.suite(CausalSelfAttention, FlashCausalSelfAttention, checks=["output"], dtypes=["float32"])


def test_a_device_is_given(device):
    assert device == "cpu"
"""


def tested_torch() -> str:
    """The requirement of constraints.txt."""
    return next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"torch\b", line))


def run(*command: object, cwd: Path, allowed: tuple[int, ...] = (0,)) -> str:
    # no path of this checkout or of the user may lend a package to the environment that is tried
    there = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    there |= {"OMP_NUM_THREADS": "1"}  # the tensors are small: more threads only wait for each other
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=there, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode not in allowed:
        sys.exit(f"{done.stdout}\n{' '.join(words)}\nexit status {done.returncode}, expected {allowed}")
    return done.stdout


def environment(at: Path, *requirements: object) -> Path:
    """A fresh environment with these and what they depend on; the folder of its programs."""
    run(sys.executable, "-m", "venv", at, cwd=at.parent)
    run(at / "bin/python", "-m", "pip", "install", "-qq", *requirements, cwd=at.parent)
    return at / "bin"


def hold(programs: Path, where: Path) -> str:
    """Use the package as somebody does who has this environment alone; the closing line of its verdict."""
    equivcheck = programs / "equivcheck"
    listed = run(programs / "python", "-m", "pip", "list", "--format=freeze", cwd=where)
    if re.search(r"^numpy==", listed, re.MULTILINE):
        sys.exit(f"a dependency brings numpy, and nothing shows any more that it is not needed:\n{listed}")
    printed = run(equivcheck, "verify", "--profile", "quick", "--json", "report.json", cwd=where)
    report = json.loads((where / "report.json").read_text())
    sensitivity = report["sensitivity"]
    if report["verdict"] != "equivalent" or not sensitivity["planted"] or sensitivity["survived"]:
        sys.exit(f"{printed}\nthe verdict is {report['verdict']}; survived: {sensitivity['survived']}")
    run(equivcheck, "--help", cwd=where)
    for kind in ("table", "markdown", "html", "junit", "sarif"):
        run(equivcheck, "report", "--format", kind, "--out", f"report.{kind}", "report.json", cwd=where)
    run(
        equivcheck, "gate", "report.json", cwd=where, allowed=(0, 1)
    )  # whether a quick report will do is the gate's to say
    (where / "test_pair.py").write_text(SUITE)
    run(programs / "python", "-m", "pytest", "-p", "equivcheck.pytest_plugin", "test_pair.py", cwd=where)
    return printed.strip().splitlines()[-1]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="declared-") as folder:
        at = Path(folder)
        run(sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", at, ROOT, cwd=at)
        (wheel,) = at.glob("*.whl")
        for name, pins in (("bare", []), ("lowest", lowest(but=["torch"]))):
            programs = environment(at / name, tested_torch(), wheel, *pins)
            (at / f"in-{name}").mkdir()
            print(f"{name}: {hold(programs, at / f'in-{name}')}", flush=True)


if __name__ == "__main__":
    main()
