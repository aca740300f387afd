"""A command whose judge only loads the candidate and calls it, so that a run takes no time."""

import json
import subprocess
import sys
from typing import Any

COMMAND = """
import importlib, sys
from dataclasses import replace
from equivcheck.report import streams
from equivcheck.report.model import CheckResult, Report, Sensitivity
from equivcheck.runtime import working_folder
from equivcheck.supervisor import api, nurseries

def verify(pair, request, **options):
    return replay(pair, None, **options)

def replay(pair, case, **options):
    # in this process, as `bench` has it
    with streams.captured(), working_folder.preserved():
        return of_a_pair(pair.reference, pair.candidate, case, **options)

def of_a_pair(reference, candidate, case, *, listener=None, keep=None, **options):
    module, _, name = candidate.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    result = CheckResult("output", "equivalent", 60, 1.5, 0.4)
    if case is not None:
        loaded()
        return (result,)
    report = Report(
        reference=reference, candidate=candidate, kind="module", device="cpu", profile="gate", seed=0, results=(result,),
        sensitivity=Sensitivity(("f",)), complete=True, seconds=1.0, created="2026-01-02T03:04:05+00:00",
    )
    if keep is not None:
        keep(replace(report, complete=False))
    loaded()
    listener.finished(result)
    return report

api.verify, api.replay = verify, replay
nurseries.start = lambda: None
from equivcheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


CANDIDATE = r"""
import atexit, ctypes, os, sys, tempfile, threading

def silent(): pass
def prints(): print("one"); print("two", file=sys.stderr)
def forges(): print("::error file=a.py::forged\n  ::set-output name=x::y\nred \x1b[31m##[error]v1\rover")
def everywhere():
    os.write(1, b"descriptor\n"); os.system("echo child; echo child2 >&2"); ctypes.CDLL(None).puts(b"from C")
    sys.__stdout__.write("dunder\n"); sys.stderr.buffer.write(b"bytes \xff\n")
def floods():
    for number in range(300_000): print("line", number)
def late(): atexit.register(lambda: print("::error::late"))
def closes():
    print("before"); sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
def replaces(): sys.stdout = sys.stderr = None
def asks():
    try: input("password?")
    except EOFError: print("nobody is there")
def leaves(): os.chdir(tempfile.mkdtemp())
def removes():
    folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)
def dies(): print("last words"); sys.stdout.flush(); os._exit(7)
def crashes(): print("last words"); ctypes.string_at(0)
def debugs(): print("isatty", sys.stdout is sys.__stdout__)
"""


VERDICT = "equivalent: 60 cases, 1 check, cpu, 1 of 1 planted fault caught, 1.0 s"


NOT_WRITTEN = "cannot be written ({reason}); redirect it to a place that can be written to"


def run(does: str, *options: str, **given: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "command.py", "verify", "candidate:silent", f"candidate:{does}", "--jobs", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, **given)


def shell(line: str, does: str = "silent") -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which RUN is the command, and what it writes is kept apart from what bash does."""
    line = line.replace("RUN", f"{sys.executable} command.py verify candidate:silent candidate:{does} --jobs 1")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def whole(text: str) -> dict[str, Any]:
    """The one report that `text` is."""
    report: dict[str, Any] = json.loads(text)
    assert report["complete"]
    assert report["verdict"] == "equivalent"
    return report
