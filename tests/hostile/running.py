"""Runs a hostile pair through the command line, and says what came of it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equivcheck
from hostile.attentions import Hostile

__all__ = ["Ran", "run"]

OPTIONS = "--profile quick --check output --check gradients --case-seconds 5 --worker-memory 2GB"
_MOST_S = 900.0


@dataclass(frozen=True)
class Ran:
    """What came of a run: its exit status, the report that it left, what it printed, and how many processes it left."""

    status: int
    report: dict[str, Any] | None
    text: str
    seconds: float
    left: int

    def faults(self, hostile: Hostile) -> list[str]:
        """In words, what is not as it must be."""
        found = []
        if self.status not in hostile.statuses:
            found.append(f"exit status {self.status}, and {hostile.statuses} is right")
        if hostile.says not in self.text:
            found.append(f"{hostile.says!r} is said nowhere")
        if self.left:
            found.append(f"{self.left} processes are left")
        if hostile.report:
            if self.report is None:
                found.append("there is no report")
            elif self.report["verdict"] == "equivalent":
                found.append("the report says equivalent")
            elif (
                not any(r["counterexample"] or r["notes"] for r in self.report["results"])
                and not self.report["findings"]
            ):
                found.append("the report names nothing")
        return found


def run(hostile: Hostile, folder: Path, *more: str, device: str = "cpu") -> Ran:
    """Run `equivcheck verify` on the pair, in a folder of its own."""
    for name, text in hostile.files.items():
        (folder / name).write_text(text)
    place = str(Path(equivcheck.__file__).parents[1])
    mark = f"HOSTILE_{os.getpid()}_{time.monotonic_ns()}"
    path = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOSTILE_MARK": mark}
    command = [sys.executable, "-m", "equivcheck", "verify", "original.py:Original", "candidate.py:Candidate"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, *OPTIONS.split(), "--device", device, "--json", "report.json", *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_MOST_S,
        check=False,
    )
    seconds = time.monotonic() - began
    file = folder / "report.json"
    report = json.loads(file.read_text()) if file.exists() else None
    return Ran(done.returncode, report, done.stdout + done.stderr, seconds, _left(mark))


def _left(mark: str) -> int:
    """How many processes still run that were started with this mark in their environment."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            count += mark.encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
    return count
