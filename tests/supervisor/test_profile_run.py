"""A run with `profile_run` adds up the time of all of its processes; one without it has none."""

import math
from typing import Any

import pytest
from quick_runs import CANDIDATE, REFERENCE

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.report.model import Report
from equivcheck.report.time_spent import TimeSpent
from equivcheck.runtime import clock
from equivcheck.supervisor import sealed, workers

FEW: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["purity", "checkpoint"]}


def time_of(report: Report) -> TimeSpent:
    assert report.time_spent is not None
    assert report.verdict == "equivalent"
    return report.time_spent


def test_workers_report_their_time_by_part_and_by_check(monkeypatch: pytest.MonkeyPatch) -> None:
    reporting: set[int] = set()
    take = workers.Worker._take

    def taken(worker: workers.Worker, message: dict[str, Any]) -> None:
        if "spent" in message:
            reporting.add(worker.number)
        take(worker, message)

    monkeypatch.setattr(workers.Worker, "_take", taken)
    spent = time_of(verify(REFERENCE, CANDIDATE, jobs=2, profile_run=True, **FEW))
    assert len(reporting) == 3  # two that share the work, and one with the original alone
    assert {part for part, seconds in spent.parts.items() if seconds > 0} == set(clock.PARTS)
    assert set(spent.stages) == {"purity", "checkpoint", clock.SENSITIVITY, clock.OTHER}
    assert spent.total_s == pytest.approx(math.fsum(s for stage in spent.stages.values() for s in stage.values()))
    assert clock.PLANTED in spent.stages[clock.SENSITIVITY]
    assert clock.PLANTED not in spent.stages["purity"]


def test_objects_in_this_process_report_their_time() -> None:
    spent = time_of(verify(CausalSelfAttention, FlashCausalSelfAttention, profile_run=True, **FEW))
    assert {part for part, seconds in spent.parts.items() if seconds > 0} == set(clock.PARTS)
    assert clock.drained() is None


def test_runs_that_share_workers_count_each_for_itself() -> None:
    kept = [verify(REFERENCE, CANDIDATE, shared=True, profile_run=on, **FEW).time_spent for on in (False, True, False)]
    assert [spent is not None for spent in kept] == [False, True, False]
    assert kept[1] is not None
    assert clock.PLANTED in kept[1].stages[clock.SENSITIVITY]


def test_without_the_option_a_worker_is_asked_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = workers.Worker.ask

    def heard(worker: workers.Worker, name: str, **arguments: Any) -> Any:
        asked.append(name)
        return ask(worker, name, **arguments)

    monkeypatch.setattr(sealed.Worker, "ask", heard)
    report = verify(REFERENCE, CANDIDATE, **{**FEW, "checks": ["checkpoint"]})
    assert report.time_spent is None
    assert "load" in asked
    assert "clock" not in asked
