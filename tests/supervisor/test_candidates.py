"""Candidates that crash, hang or deceive cost their own verdicts, which are those that each would have alone."""

import signal
from pathlib import Path

import pytest

from equivcheck.attention import CausalSelfAttention
from equivcheck.report.exits import exit_reason
from equivcheck.report.judged import Judged
from equivcheck.supervisor import api
from equivcheck.supervisor.candidates import Given, judge_each
from equivcheck.supervisor.interrupts import listening
from equivcheck.supervisor.listener import Silence
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair

REFERENCE = f"{CausalSelfAttention.__module__}:{CausalSelfAttention.__qualname__}"

SOURCE = """
import os
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

class Right(FlashCausalSelfAttention): ...

class Wrong(CausalSelfAttention):
    def forward(self, x):
        return super().forward(x) * 1.1

class Ends(CausalSelfAttention):
    def forward(self, x):
        os._exit(0)

class Refuses(CausalSelfAttention):
    def forward(self, x):
        if x.shape[:2] == (4, 256):
            raise ValueError("too long")
        return super().forward(x)

class Stale(CausalSelfAttention):
    last = None
    def forward(self, x):
        if x.size(1) < 200:
            return super().forward(x)
        if self.last is None:
            self.last = super().forward(x).detach()
        return self.last.clone()
"""
REQUEST = Request(profile="quick", checks=("output",), dtypes=("float32",))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    folder = tmp_path_factory.mktemp("candidates")
    (folder / "some.py").write_text(SOURCE)
    (folder / "ends_at_import.py").write_text("import os\nos._exit(0)\nclass Gone: ...")
    given = [Given(name, f"{folder / 'some.py'}:{name}") for name in ("Ends", "Wrong", "Stale", "Refuses", "Right")]
    given.insert(1, Given("Gone", f"{folder / 'ends_at_import.py'}:Gone"))
    pair = NamedPair(REFERENCE, "", "module", "cpu")
    each = judge_each(pair, REQUEST, given, listener=Silence(), timing_seconds=0.4)
    return {one.given: one for one in each}


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        ("Right", "equivalent", "equivalent"),
        ("Wrong", "different", "different"),
        ("Ends", "different", "different"),
        ("Gone", "not judged", "unusable"),
        ("Stale", "different", "different"),
    ],
)
def test_each_candidate_has_a_verdict_of_itself(
    judged: dict[str, Judged], name: str, verdict: str, reason: str
) -> None:
    assert (judged[name].verdict, judged[name].exit_reason) == (verdict, reason)


def test_a_right_candidate_is_timed_on_inputs_that_are_compared(judged: dict[str, Judged]) -> None:
    timed = judged["Right"].timed
    assert timed is not None
    assert (timed.compared, timed.differs) == (8, "")
    assert timed.calls > 8
    assert 0 < timed.low <= timed.speed_up <= timed.high


def test_a_candidate_that_raises_when_timed_has_no_time(judged: dict[str, Judged]) -> None:
    assert (judged["Refuses"].verdict, judged["Refuses"].timed) == ("equivalent", None)
    assert judged["Refuses"].untimed == "a timed call raised ValueError: too long"


def test_an_interruption_of_one_run_is_one_of_all() -> None:
    with listening(signal.SIGTERM) as of_all:
        with listening(*of_all.signals) as of_one:
            signal.raise_signal(signal.SIGTERM)
        assert of_one.up
        assert of_all.up
        with listening(*of_all.signals) as next_one:
            assert not next_one.up
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_candidate_that_repeats_its_last_result_when_timed_is_different(judged: dict[str, Judged]) -> None:
    assert judged["Stale"].report is not None
    assert judged["Stale"].report.verdict == "equivalent"
    assert judged["Stale"].first_finding.startswith("a timed call: output")


def test_a_verdict_among_others_is_that_of_a_run_of_one_pair(judged: dict[str, Judged]) -> None:
    one = judged["Wrong"]
    alone = api.verify(
        NamedPair(REFERENCE, one.candidate, "module", "cpu"), REQUEST, listener=Silence(), keep=lambda report: None
    )
    assert one.report is not None
    assert (alone.verdict, exit_reason(alone)) == (one.verdict, one.exit_reason)
    assert [r.counterexample for r in alone.results] == [r.counterexample for r in one.report.results]
    assert Path(one.candidate.rpartition(":")[0]).is_file()
