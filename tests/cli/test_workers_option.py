"""`--workers ray` without Ray: what the command makes of parts and candidates that are done, lost or refused."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from judged_reports import CASE, DIFFERENT, EQUIVALENT, INSENSITIVE, PARTIAL

from equivcheck.cli.main import main
from equivcheck.report.codec import dumps
from equivcheck.report.judged import Judged, Timed
from equivcheck.report.shard import Shard
from equivcheck.supervisor import ray_cluster
from equivcheck.supervisor.ray_cluster import Ended
from equivcheck.supervisor.ray_shares import Share

pytestmark = pytest.mark.usefixtures("judge")
TIMED = Timed(case=CASE, speed_up=2.0, low=1.9, high=2.1, reference_ms=4.0, candidate_ms=2.0, calls=40, compared=8)
Answer = Callable[[int, list[str]], Ended]


class Stub:
    """A cluster of two CPUs whose tasks are answered by a function, the last one first."""

    def __init__(self) -> None:
        self.answer: Answer = lambda number, words: Ended(number, reason="lost")
        self.commands: list[list[str]] = []

    def nodes(self) -> list[Share]:
        return [Share(1), Share(1)]

    def run(self, commands: Sequence[Sequence[str]], share: Share, stopping: Callable[[], bool]) -> Iterator[Ended]:
        self.commands = [list(words) for words in commands]
        for number in reversed(range(len(commands))):
            if stopping():
                return
            yield self.answer(number, self.commands[number])


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()

    @contextmanager
    def connected(address: str) -> Iterator[Stub]:
        yield stub

    monkeypatch.setattr(ray_cluster, "connected", connected)
    monkeypatch.setattr("equivcheck.cli.candidates.refuse_misspelt", lambda spec: None)  # names of nothing
    return stub


def part(number: int) -> str:
    """The report of a part whose pair could not be planned."""
    return dumps(replace(EQUIVALENT, results=(), complete=False, shard=Shard(number + 1, 2)))


def test_each_part_has_its_number_and_the_options(stub: Stub) -> None:
    main(["verify", "a:A", "b:B", "--workers", "ray", "--seed", "3", "--json", "out.json", "--jobs", "4"])
    given = ["verify", "--seed=3"]
    assert stub.commands == [[*given, f"--shard={n}/2", "--json=-", "--", "a:A", "b:B"] for n in (1, 2)]


def test_a_lost_part_makes_the_report_partial(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer = lambda number, words: Ended(number, part(0), "", "h") if not number else Ended(1, reason="node died")
    assert main(["verify", "a:A", "b:B", "--workers", "ray", "--json", "out.json"]) == 2
    assert not json.loads(Path("out.json").read_text())["complete"]
    assert capsys.readouterr().err.splitlines() == [
        "shard 2/2: node died (1 of 2 parts are done)",
        "shard 1/2: partial, 41.2 s on h (2 of 2 parts are done)",
        "shard 2/2 has no report: node died",
    ]


def test_a_pair_that_no_part_can_judge_is_one_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.json").write_text("of an earlier run")
    stub.answer = lambda number, words: Ended(number, reason="b:B cannot be imported", host="h")
    assert main(["verify", "a:A", "b:B", "--workers", "ray", "--json", "out.json"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "equivcheck: b:B cannot be imported"
    assert Path("out.json").read_text() == "of an earlier run"


def test_text_that_is_no_report_is_a_lost_part(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer = lambda number, words: Ended(number, "{", "", "h")
    assert main(["verify", "a:A", "b:B", "--workers", "ray"]) == 2
    assert "equivcheck: shard 2/2: " in capsys.readouterr().err


def test_the_events_of_a_run_end_with_its_verdict(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer = lambda number, words: Ended(number, part(number), "", "h")
    assert main(["verify", "a:A", "b:B", "--workers", "ray", "--format", "jsonl"]) == 2
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["started", "sensitivity", "verdict"]


def judged_by(candidates: dict[str, Judged]) -> Answer:
    def answer(number: int, words: list[str]) -> Ended:
        one = candidates.get(words[-1])
        entry = None if one is None else json.loads(json.dumps(one.entry("full", 1)))
        return (
            Ended(number, reason="node died") if entry is None else Ended(number, json.dumps({"candidates": [entry]}))
        )

    return answer


def test_a_lost_candidate_costs_itself_alone(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    good = Judged(given="b:Good", candidate="b:Good", report=EQUIVALENT, timed=TIMED)
    best = replace(good, given="b:Best", candidate="b:Best", timed=replace(TIMED, speed_up=3.0))
    wrong = Judged(given="b:Wrong", candidate="b:Wrong", report=DIFFERENT)
    stub.answer = judged_by({one.given: one for one in (good, best, wrong)})
    words = ["a:A", "b:Wrong", "b:Lost", "b:Good", "b:Best", "absent.py"]
    assert main(["judge", *words, "--workers", "ray", "--json", "out.json", "--feedback", "verdict"]) == 1
    content = json.loads(Path("out.json").read_text())
    assert [(one["given"], one["rank"], one["verdict"]) for one in content["candidates"]] == [
        ("b:Best", 1, "equivalent"),
        ("b:Good", 2, "equivalent"),
        ("b:Wrong", None, "different"),
        ("b:Lost", None, "not judged"),
        ("absent.py", None, "not judged"),
    ]
    assert content["candidates"][-2]["problem"] == "node died"
    assert "differences" not in content["candidates"][2]
    out = capsys.readouterr().out
    assert "b:Wrong: different at values: output" in out
    assert CASE not in out
    assert len(stub.commands) == 4


@pytest.mark.parametrize(
    "one",
    [
        Judged(given="b.py", candidate="b.py:B", report=EQUIVALENT, timed=TIMED, seconds=1.5),
        Judged(given="b:B", candidate="b:B", report=EQUIVALENT, timed=replace(TIMED, differs="off"), seconds=2.0),
        Judged(given="b:B", candidate="b:B", report=EQUIVALENT, untimed="it died"),
        Judged(given="b:B", candidate="b:B", report=DIFFERENT),
        Judged(given="b:B", candidate="b:B", report=INSENSITIVE),
        Judged(given="b:B", candidate="b:B", report=PARTIAL),
        Judged(given="b:B", problem="broken", reason="internal"),
    ],
)
def test_an_entry_of_another_process_says_the_same_again(one: Judged) -> None:
    again = Judged.of_entry(json.loads(json.dumps(one.entry("full", None))))
    for feedback in ("none", "verdict", "full"):
        assert again.entry(feedback, None) == one.entry(feedback, None)
    assert (again.status, again.first_finding, again.differing) == (one.status, one.first_finding, one.differing)
