"""The truth of a long problem: plain attention by blocks, if the original is that at a short length."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.cases.words import REPEATING
from equivcheck.checks.long.problem import NotPlain, plain_attention
from equivcheck.numerics import blockwise
from equivcheck.numerics.error_model import ErrorModel
from equivcheck.numerics.lineage import Origins
from equivcheck.numerics.monte_carlo import Rounding
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.perturbed_runs import in_turn
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import ensure_foreign

__all__ = ["long_truth"]

_SHORT = 1100  # length at which the original is compared with plain attention: longer than usual windows and blocks
_SAME = 2.0**-30  # of the largest value: far above rounding in float64, far below any other attention


def long_truth(pair: Pair, problem: Problem) -> Truth:
    """Return the oracle by blocks, with its samples of rounding errors.

    Raises:
        NotPlain: The original is not plain causal attention, for which the oracle stands.
    """

    def make() -> Truth:
        _must_be_plain(pair, problem.case)
        values = problem.oracle_values(gradients=True)
        # a long problem has so many elements that few perturbed runs show the spread of rounding errors
        return Truth(values, lambda count: _perturbed(problem, values, count), first=2, many=8)

    return problem.memory.recall(problem.memory_key, make)


def _must_be_plain(pair: Pair, case: Case) -> None:
    """Compare the original with plain attention in float64, forward and backward, at a length at which it runs.

    Raises:
        NotPlain: They differ, or the original raises.
    """
    if not case.is_causal:
        raise NotPlain("only causal attention is known by blocks")
    length = min(case.seq_len, _SHORT)
    short = case.but(
        batch_size=1, seq_len=length, block_size=length, dtype="float64", regime="sharpened", layout="contiguous"
    )
    problem = replace(pair.problem(short), oracle_device=None)
    try:
        reference_results = problem.oracle_values(gradients=True)
    except Exception as error:
        ensure_foreign(error)
        raise NotPlain(f"the original raises {type(error).__name__} at T={length}") from error
    plain = plain_attention(pair, problem.make_reference(), short)
    plain_results = problem.run(plain, problem.inputs, gradients=True)
    # the largest value of all tensors, not of each: the gradient of a key's bias is zero up to rounding
    largest = max(float(value.abs().max()) for value in reference_results.values())
    for name in dict.fromkeys((*reference_results, *plain_results)):
        plain_value, reference_value = plain_results.get(name), reference_results.get(name)
        if plain_value is None or reference_value is None or plain_value.shape != reference_value.shape:
            raise NotPlain(f"the original is not plain causal attention: {name} is not what that has")
        if not float((plain_value - reference_value).abs().max()) <= _SAME * largest:
            raise NotPlain(f"the original is not plain causal attention: {name} differs at T={length}")


def _perturbed(problem: Problem, values: Mapping[str, Tensor], count: int) -> Sample:
    """Perturbed runs of the oracle by blocks, one after the other."""
    oracle, inputs = problem.original_in_float64(problem.device)
    flowing = {name: value.to(torch.float64) for name, value in problem.upstream.items()}

    def run(noise: torch.Generator) -> Results:
        with _rounding(problem.case, problem.device, noise):
            return problem.run(oracle, inputs, gradients=True, upstream=flowing)

    return in_turn(problem, values, count, run)


def _rounding(case: Case, device: torch.device, noise: torch.Generator) -> Rounding:
    model = _BlockErrors(case, device, noise)

    def added(_: ErrorModel, total: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return model.perturb(total, total.abs().mul_(model.u_add))

    return Rounding(model, {torch.ops.aten.add_.Tensor: added})  # the operand is a block's part of dk or dv


class _BlockErrors(ErrorModel):
    """Errors of attention by blocks, whose running sums have the precision of kernels for long sequences.

    On CUDA that is float32. On a CPU, in half precision, sums are rounded to the dtype after each block of 256 terms,
    as in the backward pass of torch's CPU kernel. An implementation for long sequences may not round more often.
    """

    _STEP = 256

    def __init__(self, case: Case, device: torch.device, noise: torch.Generator) -> None:
        super().__init__(
            case.torch_dtype, device, noise, subnormal=case.regime == "tiny", coherent=case.regime in REPEATING
        )
        self.origins = _NoOrigins()
        self.stepped, self.blocked = self.blocked and device.type == "cpu", False
        _, queries = blockwise.block_shape(case.batch_size * case.n_head, case.seq_len, device)
        self.u_add = self.u * math.sqrt(min(1.0, queries / self._STEP)) if self.stepped else self.u_sum

    def sum_error(self, total: Tensor, root_of_squares: Tensor, n: int) -> Tensor:
        """As for any sum, but in half precision rounded to the dtype after every 256 terms instead of 16."""
        size = super().sum_error(total, root_of_squares, n)
        if self.stepped and n > self._STEP:
            size = size + (self.u * math.sqrt(n / self._STEP)) * (root_of_squares + total.abs() / math.sqrt(3))
        return size


class _NoOrigins(Origins):
    """Records nothing: the products of all blocks are T x T, and delta is computed from a rounded O anyway."""

    def remember(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Nothing."""

    def mark_greatest(self, probabilities: Tensor, index: Tensor) -> None:
        """Nothing."""

    def mark_normaliser(self, of: Tensor) -> None:
        """Nothing."""

    def mark_recomputed(self, of: Tensor, size: Tensor, *, less: Tensor | None = None, probable: bool = False) -> None:
        """Nothing."""
