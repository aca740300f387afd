"""A suite in another project's tests: one test per check, device and dtype, green for a right pair, red with a replay line."""

import pytest

# a run in this process is followed by forgetting what it imported; torch._dynamo cannot be imported a second time, and
# a second engine would not be the one that a test changes
import torch._dynamo  # noqa: F401

import equivcheck.worker.in_process  # noqa: F401
from equivcheck.pytest_plugin.suite import _gpu_of_worker

pytest_plugins = ["pytester"]

RIGHT = """
import equivcheck
TestFlash = equivcheck.suite(
    "equivcheck.attention:CausalSelfAttention",
    "equivcheck.attention:FlashCausalSelfAttention",
    checks=["interface", "checkpoint"],
)
"""
NO_FAULT = """
import equivcheck
TestFlash = equivcheck.suite(
    "equivcheck.attention:CausalSelfAttention",
    "equivcheck.attention:FlashCausalSelfAttention",
    checks=["bias"],
    dtypes=["float32"],
)
"""
RIGHT_OBJECTS = """
import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

TestFlash = equivcheck.suite(CausalSelfAttention, FlashCausalSelfAttention, checks=["interface", "checkpoint"])
"""
WRONG = """
import equivcheck
from equivcheck.attention import CausalSelfAttention

class Slow(CausalSelfAttention):
    pass

class Doubled(CausalSelfAttention):
    def forward(self, x):
        return super().forward(x) * 2

TestDoubled = equivcheck.suite(Slow, Doubled, checks=["output", "checkpoint"], dtypes=["float32"]{more})
"""


NOT_CAUSAL = """
import equivcheck
from torch import nn

class Mixing(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x):
        return self.proj(x.softmax(1))

TestMixing = equivcheck.suite(Mixing, Mixing, checks=["causality"], dtypes=["float32"])
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makeconftest('pytest_plugins = ["equivcheck.pytest_plugin"]')
    pytester.makepyfile(test_pair=source)
    return pytester.runpytest_inprocess("-p", "no:jaxtyping", "-v", *options)


def test_a_right_pair_is_green_check_by_check_and_cuda_waits_for_gpu(pytester: pytest.Pytester) -> None:
    result = run(pytester, RIGHT)
    result.assert_outcomes(passed=8, deselected=8)
    result.stdout.fnmatch_lines(
        [
            "*TestFlash::test_holds?drop-in-interface-cpu-float32? PASSED*",
            "*TestFlash::test_holds?drop-in-checkpoint-cpu-bfloat16? PASSED*",
        ]
    )


def test_ids_are_selected_with_k(pytester: pytest.Pytester) -> None:
    result = run(pytester, RIGHT, "-k", "interface and float64")
    result.assert_outcomes(passed=1, deselected=15)


def test_a_check_whose_faults_cannot_show_is_skipped(pytester: pytest.Pytester) -> None:
    result = run(pytester, NO_FAULT, "-rs")
    result.assert_outcomes(skipped=1, deselected=1)
    result.stdout.fnmatch_lines(["*SKIPPED*bias showed no difference, and no known fault would show in float32 *"])


def test_each_worker_of_xdist_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    taken = []
    for worker in ("gw0", "gw1", "gw2", "gw3"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        taken.append(_gpu_of_worker())
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert [*taken, _gpu_of_worker()] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:0"]


def test_a_check_that_has_nothing_to_say_is_skipped_with_its_reason(pytester: pytest.Pytester) -> None:
    result = run(pytester, NOT_CAUSAL, "-rs")
    result.assert_outcomes(skipped=1, deselected=1)
    result.stdout.fnmatch_lines(["*SKIPPED*causality is not applicable: the original is not causal*"])


def test_a_wrong_pair_is_red_with_the_line_that_replays_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, WRONG.format(more=""))
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "output at values: output (*) is * times further from the oracle than rounding in * explains",
            "case B1-T1-H1-*",
            "equivcheck replay B1-T1-H1-* --kind module --device cpu --check output",
        ]
    )


def test_a_declared_deviation_is_green(pytester: pytest.Pytester) -> None:
    run(pytester, WRONG.format(more=', deviations={"output": "twice as good"}')).assert_outcomes(passed=2, deselected=2)


def test_a_run_that_could_not_have_noticed_is_red(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equivcheck.engine.sensitivity.Plants.chosen", lambda _: ([], []))
    result = run(pytester, RIGHT_OBJECTS)
    result.assert_outcomes(failed=8, deselected=8)
    result.stdout.fnmatch_lines(["*interface is insensitive: planted faults that were not seen: none was planted*"])
