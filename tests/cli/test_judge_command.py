"""`judge`: each candidate has a verdict by itself, and the exit status is that of the worst of them."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from judged_reports import CASE, DIFFERENT, EQUIVALENT, INSENSITIVE, PARTIAL, Judge, the_line

from equivcheck.cli.main import main
from equivcheck.errors import ToolError, UsageError
from equivcheck.report.judged import Timed
from equivcheck.report.model import Report
from equivcheck.supervisor import api, candidates
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair

TIMED = Timed(case=CASE, speed_up=2.0, low=1.9, high=2.1, reference_ms=4.0, candidate_ms=2.0, calls=40, compared=8)


@pytest.fixture(autouse=True)
def answers(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The report, the error or the time of each candidate, by the name behind its colon."""
    answers: dict[str, Any] = {"timed": {}}

    def verify(pair: NamedPair, request: Request, **options: Any) -> Report:
        judge.answer = answers[pair.candidate.rpartition(":")[2]]
        return judge.verify(pair, request, **options)  # type: ignore[no-any-return]

    def times(pair: NamedPair, *_: Any) -> dict[str, Any]:
        of_all: dict[str, dict[str, Any]] = answers["timed"]
        return of_all.get(pair.candidate.rpartition(":")[2], {"timed": TIMED})

    monkeypatch.setattr(api, "verify", verify)
    monkeypatch.setattr(candidates, "_times", times)
    monkeypatch.setattr("equivcheck.cli.candidates.refuse_misspelt", lambda spec: None)  # names of nothing
    return answers


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([EQUIVALENT, EQUIVALENT], 0),
        ([EQUIVALENT, DIFFERENT, PARTIAL], 1),
        ([INSENSITIVE, PARTIAL], 1),
        ([EQUIVALENT, PARTIAL], 2),
        ([EQUIVALENT, UsageError("cannot import it")], 2),
        ([EQUIVALENT, ToolError("broken")], 2),
        ([EQUIVALENT, SystemExit(0)], 2),
    ],
)
def test_the_exit_status_is_that_of_the_worst_candidate(answers: dict[str, Any], given: list[Any], status: int) -> None:
    names = [f"C{number}" for number in range(len(given))]
    answers.update(zip(names, given, strict=True))
    assert main(["judge", "a:A", *(f"b:{name}" for name in names)]) == status


def test_equivalent_candidates_are_ranked_by_the_ratio_of_times(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answers.update(Wrong=DIFFERENT, Slow=EQUIVALENT, Untimed=EQUIVALENT, Fast=EQUIVALENT, Lost=UsageError("no such"))
    answers["timed"] = {"Slow": {"timed": replace(TIMED, speed_up=0.5)}, "Untimed": {"untimed": "it died"}}
    main(["judge", "a:A", "b:Wrong", "b:Slow", "b:Untimed", "b:Fast", "b:Lost"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[3:8]] == [
        ["1", "b:Fast", "equivalent"],
        ["2", "b:Slow", "equivalent"],
        ["b:Untimed", "equivalent"],
        ["b:Wrong", "different"],
        ["b:Lost", "not", "judged"],
    ]
    assert lines[9:12] == [
        "b:Untimed: not timed: it died",
        f"b:Wrong: output on {CASE}: 3 of 12 values differ",
        "b:Lost: no such",
    ]
    assert lines[-1] == "3 equivalent, 1 different or insensitive, 1 not judged"


def test_a_timed_call_that_differs_makes_a_candidate_different(answers: dict[str, Any], tmp_path: Path) -> None:
    answers.update(Stale=EQUIVALENT, timed={"Stale": {"timed": replace(TIMED, differs="output is off")}})
    assert main(["judge", "a:A", "b:Stale", "--json", "out.json"]) == 1
    (entry,) = json.loads((tmp_path / "out.json").read_text())["candidates"]
    assert (entry["verdict"], entry["exit_reason"], entry["rank"]) == ("different", "different", None)


@pytest.mark.parametrize(("feedback", "says_levels", "says_case"), [("none", 0, 0), ("verdict", 1, 0), ("full", 1, 1)])
def test_feedback_says_how_much_of_a_counterexample_is_shown(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str], feedback: str, says_levels: bool, says_case: bool
) -> None:
    answers.update(Wrong=DIFFERENT)
    main(["judge", "a:A", "b:Wrong", "--feedback", feedback, "--json", "out.json"])
    written, (out, err) = Path("out.json").read_text(), capsys.readouterr()
    assert ("levels" in json.loads(written)["candidates"][0]) == says_levels
    for text in (written, out + err):
        assert "different" in text
        assert (CASE in text) == ("3 of 12" in text) == says_case


def test_options_are_those_of_verify(judge: Judge, answers: dict[str, Any]) -> None:
    answers.update(B=EQUIVALENT)
    words = "--profile quick --check output --require values --seed 3 --case-seconds 4 --max-seconds 5 --jobs 2"
    main(["judge", "a:A", "b:B", *words.split(), "--domain", "seq_len > 1", "--device", "cpu", "--kind", "module"])
    ((_, options),) = judge.calls
    wanted: dict[str, Any] = {"profile": "quick", "checks": ("output",), "require": ("values",), "seed": 3, "jobs": 2}
    wanted |= {"case_seconds": 4.0, "max_seconds": 5.0, "domain": "seq_len > 1", "device": "cpu", "kind": "module"}
    assert {name: options[name] for name in wanted} == wanted


def test_files_of_a_folder_and_lines_of_standard_input_are_candidates(
    judge: Judge, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.update(One=EQUIVALENT, Two=EQUIVALENT, B=EQUIVALENT)
    Path("many").mkdir()
    Path("many/two.py").write_text("class Two: ...")
    Path("many/one.py").write_text("def One(): ...")
    Path("many/__init__.py").write_text("")
    Path("many/doubtful.py").write_text("class P: ...\nclass Q: ...")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"# a remark\n\nb:B\nmany/one.py\n")))
    assert main(["judge", "a:A", "many", "-", "--json", "out.json"]) == 2
    assert [pair[1] for pair, _ in judge.calls] == ["many/one.py:One", "many/two.py:Two", "b:B", "many/one.py:One"]
    last = json.loads(Path("out.json").read_text())["candidates"][-1]
    assert last["given"] == "many/doubtful.py"
    assert "it is not clear which of P, Q is meant; give --name" in last["problem"]


def test_no_line_of_standard_input_is_no_candidate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["judge", "a:A", "-"]) == 2
    assert the_line(capsys) == "no candidate was given: standard input has no line with one"


def test_an_interruption_keeps_the_candidates_before_it(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answers.update(A=EQUIVALENT, B=KeyboardInterrupt(), C=EQUIVALENT)
    assert main(["judge", "a:A", "b:A", "b:B", "b:C", "--json", "out.json"]) == 2
    content = json.loads(Path("out.json").read_text())
    assert (content["complete"], [one["candidate"] for one in content["candidates"]]) == (False, ["b:A"])
    assert capsys.readouterr().out.endswith("; interrupted before the rest\n")


def test_the_name_of_the_candidate_can_be_given(judge: Judge, answers: dict[str, Any]) -> None:
    answers.update(Q=EQUIVALENT)
    Path("c.py").write_text("class P: ...\nclass Q: ...")
    assert main(["judge", "a:A", "c.py", "--name", "Q"]) == 0
    assert judge.calls[0][0] == ("a:A", "c.py:Q")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--device", "cpv"], "cpv"),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: cannot be written"),
        (["--check", "nonsense"], "nonsense"),
        (["--domain", "seq_len >"], "seq_len >"),
    ],
)
def test_a_mistake_for_all_candidates_is_one_line_before_any_run(
    judge: Judge, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["judge", "a:A", "b:B", *words]) == 2
    assert line in the_line(capsys)
    assert not judge.calls
