"""A suite in another project's tests: green for a right pair, red with the line that replays it for a wrong one."""

import pytest

# a run in this process is followed by forgetting what it imported; torch._dynamo cannot be imported a second time
import torch._dynamo  # noqa: F401

from equivcheck.errors import UsageError
from equivcheck.suite import suite

pytest_plugins = ["pytester"]

RIGHT = """
import equivcheck
TestFlash = equivcheck.suite(
    "equivcheck.attention:CausalSelfAttention",
    "equivcheck.attention:FlashCausalSelfAttention",
    checks=["interface", "checkpoint"],
)
"""
WRONG = """
import equivcheck
from equivcheck.attention import CausalSelfAttention

class Slow(CausalSelfAttention):
    pass

class Doubled(CausalSelfAttention):
    def forward(self, x):
        return super().forward(x) * 2

TestDoubled = equivcheck.suite(Slow, Doubled, checks=["output", "checkpoint"]{more})
"""


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makeconftest('pytest_plugins = ["equivcheck.pytest_plugin"]')
    pytester.makepyfile(test_pair=source)
    return pytester.runpytest_inprocess("-p", "no:jaxtyping", "-v")


def test_a_right_pair_is_green_check_by_check_and_cuda_waits_for_gpu(pytester: pytest.Pytester) -> None:
    result = run(pytester, RIGHT)
    result.assert_outcomes(passed=2, deselected=2)
    result.stdout.fnmatch_lines(
        ["*TestFlash::test_holds?interface-cpu? PASSED*", "*TestFlash::test_holds?checkpoint-cpu? PASSED*"]
    )


def test_a_wrong_pair_is_red_with_the_line_that_replays_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, WRONG.format(more=""))
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "*Mismatch: output: output (*) is * times further from the oracle than rounding in * explains",
            "*case B1-T1-H1-*",
            "*equivcheck replay B1-T1-H1-* --kind module --device cpu --check output",
        ]
    )


def test_a_declared_deviation_is_green(pytester: pytest.Pytester) -> None:
    run(pytester, WRONG.format(more=', deviations={"output": "twice as good"}')).assert_outcomes(passed=2, deselected=2)


def test_a_run_that_could_not_have_noticed_is_red(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equivcheck.planting.planted", lambda *_: [])
    result = run(pytester, RIGHT)
    result.assert_outcomes(failed=2, deselected=2)
    result.stdout.fnmatch_lines(["*interface is insensitive: planted faults that were not seen: none was planted*"])


def test_a_pair_that_cannot_be_judged_is_told_where_the_suite_is_made() -> None:
    with pytest.raises(UsageError, match="cannot import"):
        suite("no_such_package:Slow", "no_such_package:Fast")
    with pytest.raises(UsageError, match="unknown check 'outputs'"):
        suite(
            "equivcheck.attention:CausalSelfAttention",
            "equivcheck.attention:FlashCausalSelfAttention",
            checks=["outputs"],
        )
