"""A long case made real, with plain causal attention by blocks of queries in the place of the original."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.tensors import upstream
from equivcheck.numerics import blockwise
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.weight_transfer import Weights, carry_over
from equivcheck.runtime.global_state import default_dtype
from equivcheck.runtime.rng import seeded

__all__ = ["NotPlain", "built_on_device", "long_problem", "plain_attention"]

_LINEARS = ("key", "query", "value", "proj")


class NotPlain(Exception):
    """The original is not plain causal attention: then nothing is known of it at a length at which it does not run."""


def long_problem(pair: Pair, longer: Case) -> Problem:
    """The long case made real, with plain attention by blocks in the place of the original."""
    small = pair.problem(longer.but(seq_len=1, block_size=1))

    def plain() -> nn.Module:
        return plain_attention(pair, pair.build_reference(small.case), longer)

    # `plain_attention` requires linears with names by which their weights can be sharpened
    inputs, _, _ = pair.traits.inputs(longer, lambda: True)
    flowing = upstream(longer, "output", inputs[-1].shape)
    return replace(
        small,
        case=longer,
        make_reference=plain,
        make_candidate=lambda _: _candidate(pair, small.case, longer),
        inputs=tuple(pair.laid_out(x, longer).to(pair.device) for x in inputs),
        upstream={"output": pair.laid_out(flowing, longer).to(pair.device)},
        memory_key=("long", pair.kind, longer),
        oracle_device=None,  # the oracle of a long case is too slow for a CPU
    )


class _PlainFunction(nn.Module):
    """Causal attention of q, k, v by blocks."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return blockwise.attention(q, k, v, scale=self.scale)


class _PlainModule(nn.Module):
    """The original's four linears around causal attention by blocks."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        for name in _LINEARS:
            linear = getattr(original, name, None)
            if not isinstance(linear, nn.Linear):
                raise NotPlain(f"the original has no nn.Linear named {name!r}")
            self.add_module(name, linear)
        heads = getattr(original, "n_head", None)
        if not isinstance(heads, int):
            raise NotPlain("the original has no n_head")
        self.n_head = heads
        self.train(original.training)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        parts = (self.get_submodule(name)(x) for name in ("query", "key", "value"))  # (B, T, C) each
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in parts)  # (B, nh, T, hs) each
        y = blockwise.attention(q, k, v, scale=1.0 / math.sqrt(q.shape[-1]))  # (B, nh, T, hs)
        return self.get_submodule("proj")(y.transpose(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


def plain_attention(pair: Pair, original: nn.Module, case: Case) -> nn.Module:
    """Return plain causal attention by blocks, between the linears of an original.

    Raises:
        NotPlain: The original has no such linears.
    """
    if pair.traits.function:
        return _PlainFunction(case.head_size**-0.5 if case.scale is None else case.scale).train(case.training)
    return _PlainModule(original)


def _candidate(pair: Pair, small: Case, longer: Case) -> nn.Module:
    """The candidate at the long length, built on its device, with the weights of a short original.

    Weights do not depend on `block_size`; a buffer that does, such as a mask, stays the candidate's own.
    """
    original = pair.build_reference(small)
    if pair.traits.function:
        return pair.build_candidate(longer, lambda: original)
    module = built_on_device(pair, longer)
    if pair.transfer is not None:
        carry_over(pair.transfer, Weights.of(original), module, longer.config())
        return module.train(longer.training)
    reference_state, candidate_state = original.state_dict(), module.state_dict()
    for name, _ in module.named_buffers():
        if name in reference_state and candidate_state[name].shape != reference_state[name].shape:
            reference_state[name] = candidate_state[name]
    module.load_state_dict(reference_state, strict=True)
    return module.train(longer.training)


def built_on_device(pair: Pair, case: Case) -> nn.Module:
    """Build a pair's candidate on the device, in float32, or in the case's dtype if float32 does not fit.

    Returns:
        The candidate in the case's dtype.

    Raises:
        torch.OutOfMemoryError: It does not fit in the case's dtype either.
    """
    # while a T x T mask is made there are two: in float32 these may not fit, although the mask itself does
    for made_in in dict.fromkeys((torch.float32, case.torch_dtype)):
        try:
            return _made_in(made_in, pair, case)
        except torch.OutOfMemoryError:
            if made_in is case.torch_dtype:
                raise
    raise AssertionError("not reached: the last dtype raises")


def _made_in(dtype: torch.dtype, pair: Pair, case: Case) -> nn.Module:
    # a separate function, so that a module that cannot be converted is freed before another one is made
    with seeded(case.seed + 1, pair.device), torch.device(pair.device), default_dtype(dtype):
        module: nn.Module = pair.candidate(case.config())
        return module.to(device=pair.device, dtype=case.torch_dtype)
