"""Each check passes what is right, and sees the faults that break its property."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases
from equivcheck.cases.words import REGIMES
from equivcheck.checks import CHECKS
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.errors import Mismatch
from equivcheck.faults import FAULTS, PLANTS, RIGHT
from equivcheck.faults.correct.recomputed import CheckpointedReentrantly
from equivcheck.gpt import GPT
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report.catalogue import CATALOGUE

BY_NAME = {check.name: check for check in CHECKS}
FAULT = {fault.name: fault for fault in FAULTS}

CASES = {
    "bias": Case(batch_size=2, seq_len=33, n_head=2, head_size=16, block_size=33, dtype="bfloat16", seed=1),
    "dropout": Case(
        seq_len=3, n_head=2, head_size=2, block_size=3, training=True, attn_pdrop=0.5, resid_pdrop=0.25, seed=1
    ),
    "modes": Case(
        seq_len=3,
        n_head=2,
        head_size=2,
        block_size=3,
        training=True,
        attn_pdrop=0.5,
        resid_pdrop=0.25,
        steps="eta",
        seed=1,
    ),
    "training": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=2, vocab_size=17, seed=1),
    "generation": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=2, vocab_size=17, seed=1),
    "autocast": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, dtype="bfloat16", seed=1),
    "compile": Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, seed=1),
    "lengths": Case(batch_size=2, seq_len=70, n_head=2, head_size=8, block_size=72, seed=1),
    "logits": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=4, vocab_size=17, seed=1),
}
PLAIN = Case(batch_size=3, seq_len=21, n_head=3, head_size=8, block_size=24, seed=1)

SEEN = {
    "output": ("mask-one-too-wide", "scale-of-the-embedding", "heads-interleaved", "last-row-misses-itself"),
    "gradients": ("key-detached", "key-gradient-one-percent-off", "value-bias-gradient-halved", "query-detached"),
    "causality": ("mask-missing", "masked-scores-are-zero", "first-row-sees-all", "last-key-seen-by-all"),
    "interface": ("hooks-of-the-value-bypassed", "argument-renamed", "built-in-eval-mode", "result-not-contiguous"),
    "checkpoint": ("query-key-value-fused", "projection-renamed", "mask-not-persistent", "keys-in-another-order"),
    "errors": ("block-size-not-enforced", "width-not-enforced", "rank-not-enforced", "head-count-not-checked"),
    "purity": ("input-modified-in-place", "global-flag-changed", "result-overwritten-by-the-next-call"),
    "modes": ("dropout-rate-fixed-at-construction", "dropout-off-after-eval", "dropout-mode-of-the-first-call"),
    "training": ("key-gradient-one-percent-off", "query-detached"),
    "generation": ("scale-missing", "mask-missing"),
    "dropout": ("dropout-never", "dropout-unscaled", "dropout-mask-shared-over-heads", "dropout-fresh-in-backward"),
    "logits": ("wrong-in-the-third-layer", "scale-by-the-layer"),
    "layouts": (
        "upstream-gradient-taken-for-contiguous",
        "expanded-upstream-gradient-read-once",
        "transposed-input-reads-the-first-head",
        "offset-of-the-input-ignored",
        "expanded-input-computed-once",
    ),
    "lengths": ("partial-tile-of-keys-lost", "causal-only-at-multiples-of-eight", "length-of-the-first-call-kept"),
    "batching": ("other-samples-are-zero", "third-sample-reads-the-second"),
    "derivatives": ("key-detached", "scale-missing"),
    "autocast": ("scale-missing", "key-detached"),
    "compile": ("scale-missing",),
    "bias": ("probabilities-toward-zero", "wrong-in-bfloat16", "denominator-stands-still"),
}  # fmt: skip


def case_of(check: str) -> Case:
    return CASES.get(check, PLAIN)


def pair(candidate: Any = FlashCausalSelfAttention) -> Pair:
    return resolve(CausalSelfAttention, candidate, kind="module", device="cpu")


@pytest.fixture(autouse=True)
def flag_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the faults switches it, and the next test is to find it as it was."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)


SHIPPED = [name for name in BY_NAME if name in SEEN]


@pytest.mark.parametrize("check", SHIPPED)
def test_the_shipped_pair_passes(check: str) -> None:
    held = BY_NAME[check].run(pair(), case_of(check))
    assert held.ratio is None or 0 <= held.ratio <= 1


@pytest.mark.parametrize("check", SHIPPED)
def test_the_original_passes_beside_itself(check: str) -> None:
    BY_NAME[check].run(pair(CausalSelfAttention), case_of(check))


@pytest.mark.parametrize(("check", "fault"), [(check, fault) for check, faults in SEEN.items() for fault in faults])
def test_a_fault_is_seen_by_the_check_whose_property_it_breaks(check: str, fault: str) -> None:
    with pytest.raises(Mismatch):
        BY_NAME[check].run(pair(FAULT[fault].attention), case_of(check))


def test_probabilities_rounded_toward_zero_in_bfloat16_are_told_apart_from_those_rounded_to_nearest() -> None:
    case = case_of("bias").but(dtype="bfloat16")
    right = next(right for right in RIGHT if right.name == "softmax-in-float32")  # the same but for the rounding
    assert BY_NAME["bias"].run(pair(right.attention), case).ratio <= 1
    with pytest.raises(Mismatch, match="unit roundoffs of bfloat16"):
        BY_NAME["bias"].run(pair(FAULT["probabilities-toward-zero"].attention), case)


class _MergedHalves(CausalSelfAttention):
    """Each half of the keys normalised by itself, and both merged by their sums, as where keys are split over blocks or devices."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        T, half = q.size(-2), (q.size(-2) + 1) // 2
        s = (q @ k.mT * q.size(-1) ** -0.5).masked_fill(self.mask[:, :, :T, :T] == 0, -float("inf"))
        kept = self.attn_drop(torch.ones_like(s))
        most = s.amax(-1, keepdim=True).detach()
        parts = []
        for keys in (slice(0, half), slice(half, T)):
            e = (s[..., keys] - most).exp()
            total = e.sum(-1, keepdim=True)
            p = e / total.clamp_min(torch.finfo(s.dtype).tiny)
            parts.append((total, (p * kept[..., keys]) @ v[..., keys, :]))
        whole = parts[0][0] + parts[1][0]
        return self._merge(sum(total / whole * y for total, y in parts))


def test_sums_of_parts_that_cancel_where_dropout_leaves_little_of_a_row_are_rounding() -> None:
    case = Case.parse("B2-T7-H1-D16-K7-float32-eval-a0-r0-sharpened-contiguous-s41102-after-aohci")
    for attention in (_MergedHalves, next(r.attention for r in RIGHT if r.name == "halves-merged-by-sums")):
        held = BY_NAME["modes"].run(pair(attention), case)
        assert (held.ratio or 0.0) <= 1


class _KeyBiasWithoutGradient(CausalSelfAttention):
    """Scores of a row that are all moved by as much are the same probabilities: the gradient of a key's bias is zero."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, _, v = super()._heads(x)
        B, T, C = x.shape
        k = F.linear(x, self.key.weight) + self.key.bias.detach() + 0 * self.key.bias
        return q, k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2), v


def test_a_gradient_that_is_exactly_the_zero_which_the_truth_has_to_rounding_is_not_biased() -> None:
    case = Case(batch_size=1, seq_len=5, n_head=1, head_size=32, block_size=5)
    for dtype in ("float32", "float64"):
        BY_NAME["bias"].run(pair(_KeyBiasWithoutGradient), case.but(dtype=dtype))


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_a_right_attention_in_other_words_passes(right: Any) -> None:
    subject = pair(right.attention)
    for check in ("output", "gradients", "causality"):
        for case in (
            PLAIN,
            PLAIN.but(dtype="bfloat16", layout="transposed"),
            PLAIN.but(regime="ties", dtype="float16"),
        ):
            BY_NAME[check].run(subject, case)


@pytest.mark.parametrize("check", SHIPPED)
def test_what_refuses_autograd_grad_and_takes_backward_passes(check: str) -> None:
    BY_NAME[check].run(pair(CheckpointedReentrantly), case_of(check))


def test_the_distribution_of_what_refuses_autograd_grad_is_the_originals() -> None:
    subject = pair(CheckpointedReentrantly)
    case = PLAIN.but(training=True, attn_pdrop=0.1)
    problem = subject.problem(case.but(**small_sizes(case)))
    assert compare_moments(problem, problem.reference, problem.candidate) <= 1


class _Cancelling(nn.Module):
    """What is added is taken off again, and takes digits with it; `early`: before it meets the input."""

    early = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.attn_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        much = torch.full_like(x, 1e6)
        return self.drop(x + (much - much) if self.early else (x + much) - much)


class _CancellingEarly(_Cancelling):
    early = True


class _OnePercentMore(_Cancelling):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.01


def test_the_budget_and_not_chance_says_how_far_what_is_not_random_may_be_off() -> None:
    case = PLAIN.but(dtype="float64", training=False, attn_pdrop=0.5)
    for candidate in (_CancellingEarly, _OnePercentMore):
        subject = resolve(_Cancelling, candidate, kind="module", device="cpu")
        problem = subject.problem(case.but(**small_sizes(case)))
        with (
            nullcontext() if candidate is _CancellingEarly else pytest.raises(Mismatch, match="further from the oracle")
        ):
            assert compare_moments(problem, problem.reference, problem.candidate) <= 1


class _Dropping(nn.Module):
    """Drops what `mask` says."""

    mask: Any = staticmethod(F.dropout)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.attn_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return x * type(self).mask(torch.ones_like(x), self.drop.p, self.training)


def _sharing(x: Tensor, p: float, training: bool) -> Tensor:
    """On purpose: one mask for the whole batch."""
    return (torch.rand(x[:1].shape) >= p).to(x.dtype).expand(x.shape) / (1 - p) if training else x


def _independent(x: Tensor, p: float, training: bool) -> Tensor:
    return (torch.rand(x.shape) >= p).to(x.dtype) / (1 - p) if training else x


class _HalfAgain:
    """A generator that is less random than it should be: half of each mask is that of the call before, in another place."""

    def __init__(self) -> None:
        self.latest: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        drawn = torch.rand(x.shape)
        latest = self.latest.get(x.shape, torch.rand(x.shape))
        half = x.shape[-1] // 2
        self.latest[x.shape] = drawn = torch.cat([latest[..., x.shape[-1] - half :], drawn[..., half:]], -1)
        return x * (drawn >= p) / (1 - p) if training else x


def _hold_the_distribution(original: Any, candidate: Any) -> float:
    def attention(mask: Any) -> type[nn.Module]:
        return type("Dropping", (_Dropping,), {"mask": staticmethod(mask)})

    subject = resolve(attention(original), attention(candidate), kind="module", device="cpu")
    case = PLAIN.but(training=True, attn_pdrop=0.5)
    problem = subject.problem(case.but(**small_sizes(case)))
    return compare_moments(problem, problem.reference, problem.candidate)


def test_independent_masks_pass_where_torchs_own_are_less_independent_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "dropout", _HalfAgain())
    assert _hold_the_distribution(_HalfAgain(), _independent) <= 1


def test_masks_that_an_original_shares_on_purpose_must_be_shared() -> None:
    with pytest.raises(Mismatch, match="is not the original"):
        _hold_the_distribution(_sharing, _independent)
    with pytest.raises(Mismatch, match="between successive calls"):
        _hold_the_distribution(_HalfAgain(), _independent)  # torch's own are better than that


@pytest.mark.parametrize("regime", REGIMES)
def test_the_shipped_pair_passes_in_every_regime(regime: str) -> None:
    for dtype in ("float32", "float16"):
        for check in ("output", "gradients"):
            BY_NAME[check].run(pair(), PLAIN.but(regime=regime, dtype=dtype))


def test_every_fault_and_plant_names_checks_that_there_are() -> None:
    properties = set(BY_NAME)
    for planted in (*FAULTS, *PLANTS):
        assert planted.seen_by, planted.name
        assert set(planted.seen_by) <= properties, planted.name


def test_every_check_has_a_promise_and_cases_for_each_profile() -> None:
    for check in CHECKS:
        assert check.promise.strip(), check.name
        assert 0 < check.cases["quick"] <= check.cases["gate"] <= check.cases["thorough"]
        assert check.kinds
        cases(check.space)


# --- candidates that raise -------------------------------------------------------------------------------------------


class Raising(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("planted\non two lines")


class RefusingToBeBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        raise NotImplementedError("not on this machine")


# a checkpoint is loaded and never run, and what is refused for one reason is refused
@pytest.mark.parametrize("check", [name for name in SHIPPED if name not in ("checkpoint", "errors")])
def test_a_candidate_that_raises_is_a_mismatch_with_the_name_of_the_exception(check: str) -> None:
    with pytest.raises(Mismatch, match="ZeroDivisionError: planted on two lines"):
        BY_NAME[check].run(pair(Raising), case_of(check))


@pytest.mark.parametrize("check", ["output", "checkpoint", "interface", "purity", "modes"])
def test_a_candidate_that_cannot_be_built_is_a_mismatch_with_the_name_of_the_exception(check: str) -> None:
    with pytest.raises(Mismatch, match="NotImplementedError: not on this machine") as seen:
        BY_NAME[check].run(pair(RefusingToBeBuilt), case_of(check))
    assert seen.value.where == "NotImplementedError"


# --- other kinds -----------------------------------------------------------------------------------------------------


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    s = q @ k.mT * scale
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], device=s.device).triu(1) == 1, -torch.inf)
    return F.dropout(F.softmax(s, -1), dropout_p) @ v


def unscaled(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p)


@pytest.mark.parametrize("check", [c.name for c in CHECKS if "function" in c.kinds and c.name in SEEN])
def test_the_kernel_passes_beside_a_function_that_is_spelled_out(check: str) -> None:
    subject = resolve(spelled_out, F.scaled_dot_product_attention, kind="function", device="cpu")
    BY_NAME[check].run(subject, case_of(check).but(resid_pdrop=0.0, scale=0.25))


@pytest.mark.parametrize("check", ["output", "gradients"])
def test_a_function_that_ignores_the_scale_is_seen(check: str) -> None:
    subject = resolve(spelled_out, unscaled, kind="function", device="cpu")
    with pytest.raises(Mismatch):
        BY_NAME[check].run(subject, PLAIN.but(scale=0.25))


def test_a_function_that_lets_the_future_in_is_seen_and_one_that_is_asked_to_is_not() -> None:
    subject = resolve(
        spelled_out,
        lambda q, k, v, *, is_causal, dropout_p, scale: F.scaled_dot_product_attention(q, k, v, scale=scale),
        kind="function",
        device="cpu",
    )
    BY_NAME["output"].run(subject, PLAIN.but(is_causal=False))
    with pytest.raises(Mismatch):
        BY_NAME["output"].run(subject, PLAIN)


@pytest.mark.parametrize("check", [c.name for c in CHECKS if "model" in c.kinds and c.name in SEEN])
def test_a_gpt_with_the_fused_attention_passes_beside_the_one_without(check: str) -> None:
    subject = resolve(GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), kind="model", device="cpu")
    BY_NAME[check].run(subject, case_of(check).but(n_layer=2, vocab_size=5))


def test_a_gpt_whose_loss_is_not_a_mean_is_seen() -> None:
    class Summed(GPT):
        def forward(
            self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False
        ) -> tuple[Any, ...]:
            logits, loss = super().forward(idx, targets)
            return logits, None if loss is None else loss * idx.numel()

    with pytest.raises(Mismatch, match="loss"):
        BY_NAME["logits"].run(resolve(GPT, Summed, kind="model", device="cpu"), CASES["logits"])


# --- what single checks look at --------------------------------------------------------------------------------------


def mismatch(check: str, candidate: Any, case: Case | None = None) -> str:
    with pytest.raises(Mismatch) as seen:
        BY_NAME[check].run(pair(candidate), case or case_of(check))
    return str(seen.value)


def test_an_attribute_of_another_value_is_told_with_both() -> None:
    class Sized(CausalSelfAttention):
        size = 3

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.said = self.size

    class OtherwiseSized(Sized):
        size = 7

    with pytest.raises(Mismatch, match="attribute 'said' is 7, and 3 in the original"):
        BY_NAME["interface"].run(resolve(Sized, OtherwiseSized, kind="module", device="cpu"), PLAIN)


def test_a_gradient_that_the_original_does_not_have_is_told() -> None:
    class Unused(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.spare = nn.Parameter(torch.ones(1))

    class Used(Unused):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + (self.spare - self.spare.detach()) * y.detach()

    with pytest.raises(Mismatch, match="grad spare: the candidate has one, and the original has none"):
        BY_NAME["gradients"].run(resolve(Unused, Used, kind="module", device="cpu"), PLAIN)


def test_a_message_tells_three_tensors_and_names_the_rest() -> None:
    told = mismatch("gradients", FAULT["scale-missing"].attention)
    assert told.count("times further from the oracle") == 3
    assert "and so are: grad " in told


def test_a_single_position_has_nothing_after_it() -> None:
    held = BY_NAME["causality"].run(pair(), PLAIN.but(seq_len=1))
    assert held.ratio == 0.0


def test_two_perturbed_runs_that_meet_on_one_number_of_float64_accuse_nobody() -> None:
    problem = pair().problem(PLAIN.but(seq_len=9, dtype="float64"))
    moved = problem.truth(gradients=True)

    def met(count: int) -> Sample:  # the first runs have moved nothing, by chance
        deviations = moved.sample(refined=count == moved.many).deviations
        return Sample(count, {k: d * 0 if count == moved.first else d for k, d in deviations.items()})

    truth = Truth(moved.values, met, first=moved.first, many=moved.many)
    got, wrong = moved.values["output"].clone(), moved.values["output"].clone()
    at = (0, 8, 0)
    spread = float(moved.sample(refined=True).deviations["output"][:, 0, 8, 0].std())
    got[at] += spread / 4
    wrong[at] += 1e6 * spread
    assert compare_all(problem, truth, {"output": got}, dict, ["output"]).ratio <= 1.0  # type: ignore[operator]  # it has one
    with pytest.raises(Mismatch):
        compare_all(problem, truth, {"output": wrong}, dict, ["output"])


class OnlyDenseRows(FlashCausalSelfAttention):
    """Loud where the last dimension is strided, as kernels are."""

    def forward(self, x: Tensor) -> Tensor:
        if x.stride(-1) != 1 and x.size(-1) > 1:
            raise RuntimeError("rows must be dense")
        return super().forward(x)


def test_a_layout_that_is_refused_is_told_and_not_asked_for_where_the_original_refuses_it_too() -> None:
    case = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6)
    check = next(c for c in CHECKS if c.name == "layouts")
    with pytest.raises(Mismatch, match=r"inputs: strided: the candidate raises RuntimeError: rows must be dense"):
        check.run(resolve(CausalSelfAttention, OnlyDenseRows, kind="module", device="cpu"), case)
    held = check.run(resolve(OnlyDenseRows, OnlyDenseRows, kind="module", device="cpu"), case)
    assert "inputs: strided: not judged where the original itself raises RuntimeError" in held.notes
    assert held.judged


def test_the_catalogue_names_the_checks_with_their_kinds_counts_and_dtypes() -> None:
    for check, entry in zip(CHECKS, CATALOGUE, strict=True):
        assert (check.name, check.kinds, check.cases, check.judges) == (
            entry.name,
            entry.kinds,
            entry.cases,
            entry.judges,
        )
        assert tuple(check.space.dtypes) == entry.dtypes
        assert check.run.__module__ == f"equivcheck.checks.{entry.module}"
