"""Shards of one run: their reports together are that of the whole run, and one of them is no evidence."""

import sys
from pathlib import Path
from typing import Any

import pytest
from small_pair import PAIR
from test_sealed import without_times

from equivcheck.report.codec import dumps, loads
from equivcheck.report.model import CheckResult, Report
from equivcheck.supervisor import api
from equivcheck.supervisor.merging import merged
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair


class Quiet:
    """A listener that does nothing."""

    def progress(self, stage: str, done: int, total: int) -> None: ...
    def finished(self, result: CheckResult) -> None: ...


@pytest.fixture(autouse=True)
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


def run(candidate: str, **options: Any) -> Report:
    """One run of a candidate, with processes that are kept for the next one."""
    asked = {"profile": "quick", "checks": ["output", "gradients", "causality"], "dtypes": ("float32",), "shared": True}
    request = Request(**{**asked, **options})
    pair = NamedPair("pair.py:slow", f"pair.py:{candidate}", "function", "cpu")
    report = api.verify(pair, request, listener=Quiet(), keep=lambda report: None)
    assert loads(dumps(report)) == report
    return report


def shards(candidate: str, of: int, **options: Any) -> list[tuple[str, Report]]:
    return [(f"{n}.json", run(candidate, shard=(n, of), all_cases=True, **options)) for n in range(1, of + 1)]


def comparable(report: Report) -> dict[str, Any]:
    """A report without times, and without the case that showed a fault: each shard looks for one of its cases."""
    content = without_times(dumps(report))
    sensitivity = content["sensitivity"]
    sensitivity["caught_by"] = sorted(sensitivity["caught_by"])
    return content


@pytest.mark.parametrize(
    ("candidate", "of", "checks"), [("fast", 3, ["output", "gradients"]), ("wrong_from_three", 2, ["output"])]
)
def test_shards_together_make_the_report_of_the_whole_run(candidate: str, of: int, checks: list[str]) -> None:
    """`test_merging.py` has more numbers of shards, without a pair."""
    together = merged(shards(candidate, of, checks=checks))
    whole = run(candidate, all_cases=True, checks=checks)
    assert whole.verdict == ("equivalent" if candidate == "fast" else "different")
    assert together.gaps == ()
    assert comparable(together.report) == comparable(whole)
