"""Reports of shards are put together to that of the whole run, whatever the cases show; others are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_workers import Table, stub_run
from test_sealed import without_times

from equivcheck.cli.main import main
from equivcheck.engine.gate.verdict import GatePolicy, violations
from equivcheck.errors import UsageError
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.codec import dumps, loads
from equivcheck.report.github import annotations
from equivcheck.report.model import Report
from equivcheck.report.page import sentence
from equivcheck.report.schema import schema
from equivcheck.supervisor.merging import merged
from equivcheck.supervisor.shares import classes_of_shard

NAMES = ("output", "interface", "purity", "modes", "training")
FINDINGS = {"interface": ("hooks", "form"), "purity": ("memory",), "modes": ("acts",)}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    classes = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
        rare = st.sampled_from(["passes"] * 12 + ["nothing"] + ["", *FINDINGS.get(name, ())])
        classes[name] = draw(st.lists(st.lists(rare, min_size=1, max_size=4), max_size=6))
    faults = draw(
        st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.sampled_from([*classes]), st.integers(0, 12)))
    )
    few = st.frozensets(st.sampled_from("abcdefgh"), max_size=2)
    return Table(classes, faults, draw(few), draw(few))


def shards(table: Table, of: int, **options: Any) -> list[tuple[str, Report]]:
    """Each part of a run, written to its file and read again."""
    reports = [stub_run(table, shard=(number, of), **options) for number in range(1, of + 1)]
    return [(f"{n}.json", loads(dumps(report))) for n, report in enumerate(reports, 1)]


def comparable(report: Report) -> dict[str, Any]:
    """A report without times, and without the case that showed a fault: each shard looks for one of its cases."""
    content = without_times(dumps(report))
    content["sensitivity"]["caught_by"] = sorted(content["sensitivity"]["caught_by"])
    return content


PASSING = Table(
    {"output": [["passes"] * 3] * 4, "modes": [["passes"] * 2] * 2}, {"a": ("output", 0), "b": ("modes", 4)}
)
FAILING = Table({"output": [["passes"] * 3] * 4, "modes": [["passes"] * 2, ["acts", "passes"]]})


@given(tables(), st.sampled_from([1, 2, 3, 7, 16]), st.sampled_from([{}, {"interface.hooks": "wanted"}]))
def test_shards_make_the_report_of_the_whole_run(table: Table, of: int, deviations: dict[str, str]) -> None:
    together = merged(shards(table, of, deviations=deviations))
    assert together.gaps == ()
    assert comparable(together.report) == comparable(stub_run(table, deviations=deviations))


@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 50), max_size=8)), min_size=1, max_size=5),
    st.integers(1, 20),
)
def test_each_class_is_of_one_shard(checks: list[tuple[bool, list[int]]], of: int) -> None:
    plan = [
        {"name": name, "slow": slow, "counts": counts, "classes": len(counts)}
        for name, (slow, counts) in zip(NAMES, checks, strict=False)
    ]
    shares = [classes_of_shard(plan, (number, of)) for number in range(1, of + 1)]
    for check in plan:
        taken = [share[check["name"]] for share in shares]
        assert sorted(number for numbers in taken for number in numbers) == list(range(check["classes"]))
        if check["name"] in FINDINGS:
            assert sum(map(bool, taken)) <= 1
    assert classes_of_shard(plan, None) == {c["name"]: list(range(c["classes"])) for c in plan}


def test_a_shard_that_saw_nothing_says_no_more_than_that() -> None:
    report = stub_run(PASSING, shard=(2, 3))
    assert report.verdict == "shard 2/3"
    assert not report.equivalent
    assert "equivalent" not in report.levels.values()
    assert {result.outcome for result in report.results} == {"not refuted"}
    assert not report.sensitivity.survived
    assert annotations(report) == []
    for text in (verdict_line(report), sentence(report)):
        assert "equivalent" not in text
        assert "same attention" not in text


def test_a_shard_without_cases_is_whole() -> None:
    reports = shards(PASSING, 16)
    assert any(not report.results for _, report in reports)
    assert {report.verdict for _, report in reports} == {f"shard {n}/16" for n in range(1, 17)}


def test_a_fault_that_no_shard_saw_makes_the_whole_insensitive() -> None:
    table = replace(PASSING, faults={**PASSING.faults, "unseen": ("output", 11)})
    parts = shards(table, 3)
    assert {report.verdict for _, report in parts} == {"shard 1/3", "shard 2/3", "shard 3/3"}
    whole = merged(parts).report
    assert (whole.verdict, whole.survived) == ("insensitive", ("unseen",))


def test_a_difference_is_that_of_the_whole_run_and_plants_nothing() -> None:
    parts = shards(FAILING, 3)
    assert sorted(report.verdict for _, report in parts)[0] == "different"
    whole = merged(parts).report
    assert whole.verdict == "different"
    assert whole.sensitivity.skipped == "the run is different"


@pytest.mark.parametrize(
    ("numbers", "gap"),
    [([1, 2, 4, 5, 6, 7], "shard 3/7 is missing"), ([*range(1, 8), 3], "shard 3/7 is there 2 times")],
)
def test_a_lost_or_doubled_shard_leaves_the_run_partial(numbers: list[int], gap: str) -> None:
    parts = shards(PASSING, 7)
    whole = merged([parts[number - 1] for number in numbers])
    assert whole.gaps == (gap,)
    assert whole.report.verdict == "partial"
    assert gap in whole.report.results[0].notes


def test_a_shard_that_was_cut_short_leaves_the_run_partial() -> None:
    parts = shards(PASSING, 2)
    parts[1] = ("2.json", stub_run(PASSING, shard=(2, 2), until=0.0))
    assert parts[1][1].verdict == "partial"
    whole = merged(parts)
    assert (whole.report.verdict, whole.gaps) == ("partial", ("shard 2/2 was cut short",))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1}, "the seed is 0 and 1"),
        ({"profile": "gate"}, "the profile is quick and gate"),
        ({"strict": True}, "the strictness is False and True"),
        ({"sha": "1" * 64}, "different sources: b.py differs"),
        ({"shard": (2, 3)}, "the number of shards is 2 and 3"),
        ({"deviations": {"output": "wanted"}}, "the deviation is none and output"),
    ],
)
def test_reports_of_two_runs_are_refused(other: dict[str, Any], words: str) -> None:
    one, two = stub_run(PASSING, shard=(1, 2)), stub_run(PASSING, **{"shard": (2, 2), **other})
    with pytest.raises(UsageError, match=words):
        merged([("one.json", one), ("two.json", two)])


def test_another_plan_or_device_is_refused() -> None:
    other = replace(PASSING, classes={**PASSING.classes, "modes": [["passes"]]})
    one, two = stub_run(PASSING, shard=(1, 2)), stub_run(other, shard=(2, 2))
    with pytest.raises(UsageError, match="the plan is"):
        merged([("one.json", one), ("two.json", two)])
    with pytest.raises(UsageError, match=r"the device is cpu and cuda \(H200\)"):
        merged([("one.json", one), ("two.json", replace(two, device="cuda (H200)"))])


def test_the_gate_refuses_a_shard_in_one_line() -> None:
    report = stub_run(PASSING, shard=(1, 2))
    with pytest.raises(UsageError, match=r"r.json: of shard 1/2 alone, which is no evidence"):
        list(violations({"r.json": report}, GatePolicy()))


def test_the_command_writes_the_report_and_has_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = shards(PASSING, 2)
    for name, report in parts:
        report.save(name)
        jsonschema.validate(json.loads(Path(name).read_text()), schema())
    assert main(["merge", "1.json", "2.json", "--json", "whole.json", "--junit", "whole.xml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("equivalent: ")
    assert json.loads(Path("whole.json").read_text())["verdict"] == "equivalent"
    assert Path("whole.xml").exists()
    assert main(["merge", "2.json"]) == 2
    assert "shard 1/2 is missing" in capsys.readouterr().out.splitlines()
    assert main(["merge", "whole.json", "1.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["gate", "1.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", ""])
def test_a_wrong_shard_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--shard", text]) == 2
    assert "I/N is allowed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--fail-fast", "--profile=screen"])
def test_an_option_that_contradicts_a_shard_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--shard", "1/2", option]) == 2
    assert "leave one of them out" in capsys.readouterr().err
