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
            os.kill(os.getpid(), signal.SIGSEGV)
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
"""


def judged(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> Report:
    hostile = Hostile("dies", "class Candidate(Original):\n    pass\n", original=_DYING.format(when=when))
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
