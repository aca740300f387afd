"""Lengths: one long sequence is cut at every eighth length and around the edges of tiles, and each prefix is run by itself.

The oracle is asked twice, whatever the number of lengths. In a causal attention the first rows of the long sequence are the
outputs of the prefix; and where nothing flows back into what follows a short beginning, the gradients are those of the
beginning alone, however long the sequence is that it stands in.
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

_STRIDE = 8  # what is wrong at eight lengths in a row is met by every single case
_TILE = 64
_FAR = 600  # beyond it one case in each dtype is sure: `_CUT` in `checks`
_BEGINNINGS = range(8, 49)  # which gradients flow back into: of a single key there is none
_MOVED = 2.0**-20  # of the largest value, in float64


def lengths(pair: Pair, case: Case) -> CaseResult:
    """Of one long sequence, every eighth prefix and those around the edges of tiles give the oracle's outputs and gradients."""
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=bool(problem.names))
    truth = problem.truth(gradients=bool(problem.names))
    names = [name for name in truth.values if name != "loss" and not name.startswith("grad ")]
    cuts = lengths_of(case)
    beginning = first_positions(problem, min(case.seq_len, _BEGINNINGS[case.seed % len(_BEGINNINGS)]))
    if not _is_causal(beginning, truth, names):
        return CaseResult(
            notes=("the original's outputs depend on what follows: prefixes were not compared",), judged=False
        )

    def sweep(module: nn.Module) -> list[tuple[int, Results, Results | None]]:
        return [
            (length, _forward(problem, module, length), _backward(problem, module, length, beginning))
            for length in cuts
        ]

    helds = []
    for length, forward, backward in candidate_run(problem, sweep):
        with within(f"the first {length} of {case.seq_len} positions alone"):
            shown = _first_rows(truth, names, length)

            def own(length: int = length) -> Results:
                return _forward(problem, problem.reference, length)

            def own_backward(length: int = length) -> Results:
                return _backward(problem, problem.reference, length, beginning) or {}

            helds.append(compare_all(problem, shown, forward, own, names))
            if backward is not None:
                short = beginning.truth(gradients=True)
                helds.append(compare_all(beginning, short, backward, own_backward, tuple(short.values)))
    helds.append(_whole(problem, truth))
    return CaseResult.together(helds)


def lengths_of(case: Case) -> Sequence[int]:
    """The lengths at which the sequence of a case is cut, in an order that comes from its seed."""
    top = case.seq_len
    found = {length for length in range(1, top + 1) if length % _STRIDE == case.seed % _STRIDE}
    found |= {edge + step for edge in range(_TILE, top + _TILE, _TILE) for step in (-1, 0, 1)}
    if top > _FAR:  # long ones are dear, and what lies below is cut in the other cases
        found = {length for length in range(_FAR + 1, top) if length % _TILE == 1 or length % (10 * _STRIDE) == 0}
    ordered = sorted(length for length in found | {top} if length <= top)
    # from one length to another in no order: what is kept from one of them shows in the next
    return [ordered[at] for at in torch.randperm(len(ordered), generator=generator(case, "lengths")).tolist()]


def _whole(problem: Problem, truth: Truth) -> CaseResult:
    """Outputs and all gradients of the whole sequence: no other check has several heads or samples at such lengths."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=bool(problem.names))

    got = candidate_run(problem, run)
    return compare_all(problem, truth, got, lambda: run(problem.reference), tuple(truth.values))


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
    """Whether the original itself, in float64, gives for the beginning alone what it gives there in the whole."""
    alone = beginning.oracle_values(gradients=False)
    for name in names:
        there = _rows(truth.values[name], beginning.case.seq_len)
        if not float((alone[name] - there).abs().max()) <= _MOVED * float(there.abs().max()):
            return False
    return True


def _first_rows(truth: Truth, names: Sequence[str], length: int) -> Truth:
    """The truth of the first rows, and how far rounding may move them."""

    def perturbed(count: int) -> Sample:
        moved = truth.sample(refined=count == truth.many).deviations
        return Sample(count, {name: _rows(moved[name], length) for name in names})

    values = {name: _rows(truth.values[name], length) for name in names}
    return Truth(values, perturbed, first=truth.first, many=truth.many)


def _forward(problem: Problem, module: nn.Module, length: int) -> Results:
    return problem.run(module, [_rows(x, length) for x in problem.inputs], gradients=False)


def _backward(problem: Problem, module: nn.Module, length: int, beginning: Problem) -> Results | None:
    """The gradients of a prefix in which nothing flows back but into the beginning; None for what is shorter."""
    first = beginning.case.seq_len
    if length < first or not problem.names:
        return None
    flowing = {}
    for name, value in problem.upstream.items():
        flowing[name] = torch.zeros_like(_rows(value, length), memory_format=torch.contiguous_format)
        flowing[name][..., :first, :] = _rows(value, first)
    found = problem.run(module, [_rows(x, length) for x in problem.inputs], gradients=True, upstream=flowing)
    per_row = {*problem.upstream, *(f"grad {name}" for name in problem.names)}
    return {
        name: value if value is None or name not in per_row else _rows(value, first) for name, value in found.items()
    }


_CUT = CaseSpace(  # every eighth length up to the drawn one
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
