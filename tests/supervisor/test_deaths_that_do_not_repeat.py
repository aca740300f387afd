"""A process that dies once in the original's code: the case is judged in a second one, and more deaths are a gap."""

import sys
from pathlib import Path

import pytest
from hostile.attentions import Hostile

from equivcheck.api import verify
from equivcheck.report.model import Report

_DYING = """
import os, pathlib, signal, traceback
plain, calls = Original.forward, [0]
def forward(self, x):
    if type(self) is Original and any('checks' in frame.filename for frame in traceback.extract_stack()):
        calls[0] += 1
        if {when}:
            os.kill(os.getpid(), signal.{signal})
    return plain(self, x)
Original.forward = forward
def once(x, at_most):
    folder = pathlib.Path(__file__).parent / "deaths"
    folder.mkdir(exist_ok=True)
    marker = folder / "-".join(map(str, x.shape))
    if marker.exists() or len(list(folder.iterdir())) >= at_most:
        return False
    marker.touch()
    return True
def times(x, most):
    count = pathlib.Path(__file__).parent / "count"
    shape, done = (count.read_text().split() if count.exists() else ("-".join(map(str, x.shape)), 0))
    if shape != "-".join(map(str, x.shape)) or int(done) >= most:
        return False
    count.write_text(f"{{shape}} {{int(done) + 1}}")
    return True
"""


def judged(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str, by: str = "SIGSEGV") -> Report:
    hostile = Hostile("dies", "class Candidate(Original):\n    pass\n", original=_DYING.format(when=when, signal=by))
    for name, text in hostile.files.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return verify(
        "original.py:Original", "candidate.py:Candidate", device="cpu", profile="quick", checks=["output"], jobs=1
    )


def test_one_death_of_the_original_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(tmp_path, monkeypatch, "once(x, 1)")
    assert report.complete, report.results
    assert any("died of SIGSEGV once: judged in a second process" in n for r in report.results for n in r.notes)


def test_a_death_after_the_same_cases_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(tmp_path, monkeypatch, "calls[0] == 30")
    assert report.verdict == "partial"
    assert any("and again after the same cases" in n for r in report.results for n in r.notes)


def test_more_deaths_than_two_are_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(tmp_path, monkeypatch, "once(x, 40)")
    assert report.verdict == "partial"
    assert any("once, and not again" in n for r in report.results for n in r.notes)


def test_processes_that_are_killed_twice_on_one_case_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(tmp_path, monkeypatch, "times(x, 2)", "SIGKILL")
    assert (tmp_path / "count").read_text().split()[1] == "2"
    assert report.equivalent, report.results


def test_a_case_on_which_every_process_is_killed_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(tmp_path, monkeypatch, "times(x, 1000)", "SIGKILL")
    assert report.verdict == "partial"
