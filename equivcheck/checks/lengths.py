"""Lengths: every eighth prefix of one long sequence, and those around the edges of tiles, run by themselves.

The oracle runs twice, whatever the number of lengths. In a causal attention the first rows of the long sequence are the
outputs of the prefix. If the upstream gradient is zero after a short beginning, the gradients of a prefix of any length
are those of the beginning alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import ORDINARY
from equivcheck.checks.base.within import within
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["first_positions", "lengths", "lengths_of"]

_STRIDE = 8  # every single case meets an error that spans eight lengths in a row
_TILE = 64
_FAR = 600  # only the extra case of some dtypes is longer: `_FURTHER`
_BEGINNINGS = range(8, 49)  # lengths of the part with an upstream gradient; a single key has no gradient
_MOVED = 2.0**-20  # of the largest value, in float64


def lengths(pair: Pair, case: Case) -> CaseResult:
    """Every eighth prefix of a long sequence, and those at edges of tiles, give the oracle's outputs and gradients."""
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=bool(problem.names))
    truth = problem.truth(gradients=bool(problem.names))
    names = [name for name in truth.values if name != "loss" and not name.startswith("grad ")]
    cut_lengths = [length for length in lengths_of(case) if problem.allows(seq_len=length)]
    short = problem.part_of_length(_BEGINNINGS[case.seed % len(_BEGINNINGS)])
    beginning = first_positions(problem, short)
    if not _is_causal(beginning, truth, names):
        return CaseResult(
            notes=("the original's outputs depend on what follows: prefixes were not compared",),
            judged=False,
            applies=False,
        )

    def sweep(module: nn.Module) -> list[tuple[int, Results, Results | None]]:
        return [
            (length, _forward(problem, module, length), _backward(problem, module, length, beginning))
            for length in cut_lengths
        ]

    results = []
    for length, forward, backward in candidate_run(problem, sweep):
        with within(f"the first {length} of {case.seq_len} positions alone"):
            first_rows = _first_rows(truth, names, length)

            def run_reference_forward(length: int = length) -> Results:
                return _forward(problem, problem.reference, length)

            def run_reference_backward(length: int = length) -> Results:
                return _backward(problem, problem.reference, length, beginning) or {}

            results.append(compare_all(problem, first_rows, forward, run_reference_forward, names))
            if backward is not None:
                beginning_truth = beginning.truth(gradients=True)
                results.append(
                    compare_all(
                        beginning, beginning_truth, backward, run_reference_backward, tuple(beginning_truth.values)
                    )
                )
    results.append(_compare_whole(problem, truth))
    return CaseResult.together(results)


def lengths_of(case: Case) -> Sequence[int]:
    """The lengths of a case's prefixes, in an order that its seed decides."""
    top = case.seq_len
    cut_lengths = {length for length in range(1, top + 1) if length % _STRIDE == case.seed % _STRIDE}
    cut_lengths |= {edge + step for edge in range(_TILE, top + _TILE, _TILE) for step in (-1, 0, 1)}
    if top > _FAR:  # long prefixes are slow, and the other cases cover the shorter ones
        cut_lengths = {length for length in range(_FAR + 1, top) if length % _TILE == 1 or length % (10 * _STRIDE) == 0}
    ordered = sorted(length for length in cut_lengths | {top} if length <= top)
    # in a random order: state that a length leaves behind shows at the next one
    return [ordered[at] for at in torch.randperm(len(ordered), generator=generator(case, "lengths")).tolist()]


def _compare_whole(problem: Problem, truth: Truth) -> CaseResult:
    """Compare outputs and all gradients of the whole sequence: no other check has several heads at such lengths."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=bool(problem.names))

    candidate_results = candidate_run(problem, run)
    return compare_all(problem, truth, candidate_results, lambda: run(problem.reference), tuple(truth.values))


def _rows(x: Tensor, length: int) -> Tensor:
    return x[..., :length, :] if x.is_floating_point() else x[:, :length]


def first_positions(whole: Problem, length: int) -> Problem:
    """The problem of the first positions by themselves."""
    return replace(
        whole,
        case=whole.case.but(seq_len=length),
        inputs=tuple(_rows(x, length) for x in whole.inputs),
        upstream={name: g if g.dim() == 0 else _rows(g, length) for name, g in whole.upstream.items()},
        memory_key=(whole.memory_key, "first", length),
    )


def _is_causal(beginning: Problem, truth: Truth, names: Sequence[str]) -> bool:
    """Whether the original, in float64, gives the same outputs for the beginning alone as within the whole."""
    alone = beginning.oracle_values(gradients=False)
    for name in names:
        within_whole = _rows(truth.values[name], beginning.case.seq_len)
        if not float((alone[name] - within_whole).abs().max()) <= _MOVED * float(within_whole.abs().max()):
            return False
    return True


def _first_rows(truth: Truth, names: Sequence[str], length: int) -> Truth:
    """The truth of the first rows, with the samples that say how far rounding may move them."""

    def perturbed(count: int) -> Sample:
        moved = truth.sample(refined=count == truth.many).deviations
        return Sample(count, {name: _rows(moved[name], length) for name in names})

    values = {name: _rows(truth.values[name], length) for name in names}
    return Truth(values, perturbed, first=truth.first, many=truth.many)


def _forward(problem: Problem, module: nn.Module, length: int) -> Results:
    return problem.run(module, [_rows(x, length) for x in problem.inputs], gradients=False)


def _backward(problem: Problem, module: nn.Module, length: int, beginning: Problem) -> Results | None:
    """The gradients of a prefix with an upstream gradient in the beginning only; None for a shorter prefix."""
    first = beginning.case.seq_len
    if length < first or not problem.names:
        return None
    flowing = {}
    for name, value in problem.upstream.items():
        # It lies in memory as the whole one does: torch 2.11 on CUDA keeps cuDNN's plan of a backward pass for the next
        # one of these shapes, however that one's upstream gradient lies, and then all gradients are noise.
        flowing[name] = torch.zeros_like(_rows(value, length))
        flowing[name][..., :first, :] = _rows(value, first)
    results = problem.run(module, [_rows(x, length) for x in problem.inputs], gradients=True, upstream=flowing)
    per_row = {*problem.upstream, *(f"grad {name}" for name in problem.names)}
    return {
        name: value if value is None or name not in per_row else _rows(value, first) for name, value in results.items()
    }


_CUT = CaseSpace(  # cut at every eighth length up to the drawn one
    regimes=(*ORDINARY, "same_sign_v"),
    layouts=("contiguous", "transposed"),
    min_seq_len=257,
    max_seq_len=600,
    max_scores=2**19,
    max_batch_size=3,
    max_heads=4,
    head_sizes=(8, 64, 128, 16, 32, 80, 96),
)
_FURTHER = {"min_seq_len": 1089, "max_seq_len": 1100, "max_batch_size": 1, "max_heads": 1}

CHECKS = (Check.of("lengths", lengths, _CUT, slow=True, extra_case=_FURTHER),)
