"""Records come back as they were, and a row trips on what is slower twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from bench_records import line, record

from equivcheck.bench.record import Record, Side, coarse, comparable, dumps, read, slower
from equivcheck.bench.runner import against
from equivcheck.errors import ReportError, UsageError

# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    made = record(line(), line("other", None))
    (tmp_path / "record.json").write_text(dumps(made))
    assert read(tmp_path / "record.json") == made


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "schema version None"),
        (json.dumps({"schema_version": 99, "lines": []}), "schema version 99"),
        (json.dumps({"schema_version": 1, "lines": [{}]}), "is no record"),
        (json.dumps({"schema_version": 1, "lines": [], "extra": 1}), "is no record"),
    ],
)
def test_a_file_that_is_no_record_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(ReportError, match=message):
        read(file)
    with pytest.raises(ReportError, match="cannot be read"):
        read(tmp_path / "missing.json")


def test_only_the_same_device_and_minor_version_of_torch_are_compared() -> None:
    before = record(line())
    comparable(before, device="cpu", torch_version="2.13.5", where="r.json")
    with pytest.raises(UsageError, match="was made on cpu, and this is cuda:0"):
        comparable(before, device="cuda:0 (H100)", torch_version="2.13.0", where="r.json")
    with pytest.raises(UsageError, match=r"was made with torch 2\.13\.0"):
        comparable(before, device="cpu", torch_version="2.12.0", where="r.json")


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "trips"), [(2.0, False), (1.7, False), (2.0 / 1.4, True), (4.0, False)])
def test_the_tripwire_is_the_ratio_against_the_records(now: float, trips: bool) -> None:
    assert bool(list(slower(record(line()), {"row": line(ratio=now)}, 25.0))) == trips


def test_intervals_that_are_wide_neither_trip_nor_pass_for_a_judgement() -> None:
    wide = {"row": line(ratio=1.4, width=0.5)}
    assert list(slower(record(line()), wide, 25.0)) == []
    assert coarse(record(line()), wide, 25.0) == ["row"]
    with pytest.raises(UsageError, match="times vary too much"):
        against(record(line()), record(*wide.values()), "r.json", 25.0, lambda names: record())


def test_a_candidate_that_no_longer_fits_trips() -> None:
    gone = line(ratio=None, candidate=Side(refused="out of memory"))
    ((name, message),) = slower(record(line()), {"row": gone}, 25.0)
    assert name == "row"
    assert "no longer fits: out of memory" in message


def test_only_what_is_slower_twice_trips() -> None:
    before, slow = record(line()), record(line(ratio=1.0))
    asked: list[list[str]] = []

    def again(found: Record) -> Any:
        def measure(names: list[str]) -> Record:
            asked.append(names)
            return found

        return measure

    assert against(before, slow, "r.json", 25.0, again(record(line()))) == ([], [])
    (message,), _ = against(before, slow, "r.json", 25.0, again(slow))
    assert "100 % slower, and 25 % is allowed" in message
    assert asked == [["row"], ["row"]]


def test_rows_that_were_timed_by_another_clock_are_not_compared() -> None:
    """A GPU that waits for its host is timed as the host by some, and as the GPU by others."""
    before = record(line(clock="CUDA events", ratio=4.0), line("whole", clock="wall clock, synchronised"))
    now = record(line(clock="CUDA events, launched before"), line("whole", clock="wall clock, synchronised"))
    tripped, left_out = against(before, now, "r.json", 25.0, lambda names: record())
    assert (tripped, left_out) == ([], ["timed by another clock in r.json: row"])
    with pytest.raises(UsageError, match=r"r\.json was timed by another clock \(CUDA events\) .* make it again"):
        against(record(before.lines[0]), now, "r.json", 25.0, lambda names: record())


def test_records_without_a_common_row_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="no row in common"):
        against(record(line("a")), record(line("b")), "r.json", 25.0, lambda names: record())
