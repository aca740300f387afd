"""A random result held exactly: the candidate's own dropout masks, put into the oracle, for outputs and all gradients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.dropout.masks import Masks, Recovery, inject
from equivcheck.errors import NotOpened, ToolError
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.runtime.rng import generator_state, seeded, set_generator_state

__all__ = ["compare_exactly", "compare_under_masks", "forward", "must_open", "read_masks", "under_masks"]


_SAME = 2.0**-30  # of the largest value: far above rounding in float64, far below another mask


def forward(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], *, gradients: bool) -> dict[str, Tensor]:
    """Named outputs of one forward pass as `Problem.run` makes it, from wherever the generators are."""
    leaves = [x.detach().requires_grad_(gradients) if x.is_floating_point() else x for x in inputs]
    with torch.set_grad_enabled(gradients):
        return problem.outputs(module, leaves)


def must_open(pair: Pair, case: Case) -> None:
    """Raises NotOpened where masks cannot be read off the candidate, or put into the original.

    Tried out at rates of 0, where what is read off is known; and on the original at the case's rates, where no other
    random numbers may be drawn than those that masks stand for.
    """
    # of two heads and channels at least: in a smaller one any order of channels looks right
    length = max(3, case.seq_len)
    sizes = {"n_head": max(2, case.n_head), "head_size": max(2, case.head_size), "seq_len": length}
    sizes["block_size"] = max(length, case.block_size)
    still = pair.problem(case.but(attn_pdrop=0.0, resid_pdrop=0.0, training=True, steps="", **sizes))
    _recovery(still, still.reference, gradients=False).must_open(length)
    candidate_run(still, lambda m: _recovery(still, m, gradients=False).must_open(length))
    short = min(case.seq_len, case.head_size)
    _must_take_masks(pair.problem(case.but(seq_len=short, dtype="float64", training=True, steps="")))


def _must_take_masks(problem: Problem) -> None:
    """Raises NotOpened where the original with its own masks put in is not what it is by itself, or draws other numbers."""
    try:
        masks = read_masks(problem, problem.reference, gradients=False)
        with seeded(problem.case.seed, problem.device):
            own = forward(problem, problem.reference, problem.inputs, gradients=False)
        with inject(masks, problem.reference, problem.case) as put, seeded(problem.case.seed, problem.device):
            before = generator_state(problem.device)
            put_in = forward(problem, problem.reference, problem.inputs, gradients=False)
            after = generator_state(problem.device)
    except (NotOpened, ToolError):
        raise
    except Exception as error:
        ensure_foreign(error)
        raise NotOpened(f"the original raises {type(error).__name__} in float64") from error
    dropped = [
        not bool(kept.diagonal(dim1=-2, dim2=-1).all()) for kept in masks.attention
    ]  # what each query always sees
    dropped += [not bool(kept.all()) for kept in masks.residual]
    ignored = [d and not rate for d, rate in zip(dropped, (*put.attention_rates, *put.residual_rates), strict=True)]
    if any(ignored) or not torch.equal(before, after):
        raise NotOpened("the original draws random numbers in a way of its own")
    for name, value in own.items():
        if not float((value - put_in[name]).abs().max()) <= _SAME * float(value.abs().max()):
            raise NotOpened("the original with its own masks put in gives another result: it drops in a way of its own")


def _recovery(problem: Problem, module: nn.Module, *, gradients: bool, calls: int = 0) -> Recovery:
    """Reads masks of the forward pass that comes after `calls` others from the case's generator state."""
    with seeded(problem.case.seed, problem.device):
        for _ in range(calls):
            forward(problem, module, problem.inputs, gradients=gradients)
        state = generator_state(problem.device)

    def run(inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        with seeded(problem.case.seed, problem.device):
            set_generator_state(problem.device, state)
            return forward(problem, module, inputs, gradients=gradients)

    return Recovery(problem.case, module, problem.inputs, run)


def read_masks(problem: Problem, module: nn.Module, *, gradients: bool, calls: int = 0) -> Masks:
    """The masks of a forward pass from the case's generator state, after `calls` others; raises NotOpened."""
    return _recovery(problem, module, gradients=gradients, calls=calls).masks(problem.case.seq_len)


def under_masks(problem: Problem, masks: Masks) -> Problem:
    """The same problem, whose oracle drops what `masks` say."""

    def around(original: nn.Module, device: torch.device) -> Any:
        return inject(masks.to(device), original, problem.case)

    return replace(problem, around_reference=around, memory=Memory(), memory_key="under masks")


def compare_under_masks(problem: Problem, got: Results) -> CaseResult:
    """Hold a candidate's results against the oracle of a problem with masks; raises NotOpened where they fit no dropout of it.

    Results of a run without gradients are its outputs alone.
    """
    gradients = any(name.startswith("grad ") for name in got)

    def own() -> Results:
        reference = problem.make_reference()
        with problem.within(reference):
            return problem.run(reference, problem.inputs, gradients=gradients)

    truth = problem.truth(gradients=True)
    return compare_all(problem, truth, got, own, dict.fromkeys((*truth.values, *got)) if gradients else got)


def compare_exactly(problem: Problem, candidate: nn.Module) -> tuple[CaseResult, Problem]:
    """Hold the candidate's results, with gradients and without, against the oracle under its own masks; raises NotOpened.

    Weights, modes and rates are those of the originals that the problem makes. Gives the problem with the masks, too.
    """
    helds: list[CaseResult] = []
    seen: list[tuple[Masks, Problem]] = []
    for gradients in (True, False):
        run = partial(problem.run, inputs=problem.inputs, gradients=gradients)
        original = partial(_of_original, problem, run)
        masks = candidate_run(problem, partial(_masks, problem, candidate, gradients), reference=original)
        got = candidate_run(problem, lambda _, run=run: run(candidate), reference=original)  # type: ignore[misc]
        # the masks are mostly the same, and the oracle with them
        masked = next((m for before, m in seen if before.same(masks)), None) or under_masks(problem, masks)
        seen.append((masks, masked))
        helds.append(compare_under_masks(masked, got))
    return CaseResult.worst(helds), seen[0][1]


def _masks(problem: Problem, candidate: nn.Module, gradients: bool, _: nn.Module) -> Masks:
    return read_masks(problem, candidate, gradients=gradients)


def _of_original(problem: Problem, run: Callable[[nn.Module], Results]) -> Results:
    return run(problem.make_reference())
