"""Memory layouts: the same values, however they lie in memory, give the same outputs and gradients, forward and backward."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.cases.case import ALIGNED_BYTES, Case, arrange
from equivcheck.checks.base.candidate_run import candidate_run, kind_of
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import BATCHED
from equivcheck.checks.base.within import within
from equivcheck.errors import ReferenceRaises
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["layouts"]

Edit = Callable[[Tensor], Tensor]


def _padded(x: Tensor) -> Tensor:
    """Rows that lie further apart than they are wide, as slices of a wider tensor do."""
    store = torch.full(
        (*x.shape[:-1], x.shape[-1] + 3), 7.0 if x.is_floating_point() else 1, dtype=x.dtype, device=x.device
    )
    store[..., : x.shape[-1]] = x
    return store[..., : x.shape[-1]]


def _columns(x: Tensor) -> Tensor:
    """The last dimension strided and the one before it dense."""
    return x.mT.contiguous().mT


_SAME_VALUES: Mapping[str, Edit] = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: arrange(x, "transposed"),
    "strided": lambda x: arrange(x, "strided"),
    "offset": lambda x: arrange(x, "offset"),
    "padded rows": _padded,
    "columns first": _columns,
}
"""Ways in which the same values can lie in memory."""

_REPEATED: Mapping[str, Edit] = {
    "one sample expanded": lambda x: x[:1].expand(x.shape),
    "one position expanded": lambda x: x[..., :1, :].expand(x.shape),
    "one number expanded": lambda x: x.reshape(-1)[:1].view([1] * x.dim()).expand(x.shape),
}
"""Values that repeat with a stride of 0; the last one is what flows back from a sum."""


def layouts(pair: Pair, case: Case) -> CaseResult:
    """Strided, transposed, offset and expanded inputs and upstream gradients give the oracle's outputs and gradients."""
    problem = pair.problem(case.but(layout="contiguous"))
    helds = [_hold(problem, f"inputs: {name}", edit, lambda g: g) for name, edit in _SAME_VALUES.items()]
    if any(value.dim() for value in problem.upstream.values()):
        helds += [
            _hold(problem, f"upstream gradient: {name}", lambda x: x, edit) for name, edit in _SAME_VALUES.items()
        ]
        helds += [
            _hold(problem, f"inputs and upstream gradient: {name}", edit, edit) for name, edit in _SAME_VALUES.items()
        ]
        for name, edit in _REPEATED.items():
            repeated = _edited(problem, lambda x: x, edit, f"upstream gradient: {name}")
            helds.append(_hold(repeated, f"upstream gradient: {name}", lambda x: x, lambda g: g))
    expanded = _edited(problem, _REPEATED["one sample expanded"], lambda g: g, "inputs: expanded")
    helds.append(_hold(expanded, "inputs: one sample expanded", lambda x: x, lambda g: g))
    if len(problem.names) > 1:
        helds.append(_one_buffer(problem))
        helds += [_one_unlike_the_others(problem, at) for at in range(len(problem.inputs))]
    return CaseResult.together(helds)


def _edited(problem: Problem, edit: Edit, flowing: Edit, name: str) -> Problem:
    """Another problem, with other values and therefore a truth of its own."""
    return replace(
        problem,
        inputs=_laid(problem, edit),
        upstream={key: flowing(value) for key, value in problem.upstream.items()},
        memory_key=(problem.memory_key, name),
    )


def _laid(problem: Problem, edit: Edit) -> tuple[Tensor, ...]:
    """The inputs, edited; of a model the ids alone, as targets come from a data loader."""
    if problem.names:
        return tuple(edit(x) for x in problem.inputs)
    return edit(problem.inputs[0]), *problem.inputs[1:]


def _hold(problem: Problem, what: str, edit: Edit, flowing: Edit) -> CaseResult:
    inputs = _laid(problem, edit)
    upstream = {name: flowing(value) for name, value in problem.upstream.items()}
    return _held(problem, what, inputs, upstream)


def _held(problem: Problem, what: str, inputs: tuple[Tensor, ...], upstream: Mapping[str, Tensor]) -> CaseResult:
    truth = problem.truth(gradients=True)

    def own() -> Results:
        return problem.run(problem.reference, inputs, gradients=True, upstream=upstream)

    try:
        with within(what):
            got = candidate_run(problem, lambda m: problem.run(m, inputs, gradients=True, upstream=upstream))
            return compare_all(problem, truth, got, own, dict.fromkeys((*truth.values, *got)))
    except ReferenceRaises as why:
        return CaseResult(notes=(f"{what}: not judged where the original itself raises {kind_of(why)}",), judged=False)


def _one_unlike_the_others(problem: Problem, at: int) -> CaseResult:
    """One input in another layout than the rest: strides that are taken from one tensor for all are wrong then."""
    ways = list(_SAME_VALUES)[1:]
    way = ways[(problem.case.seed + at) % len(ways)]
    inputs = list(problem.inputs)
    inputs[at] = _SAME_VALUES[way](inputs[at])
    return _held(problem, f"input {at + 1} of {len(inputs)} alone: {way}", tuple(inputs), problem.upstream)


def _one_buffer(problem: Problem) -> CaseResult:
    """Inputs that are views of one buffer, as slices of one projection of queries, keys and values are."""
    width = max(x.shape[-1] for x in problem.inputs)
    if (
        problem.device.type != "cpu"
    ):  # where each begins there is taken for granted by torch's own kernels (`ALIGNED_BYTES`)
        each = ALIGNED_BYTES // problem.inputs[0].element_size()
        width = -(-width // each) * each
    wide = torch.stack([F.pad(x, (0, width - x.shape[-1])) for x in problem.inputs], dim=-2)
    inputs = tuple(part[..., : x.shape[-1]] for part, x in zip(wide.unbind(-2), problem.inputs, strict=True))
    return _held(problem, "inputs: views of one buffer", inputs, problem.upstream)


CHECKS = (Check.of("layouts", layouts, BATCHED),)
