"""Memory layouts: the same values give the same outputs and gradients, however they lie in memory."""

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
    """Rows further apart than they are wide, as in a slice of a wider tensor."""
    store = torch.full(
        (*x.shape[:-1], x.shape[-1] + 3), 7.0 if x.is_floating_point() else 1, dtype=x.dtype, device=x.device
    )
    store[..., : x.shape[-1]] = x
    return store[..., : x.shape[-1]]


def _columns(x: Tensor) -> Tensor:
    """The last dimension strided, and the one before it dense."""
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
"""Values that repeat with a stride of 0; the last one is the upstream gradient of a sum."""


def layouts(pair: Pair, case: Case) -> CaseResult:
    """Strided, transposed, offset or expanded inputs and upstream gradients give the oracle's outputs and gradients."""
    problem = pair.problem(case.but(layout="contiguous"))
    results = [_compare_edited(problem, f"inputs: {name}", edit, lambda g: g) for name, edit in _SAME_VALUES.items()]
    if any(value.dim() for value in problem.upstream.values()):
        results += [
            _compare_edited(problem, f"upstream gradient: {name}", lambda x: x, edit)
            for name, edit in _SAME_VALUES.items()
        ]
        results += [
            _compare_edited(problem, f"inputs and upstream gradient: {name}", edit, edit)
            for name, edit in _SAME_VALUES.items()
        ]
        for name, edit in _REPEATED.items():
            repeated = _edited_problem(problem, lambda x: x, edit, f"upstream gradient: {name}")
            results.append(_compare_edited(repeated, f"upstream gradient: {name}", lambda x: x, lambda g: g))
    expanded = _edited_problem(problem, _REPEATED["one sample expanded"], lambda g: g, "inputs: expanded")
    results.append(_compare_edited(expanded, "inputs: one sample expanded", lambda x: x, lambda g: g))
    if len(problem.names) > 1:
        results.append(_one_buffer(problem))
        results += [_one_unlike_the_others(problem, at) for at in range(len(problem.inputs))]
    return CaseResult.together(results)


def _edited_problem(problem: Problem, edit_inputs: Edit, edit_upstream: Edit, name: str) -> Problem:
    """Another problem, with edited values and therefore another truth."""
    return replace(
        problem,
        inputs=_edited_inputs(problem, edit_inputs),
        upstream={key: edit_upstream(value) for key, value in problem.upstream.items()},
        memory_key=(problem.memory_key, name),
    )


def _edited_inputs(problem: Problem, edit: Edit) -> tuple[Tensor, ...]:
    """The inputs, edited; of a model only the ids, as targets come from a data loader."""
    edit = problem.as_user_sees(edit)
    if problem.names:
        return tuple(edit(x) for x in problem.inputs)
    return edit(problem.inputs[0]), *problem.inputs[1:]


def _compare_edited(problem: Problem, what: str, edit_inputs: Edit, edit_upstream: Edit) -> CaseResult:
    inputs = _edited_inputs(problem, edit_inputs)
    upstream = {name: problem.as_user_sees(edit_upstream)(value) for name, value in problem.upstream.items()}
    return _compare(problem, what, inputs, upstream)


def _compare(problem: Problem, what: str, inputs: tuple[Tensor, ...], upstream: Mapping[str, Tensor]) -> CaseResult:
    truth = problem.truth(gradients=True)

    def run_reference() -> Results:
        return problem.run(problem.reference, inputs, gradients=True, upstream=upstream)

    try:
        with within(what):
            candidate_results = candidate_run(
                problem, lambda m: problem.run(m, inputs, gradients=True, upstream=upstream)
            )
            return compare_all(
                problem, truth, candidate_results, run_reference, dict.fromkeys((*truth.values, *candidate_results))
            )
    except ReferenceRaises as error:
        return CaseResult(
            notes=(f"{what}: not judged where the original itself raises {kind_of(error)}",), judged=False
        )


def _one_unlike_the_others(problem: Problem, at: int) -> CaseResult:
    """Compare with one input in another layout than the rest: strides of one tensor do not fit all of them then."""
    ways = list(_SAME_VALUES)[1:]
    way = ways[(problem.case.seed + at) % len(ways)]
    inputs = list(problem.inputs)
    inputs[at] = problem.as_user_sees(_SAME_VALUES[way])(inputs[at])
    return _compare(problem, f"input {at + 1} of {len(inputs)} alone: {way}", tuple(inputs), problem.upstream)


def _one_buffer(problem: Problem) -> CaseResult:
    """Compare with inputs that are views of one buffer, as are slices of one projection of queries, keys and values."""
    width = max(x.shape[-1] for x in problem.inputs)
    if problem.device.type != "cpu":  # torch's kernels take it for granted there that each is aligned (`ALIGNED_BYTES`)
        per_alignment = ALIGNED_BYTES // problem.inputs[0].element_size()
        width = -(-width // per_alignment) * per_alignment
    axes = (1, 2) if problem.heads_last else (1, 1)  # as the user's functions get them
    given = [x.transpose(*axes) for x in problem.inputs]
    wide = torch.stack([F.pad(x, (0, width - x.shape[-1])) for x in given], dim=-2)
    inputs = tuple(part[..., : x.shape[-1]].transpose(*axes) for part, x in zip(wide.unbind(-2), given, strict=True))
    return _compare(problem, "inputs: views of one buffer", inputs, problem.upstream)


CHECKS = (Check.of("layouts", layouts, BATCHED),)
