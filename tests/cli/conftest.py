"""The judge that stands where the supervisor does, for the tests that ask for it."""

import sys
from pathlib import Path

import pytest
from judged_reports import Judge

from equivcheck.supervisor import api, nurseries


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """No test judges a real pair unless it starts a process; and none writes outside its own folder."""
    judge = Judge()
    for name in ("verify", "replay"):
        monkeypatch.setattr(api, name, getattr(judge, name))
    monkeypatch.setattr(nurseries, "start", lambda: None)
    monkeypatch.setattr("equivcheck.cli.mistakes.refuse_misspelt_pair", lambda *pair: None)  # names of nothing
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQUIVCHECK_DEBUG", raising=False)
    return judge
