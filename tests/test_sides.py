"""Whose exception it is: the candidate's, the original's or equivcheck's; and what a forward pass may return and change."""

import contextlib
import importlib
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, values
from equivcheck.checks.base.signatures import refused_call
from equivcheck.cli.main import main
from equivcheck.engine.search import Search
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch, ReferenceRaises, ToolError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs import sides
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, failure, foreign, raised_by, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.report.closing_lines import verdict_line

BY_NAME = {check.name: check for check in CHECKS}
CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12)


def searched(reference: Any, candidate: Any, *checks: str, kind: str = "auto", cases: int = 16) -> list[Search]:
    """The searches of these checks, in few cases; nothing is planted."""
    subject = resolve(reference, candidate, kind=kind, device="cpu")
    searches = [Search(BY_NAME[name], subject, cases, 30, math.inf, lambda _: None) for name in checks or ("output",)]
    for search in searches:
        search.run(classes(search.check, subject, DTYPES, cases), 0)
    return searches


def different(reference: Any, candidate: Any, *checks: str, **options: Any) -> bool:
    searches = searched(reference, candidate, *checks, **options)
    assert any(search.failed or any(held.judged for held in search.passed.values()) for search in searches)
    return any(search.failed for search in searches)


def smallest(reference: Any, candidate: Any, *checks: str) -> tuple[Case, str]:
    (search, *_) = [search for search in searched(reference, candidate, *checks) if search.minimal is not None]
    assert search.minimal is not None
    return search.minimal, str(search.failed[search.minimal])


# --- whose it is ------------------------------------------------------------------------------------------------------


class EvenHeads(CausalSelfAttention):
    """An original that refuses odd heads where it is called."""

    error: type[Exception] = ValueError

    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) // self.n_head % 2:
            raise self.error("even heads only")
        return super().forward(x)


class EvenHeadsByAssertion(EvenHeads):
    error = AssertionError


class EvenHeadsWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        assert config.n_embd // config.n_head % 2 == 0, "even heads only"


class EvenHeadsHere(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) // self.n_head % 2:
            raise AssertionError
        return super().forward(x)


class NowAndThen(CausalSelfAttention):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        NowAndThen.calls += 1
        if NowAndThen.calls % 17 == 16:
            raise RuntimeError("now and then")
        return super().forward(x)


@pytest.mark.parametrize("reference", [EvenHeads, EvenHeadsByAssertion, EvenHeadsWhenBuilt, NowAndThen])
def test_what_the_original_refuses_is_asked_of_nobody(reference: Any) -> None:
    (search,) = searched(reference, FlashCausalSelfAttention, cases=24)
    assert not search.failed
    assert any(held.judged for held in search.passed.values())
    assert any("where the original itself raises" in note for held in search.passed.values() for note in held.notes)


@pytest.mark.parametrize("reference", [EvenHeads, EvenHeadsByAssertion, EvenHeadsWhenBuilt])
def test_what_both_refuse_is_no_difference(reference: Any) -> None:
    assert not different(reference, EvenHeadsHere)


def test_what_the_candidate_alone_refuses_is_a_difference_and_the_original_was_run() -> None:
    _, message = smallest(CausalSelfAttention, EvenHeadsHere)
    assert message == "the candidate raises AssertionError: no message; the original runs"


class RaisesUnderNoGrad(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("not without gradients")
        return super().forward(x)


class OriginalRaisesInInferenceMode(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("not in inference mode")
        return super().forward(x)


def test_the_original_is_run_in_the_very_way_before_it_is_said_to_run() -> None:
    assert different(CausalSelfAttention, RaisesUnderNoGrad)
    (search,) = searched(OriginalRaisesInInferenceMode, OriginalRaisesInInferenceMode)
    assert not search.failed


@pytest.mark.parametrize(
    "check", ["output", "gradients", "purity", "layouts", "batching", "modes", "dropout", "extremes"]
)
def test_what_equivcheck_raises_is_an_error_of_its_own_and_never_a_difference(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    module = importlib.import_module(BY_NAME[check].run.__module__)
    name = next(name for name in ("compare_all", "candidate_run") if hasattr(module, name))
    monkeypatch.setattr(module, name, None)  # what is called there is a mistake of equivcheck's
    search = Search(BY_NAME[check], subject, 1, 0.0, math.inf, lambda _: None)
    with pytest.raises(ToolError, match=f"TypeError: .*equivcheck/.*, in {check} on B2-T9"):
        search.visit(CASE)
    assert not search.failed


def test_an_error_of_equivcheck_ends_in_one_line_that_asks_for_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "breaks.py").write_text(
        "import importlib\ndef it():\n    importlib.import_module('equivcheck.checks.purity')._states = None\n"
    )
    pair = ["--setup", f"{tmp_path}/breaks.py:it"]
    pair += ["equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"]
    assert main(["verify", *pair, "--check", "purity", "--profile", "quick", "--device", "cpu", "--jobs", "1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "internal error" in line]
    assert "please report this line" in line
    assert "in purity on B1-" in line


def test_an_exception_belongs_to_the_side_that_runs_where_it_is_raised() -> None:
    def raising() -> None:
        raise OSError("somewhere")

    for side in (REFERENCE, CANDIDATE):
        with pytest.raises(OSError, match="somewhere") as caught, running(side), foreign():
            raising()
        assert raised_by(caught.value) == side
    assert isinstance(failure(raising), OSError)
    assert failure(lambda: None) is None


def test_a_call_into_torch_by_the_pair_is_the_pairs_and_a_mistake_around_it_is_not() -> None:
    with pytest.raises(RuntimeError) as caught, foreign(CANDIDATE):
        torch.matmul(torch.ones(2, 3), torch.ones(2, 3))
    assert raised_by(caught.value) == CANDIDATE
    with pytest.raises(ReferenceRaises), contextlib.ExitStack():
        raise ReferenceRaises("RuntimeError: why")


# --- what a forward pass returns --------------------------------------------------------------------------------------


class Odd(torch.Tensor):
    @property
    def shape(self) -> Any:  # type: ignore[override]  # that is what is odd of it
        raise RuntimeError("no shape")


class Late:
    """A result that is worked out when it is looked at."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self.make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self.make(), name)


def changing(change: Callable[[Tensor], Any], base: type[nn.Module] = FlashCausalSelfAttention) -> type[nn.Module]:
    class Changed(base):  # type: ignore[misc, valid-type]  # a class of either side
        def forward(self, x: Tensor) -> Any:
            return change(super().forward(x))

    return Changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.to_sparse(), "output has the layout torch.sparse_coo"),
        (lambda y: y.to("meta"), "output is on the device meta"),
        (lambda y: y.as_subclass(Odd), "output is a Odd, a subclass of torch.Tensor"),
        (lambda y: Late(lambda: y), "the forward pass returned Late instead of a tensor"),
        (lambda y: None, "the forward pass returned NoneType instead of a tensor"),
    ],
    ids=["sparse", "meta", "subclass", "lazy", "none"],
)
def test_a_result_that_cannot_be_compared_is_a_finding(change: Callable[[Tensor], Any], words: str) -> None:
    _, message = smallest(CausalSelfAttention, changing(change))
    assert words in message
    assert "raises" not in message


class Tagged(torch.Tensor):
    """A subclass that does nothing."""


def test_a_subclass_that_the_original_returns_too_is_taken_for_what_it_holds() -> None:
    reference = changing(lambda y: y.as_subclass(Tagged), CausalSelfAttention)
    assert not different(reference, changing(lambda y: y.as_subclass(Tagged)))
    assert not different(reference, FlashCausalSelfAttention)
    assert different(CausalSelfAttention, changing(lambda y: y.as_subclass(Tagged)))


# --- what a pass may change -------------------------------------------------------------------------------------------


class OverwritesLate(FlashCausalSelfAttention):
    """Writes to its input under no_grad, past 64 positions."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        if x.size(1) > 64 and not torch.is_grad_enabled():
            x.detach()[:, -1].zero_()
        return y


class OriginalOverwrites(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        if not torch.is_grad_enabled():
            x.mul_(2)
        return y


class OverwritesUpstream(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        kept = g.clone()
        g.zero_()
        return kept


class OverwritesWeights(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        self.proj.weight.data.mul_(1.0 + 2.0**-20)
        return y


def test_an_input_that_is_overwritten_is_a_finding_at_every_length() -> None:
    case, message = smallest(CausalSelfAttention, OverwritesLate)
    assert message.startswith("x was overwritten: ")
    assert case.seq_len == 65


@pytest.mark.parametrize("check", ["output", "gradients", "batching", "lengths", "layouts", "purity"])
def test_an_upstream_gradient_or_a_weight_that_is_overwritten_is_a_finding(check: str) -> None:
    case = CASE.but(seq_len=300, block_size=300) if check == "lengths" else CASE
    for candidate, name in (
        (changing(OverwritesUpstream.apply), "upstream output"),
        (OverwritesWeights, "proj.weight"),
    ):
        if check == "output" and name.startswith("upstream"):
            continue  # it has one backward pass in three, and that is its last
        subject = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
        with pytest.raises(Mismatch) as caught:
            BY_NAME[check].run(subject, case)
        assert name in str(caught.value)


def test_what_the_original_overwrites_too_is_put_back_and_no_finding() -> None:
    problem = resolve(OriginalOverwrites, OriginalOverwrites, kind="module", device="cpu").problem(CASE)
    before = problem.inputs[0].clone()
    problem.run(problem.reference, problem.inputs, gradients=False)
    assert torch.equal(problem.inputs[0], before)
    assert not different(OriginalOverwrites, OriginalOverwrites)
    assert not different(OriginalOverwrites, FlashCausalSelfAttention)


def test_what_was_written_before_an_exception_is_put_back() -> None:
    class WritesAndRaises(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            x.detach().zero_()
            raise RuntimeError("after writing")

    problem = resolve(CausalSelfAttention, WritesAndRaises, kind="module", device="cpu").problem(CASE)
    before = problem.inputs[0].clone()
    for gradients in (False, True):
        with pytest.raises(RuntimeError, match="after writing"):
            problem.run(problem.candidate, problem.inputs, gradients=gradients)
        assert torch.equal(problem.inputs[0], before)


def test_putting_back_keeps_layouts_and_the_parameters_what_they_are() -> None:
    subject = resolve(CausalSelfAttention, OverwritesWeights, kind="module", device="cpu")
    problem = subject.problem(CASE.but(layout="transposed"))
    module = problem.candidate
    weight, x = module.get_parameter("proj.weight"), problem.inputs[0]
    values_before, strides = weight.detach().clone(), x.stride()
    with pytest.raises(Overwritten), running(CANDIDATE):
        problem.run(module, problem.inputs, gradients=True)
    assert module.get_parameter("proj.weight") is weight
    assert torch.equal(weight, values_before)
    assert problem.inputs[0] is x
    assert x.stride() == strides


# --- the same both ways round -----------------------------------------------------------------------------------------


def eager(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = q @ k.mT * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    return s.softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def wide(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    return eager(q.to(dtype), k.to(dtype), v.to(dtype), is_causal=is_causal, scale=scale).to(q.dtype)


def leaking(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = q @ k.mT * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s - 1e4 * torch.ones(s.shape[-2:], dtype=s.dtype, device=s.device).triu(1)
    return s.softmax(-1) @ v


def off_in_bfloat16(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=is_causal, scale=scale) * (1.1 if q.dtype is torch.bfloat16 else 1.0)


def off_past_32(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=is_causal, scale=scale) * (1.1 if q.size(-2) > 32 else 1.0)


def never_causal(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=False, scale=scale)


@pytest.mark.parametrize(
    "other", [eager, wide, leaking, off_in_bfloat16, off_past_32, never_causal], ids=lambda f: f.__name__
)
def test_what_is_different_one_way_round_is_different_the_other(other: Any) -> None:
    checks = ("output", "causality")
    wrong = other not in (eager, wide)
    assert different(fused, other, *checks) == different(other, fused, *checks) == wrong


def test_the_numbers_of_an_original_that_leaves_its_budget_are_held_against_the_candidates() -> None:
    subject = resolve(off_in_bfloat16, eager, kind="function", device="cpu")
    with pytest.raises(Mismatch, match=r"the original itself is .* times further from what it gives in float64"):
        values.output(subject, CASE.but(dtype="bfloat16", regime="near_initial"))


def test_two_that_leave_their_budget_together_are_the_same() -> None:
    def again(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
        return off_in_bfloat16(q, k, v, is_causal=is_causal, scale=scale)

    subject = resolve(off_in_bfloat16, again, kind="function", device="cpu")
    values.output(subject, CASE.but(dtype="bfloat16", regime="near_initial"))


# --- what a function or a forward pass is called with -----------------------------------------------------------------


def needs_a_window(q: Tensor, k: Tensor, v: Tensor, window: int, *, is_causal: bool = False) -> Tensor:
    return fused(q, k, v, is_causal=is_causal)


def takes_few_heads(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    assert q.size(-1) in (16, 32, 64), f"HEAD_DIM {q.size(-1)}"
    return fused(q, k, v, is_causal=is_causal, scale=scale)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [(needs_a_window, "missing 1 required positional argument: 'window'"), (takes_few_heads, "HEAD_DIM 1")],
)
def test_what_a_function_needs_or_refuses_and_the_original_does_not_is_a_difference(candidate: Any, words: str) -> None:
    report = equivcheck.verify(eager, candidate, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "different"
    assert report.results[0].counterexample is not None
    assert words in report.results[0].counterexample.message


def test_options_that_the_original_alone_takes_stand_in_the_closing_line() -> None:
    def without_scale(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return fused(q, k, v, is_causal=is_causal)

    report = equivcheck.verify(eager, without_scale, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "equivalent"
    assert "not judged, as the original alone takes them: scale" in verdict_line(report)


def test_a_bidirectional_function_is_not_called_insensitive_for_faults_of_a_causal_one() -> None:
    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return eager(q, k, v)

    report = equivcheck.verify(
        plain, F.scaled_dot_product_attention, device="cpu", profile="quick", checks=["output", "gradients"]
    )
    assert report.verdict == "equivalent"
    assert "causal-mask-at-the-other-corner" in report.sensitivity.without_effect


class PassesOn(CausalSelfAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]  # as wrappers have it
        return super().forward(*args, **kwargs)


class NeedsAMask(FlashCausalSelfAttention):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]  # that is the difference
        return super().forward(x)


class NeedsAWindow(FlashCausalSelfAttention):
    def __init__(self, config: Any, window: int) -> None:
        super().__init__(config)


def test_an_original_that_passes_on_what_it_is_given_takes_everything() -> None:
    assert not different(PassesOn, FlashCausalSelfAttention, "interface")


@pytest.mark.parametrize("candidate", [NeedsAMask, NeedsAWindow])
def test_one_more_required_argument_is_a_difference(candidate: Any) -> None:
    assert different(CausalSelfAttention, candidate, "output")
    assert different(CausalSelfAttention, candidate, "interface")


@pytest.mark.parametrize(
    ("reference", "candidate", "fits"),
    [
        (lambda x, mask=None: 0, lambda x, mask=None, more=1: 0, True),
        (lambda x, mask=None: 0, lambda x, **options: 0, False),  # the mask can be given by position
        (lambda x, *, mask=None: 0, lambda x, **options: 0, True),
        (lambda x, mask=None, bias=None: 0, lambda x, bias=None, mask=None: 0, False),
        (lambda x, mask=None: 0, lambda *args, **kwargs: 0, True),
        (lambda *args, **kwargs: 0, lambda x: 0, True),
        (lambda x: 0, lambda hidden: 0, False),  # by its name
        (lambda x, /: 0, lambda hidden: 0, True),
        (lambda x: 0, lambda x, y: 0, False),
    ],
)
def test_signatures_bind_as_python_binds(reference: Any, candidate: Any, fits: bool) -> None:
    refused = refused_call(inspect.signature(reference), inspect.signature(candidate))
    assert (refused == "") == fits


def test_what_is_judged_like_anybodys_code_is_there() -> None:
    assert [place for place in sides._JUDGED if not Path(place).exists()] == []
