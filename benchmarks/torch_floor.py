"""The lowest torch with which equivcheck works: where the pair that ships is equivalent and every planted fault is seen.

    python benchmarks/torch_floor.py [2.6.0 2.7.1 ...] [--lowest] [--pip-args "..."] [--seed 0] [--out FILE]

Makes a fresh environment for each version, one after the other, runs `equivcheck verify --profile quick` there and removes the
environment. Prints a row for each version, and then the floor: the lowest version from which on all of the given ones are
equivalent and sensitive. Exit status 1 where that is not the floor that pyproject.toml declares.

--lowest takes the lowest version of every other dependency, else the newest are taken. --pip-args go to `pip install`: the
builds of torch on the default index are several GB on Linux for x86_64, as they bring CUDA, and an index of CPU builds has
smaller ones. --out writes the rows as JSON.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))
from lowest import floors, lowest

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ("2.6.0", "2.7.1", "2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0")


@dataclass(frozen=True)
class Row:
    """What one version gave; `unsupported` names the checks in which the candidate was refused loudly."""

    torch: str
    verdict: str
    planted: int = 0
    survived: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        return self.verdict == "equivalent" and self.planted > 0 and not self.survived

    def __str__(self) -> str:
        caught = self.planted - len(self.survived)
        extra = [f"survived: {', '.join(self.survived)}"] if self.survived else []
        extra += [f"unsupported: {', '.join(self.unsupported)}"] if self.unsupported else []
        numbers = f"{self.planted:>8} {caught:>7} {len(self.survived):>9} {self.seconds:>7.0f} s"
        return f"{self.torch:<10} {self.verdict:<14} {numbers}  {'; '.join(extra)}".rstrip()


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was printed"])[-1]


def tried(version: str, wheel: Path, others: list[str], pip_args: list[str], seed: int) -> Row:
    """Install this torch into an environment of its own, verify there, and remove it."""
    # the tensors are small: more threads only wait for each other
    there = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="torch-") as folder:
        at = Path(folder)
        subprocess.run([sys.executable, "-m", "venv", at / "env"], check=True)
        install = [at / "env/bin/python", "-m", "pip", "install", "-qq", "--no-cache-dir", *pip_args]
        done = subprocess.run(
            [*install, f"torch=={version}", wheel, *others], env=there, capture_output=True, text=True
        )
        if done.returncode:
            return Row(version, f"not installed: {last_line(done.stderr)}")
        began = time.monotonic()
        verify = [
            at / "env/bin/equivcheck",
            "verify",
            "--profile",
            "quick",
            "--seed",
            str(seed),
            "--json",
            "report.json",
        ]
        done = subprocess.run(verify, cwd=at, env=there, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if not (at / "report.json").is_file():
            return Row(version, f"no report: {last_line(done.stderr)}", seconds=seconds)
        report = json.loads((at / "report.json").read_text())
    sensitivity = report.get("sensitivity") or {"planted": [], "survived": []}
    unsupported = tuple(result["name"] for result in report["results"] if result.get("unsupported"))
    return Row(
        version, report["verdict"], len(sensitivity["planted"]), tuple(sensitivity["survived"]), unsupported, seconds
    )


def floor_of(rows: list[Row]) -> str:
    """The lowest version from which on all work; empty where the newest does not."""
    floor = ""
    for row in sorted(rows, key=lambda row: release(row.torch), reverse=True):
        if not row.works:
            break
        floor = row.torch
    return floor


def release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=RELEASES)
    parser.add_argument("--lowest", action="store_true")
    parser.add_argument("--pip-args", type=shlex.split, default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    declared = floors(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])["torch"]
    print(f"{'torch':<10} {'verdict':<14} {'planted':>8} {'caught':>7} {'survived':>9} {'time':>9}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        wheel = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(wheel, check=True)
        (wheel_file,) = Path(folder).glob("*.whl")
        for version in options.versions:
            others = lowest(but=["torch"]) if options.lowest else []
            rows.append(tried(version, wheel_file, others, options.pip_args, options.seed))
            print(rows[-1], flush=True)
            if options.out:
                options.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    floor = floor_of(rows)
    print(f"floor: {floor or 'none of these'}; pyproject.toml declares {declared}")
    sys.exit(release(floor) != release(declared))


if __name__ == "__main__":
    main()
