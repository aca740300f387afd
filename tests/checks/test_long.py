"""Long sequences: right pairs pass, faults that begin at T = 1025 are seen, other attentions are not judged, memory."""

import math
import weakref
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from largest_tensor import Largest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.long import truth as truths
from equivcheck.checks.long.long import lengthened, long
from equivcheck.checks.long.problem import NotPlain, built_on_device, long_problem
from equivcheck.checks.long.truth import long_truth
from equivcheck.errors import Mismatch
from equivcheck.numerics.blockwise import block_shape
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

family = import_module("equivcheck.checks.long.long")  # the package has a function of that name


CPU = torch.device("cpu")


SMALL = Case()  # stands for T = 1025


MIDDLE = Case(seq_len=1500, block_size=1507, n_head=2, head_size=8)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    T = q.shape[-2]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    return torch.softmax((q @ k.mT * scale).masked_fill(later, -math.inf), -1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


def windowed(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    """Sees 1024 positions: wrong, and a little, from T = 1025 on."""
    T = q.shape[-2]
    seen = torch.ones(T, T, dtype=torch.bool).tril().triu(-1023)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


class LosesKeyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor) -> Tensor:
        return k.view_as(k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        kept = torch.ones_like(grads[0])
        kept[..., 1024:, :] = 0.5
        return grads[0] * kept


def half_key_gradient(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return fused(q, LosesKeyGradient.apply(k), v, **options)


def pair(candidate: Any, reference: Any = spelled_out, kind: str = "function") -> Pair:
    return resolve(reference, candidate, kind=kind, device="cpu")


SHIPPED = pair(FlashCausalSelfAttention, CausalSelfAttention, "module")


class Refuses(CausalSelfAttention):
    """Runs nowhere past T = 1100: the original, at lengths at which it must not be run."""

    def __init__(self, config: Any) -> None:
        assert config.block_size <= 1100
        super().__init__(config)


class Forgets(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if x.shape[1] <= 1024 else torch.cat((y[:, :1024], 1.01 * y[:, 1024:]), 1)


def test_a_small_case_stands_for_a_long_one() -> None:
    lengths = {lengthened(Case(seq_len=n, block_size=n, seed=seed), CPU).seq_len for n in (1, 2) for seed in range(6)}
    assert lengths == {1023, 1024, 1025, 4095, 4096, 4097}
    far = Case(seq_len=9, block_size=16, head_size=4, seed=1, training=True, attn_pdrop=0.5)
    assert lengthened(far, CPU).seq_len == 16384
    gpu = lengthened(far, torch.device("cuda"))
    assert (gpu.seq_len, gpu.block_size, gpu.head_size) == (131072, 131079, 64)
    assert (gpu.training, gpu.attn_pdrop, gpu.resid_pdrop) == (False, 0.0, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("regime", ["sharpened", "same_sign_v"])
def test_right_functions_pass(dtype: str, regime: str) -> None:
    held = long(pair(fused), SMALL.but(dtype=dtype, regime=regime, scale=0.25))
    assert held.ratio is not None
    assert 0 < held.ratio <= 1
    assert any("T=1025" in note for note in held.notes)


def test_the_pair_passes_though_the_original_is_never_built_so_long(monkeypatch: Any) -> None:
    monkeypatch.setattr(family, "lengthened", lambda case, device: MIDDLE)
    held = long(pair(FlashCausalSelfAttention, Refuses, "module"), SMALL.but(n_head=2))
    assert held.ratio is not None
    assert 0 < held.ratio <= 1


def test_every_parameter_has_a_gradient_in_the_truth() -> None:
    truth = long_truth(SHIPPED, long_problem(SHIPPED, SMALL.but(seq_len=70, block_size=70)))
    layers = ("key", "query", "value", "proj")
    assert set(truth.values) == {
        "output",
        "grad x",
        *(f"grad {layer}.{part}" for layer in layers for part in ("weight", "bias")),
    }


def test_a_window_of_1024_is_seen_at_1025_and_not_at_1024() -> None:
    with pytest.raises(Mismatch, match="at T=1025"):
        long(pair(windowed), SMALL.but(regime="near_initial"))
    assert 0 < long(pair(windowed), SMALL.but(regime="near_initial", seed=1)).ratio <= 1


def test_a_wrong_gradient_of_k_from_1025_on_is_seen() -> None:
    with pytest.raises(Mismatch, match="grad k") as caught:
        long(pair(half_key_gradient), SMALL.but(regime="near_initial"))
    assert caught.value.where == "grad k"
    assert 0 < long(pair(half_key_gradient), SMALL.but(regime="near_initial", seed=1)).ratio <= 1


def test_a_module_that_is_wrong_from_1025_on_is_seen() -> None:
    with pytest.raises(Mismatch, match="output"):
        long(pair(Forgets, CausalSelfAttention, "module"), SMALL)


@pytest.mark.parametrize("reference", [windowed, "not a module we know"])
def test_an_original_that_is_not_plain_is_judged_whole(reference: Any) -> None:
    if reference is windowed:
        held = long(pair(windowed, windowed), SMALL)
    else:

        class Renamed(CausalSelfAttention):
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.out = self.proj
                del self.proj

            def _merge(self, y: Tensor) -> Tensor:
                B, nh, T, hs = y.shape
                return self.out(y.transpose(1, 2).reshape(B, T, nh * hs))

        held = long(pair(Renamed, Renamed, "module"), SMALL)
    assert held.judged
    assert held.ratio is not None
    assert held.ratio <= 1
    assert held.notes[-1].startswith("T=1025, judged whole: ")


def test_an_original_that_looks_both_ways_is_not_plain() -> None:
    with pytest.raises(NotPlain, match="only causal"):
        long_truth(pair(fused), long_problem(pair(fused), SMALL.but(seq_len=9, block_size=9, is_causal=False)))


def test_what_does_not_fit_is_a_note_and_what_fails_a_mismatch() -> None:
    def too_large(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def refusing(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
        raise RuntimeError("too long")

    held = long(pair(too_large), SMALL)
    assert held.ratio is None
    assert held.notes == ("the candidate does not fit in memory at T=1025, float32",)
    with pytest.raises(Mismatch, match="too long"):
        long(pair(refusing), SMALL)


def test_a_module_that_fits_in_its_dtype_alone_is_built_one_at_a_time() -> None:
    held: list[weakref.ref[Any]] = []

    class Large(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            assert not any(module() is not None for module in held), "two at a time do not fit"
            super().__init__(config)
            held.append(weakref.ref(self))

        def to(self, *args: Any, **kwargs: Any) -> Any:
            if self.proj.weight.dtype is torch.float32 and len(held) == 1:
                raise torch.OutOfMemoryError("planted")
            return super().to(*args, **kwargs)

    module = built_on_device(pair(Large, CausalSelfAttention, "module"), SMALL.but(dtype="bfloat16"))
    assert len(held) == 2
    assert module.get_parameter("proj.weight").dtype is torch.bfloat16


def test_nothing_of_the_size_of_all_scores_is_made_by_the_truth() -> None:
    subject, longer = pair(fused), SMALL.but(seq_len=1400, block_size=1400)
    problem = long_problem(subject, longer)
    truths._must_be_plain(subject, longer)  # at 1100 positions, with scores of its own
    with Largest() as seen:
        truths._perturbed(problem, problem.oracle_values(gradients=True), 1)
    _, queries = block_shape(1, 1400, CPU)
    assert queries < 100
    assert seen.numel <= queries * 1400


def test_nothing_of_a_block_is_kept_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    class Watched(truths._NoOrigins):
        def __init__(self) -> None:
            super().__init__()
            kept.append(self)

    monkeypatch.setattr(truths, "_NoOrigins", Watched)
    problem = long_problem(SHIPPED, SMALL.but(seq_len=70, block_size=70))
    truths._perturbed(problem, problem.oracle_values(gradients=True), 2)
    assert kept
    for origins in kept:  # all blocks together are T x T
        assert not any(vars(origins).values())
