"""Runs of an original with every operation perturbed, from which a truth estimates the effect of rounding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivcheck.errors import NotOpened
from equivcheck.numerics.truth import Sample
from equivcheck.pairs.named_outputs import Shell
from equivcheck.pairs.sides import REFERENCE, running
from equivcheck.runtime import clock
from equivcheck.runtime.rng import seeded

if TYPE_CHECKING:  # `Problem` imports this module
    from equivcheck.pairs.problem import Problem

__all__ = ["Oracle", "in_turn", "oracle_in_turn", "oracle_together", "perturbed_runs"]


@dataclass(frozen=True)
class Oracle:
    """An original in float64, its inputs and upstream gradients, and its results without perturbation."""

    module: nn.Module
    inputs: Sequence[Tensor]
    upstream: Mapping[str, Tensor]
    values: dict[str, Tensor]


def in_turn(
    problem: "Problem",
    values: Mapping[str, Tensor],
    count: int,
    run: Callable[[torch.Generator], Mapping[str, Tensor | None]],
) -> Sample:
    """Perturbed runs, one after the other.

    Args:
        problem: The problem of the case, whose seed determines the errors.
        values: The original's results without perturbation, by name.
        count: The number of runs.
        run: One run, with the generator of its errors; it may return more names than `values` has.

    Returns:
        The deviations of the runs from `values`.
    """
    noise = _noise(problem, count)

    def deviations() -> dict[str, Tensor]:
        # a function: it frees the results of a run before the next one
        results = run(noise)
        return {name: _present(results[name]) - value for name, value in values.items()}

    with clock.in_part(clock.PERTURBED):
        runs = [deviations() for _ in range(count)]
        return Sample(count, {name: torch.stack([each[name] for each in runs]) for name in values})


def perturbed_runs(problem: "Problem", oracle: Oracle, count: int, *, gradients: bool) -> Sample:
    """Perturbed runs of a problem's oracle: all at once if its code allows that, else in turn.

    Args:
        problem: The problem of the case.
        oracle: The problem's oracle, after its run.
        count: The number of runs.
        gradients: Whether there is a backward pass as well.

    Returns:
        The deviations of the runs from the oracle's values.

    Raises:
        NotOpened: Dropout masks cannot be put into the original.
    """
    try:
        with clock.in_part(clock.PERTURBED):
            return oracle_together(problem, oracle, count, gradients=gradients)
    except NotOpened:
        raise
    except Exception:
        # vmap refuses code that depends on values or writes to buffers: such an original runs in a loop
        return oracle_in_turn(problem, oracle, count, gradients=gradients)


def oracle_in_turn(problem: "Problem", oracle: Oracle, count: int, *, gradients: bool) -> Sample:
    """Perturbed runs of a problem's oracle, one after the other."""
    module, given, flowing = oracle.module, oracle.inputs, oracle.upstream
    named = problem.named_inputs(given) | {f"upstream {n}": g for n, g in flowing.items()}

    def run(noise: torch.Generator) -> Mapping[str, Tensor | None]:
        unchanged = problem.guard.over(module, named)
        with running(REFERENCE), unchanged, problem.within(module, problem.judged_on), problem.rounding(noise, 1):
            return problem.run(module, given, gradients=gradients, upstream=flowing)

    return in_turn(problem, oracle.values, count, run)


def oracle_together(problem: "Problem", oracle: Oracle, count: int, *, gradients: bool) -> Sample:
    """Perturbed runs of a problem's oracle as one run with a leading dimension; the errors of the runs differ."""

    def repeated(x: Tensor) -> Tensor:
        return x.detach().expand(count, *x.shape).clone().requires_grad_(gradients)

    parameters = {name: repeated(p) for name, p in oracle.module.named_parameters() if p.requires_grad}
    leaves = [repeated(x) if x.is_floating_point() else x for x in oracle.inputs]
    shell = Shell(oracle.module, problem.outputs)

    def forward(weights: dict[str, Tensor], *given: Tensor) -> dict[str, Tensor]:
        inner = {f"inner.{name}": value for name, value in weights.items()}
        outputs: dict[str, Tensor] = torch.func.functional_call(shell, inner, given)
        return outputs

    dims = tuple(0 if x.is_floating_point() else None for x in oracle.inputs)
    flowing = torch.set_grad_enabled(gradients)
    around = problem.within(oracle.module, problem.judged_on)
    noise = _noise(problem, count)
    with around, seeded(problem.case.seed, problem.device), flowing, problem.rounding(noise, count):
        out = torch.func.vmap(forward, in_dims=(0, *dims), randomness="different")(parameters, *leaves)
        results = {name: value.detach() for name, value in out.items()}
        if gradients:
            named = dict(zip(problem.names, [x for x in leaves if x.is_floating_point()], strict=False))
            wanted = {f"grad {name}": leaf for name, leaf in (named | parameters).items()}
            roots = [(value, oracle.upstream[name]) for name, value in out.items() if name in oracle.upstream]
            grads = torch.autograd.grad(
                [value for value, _ in roots],
                list(wanted.values()),
                [gradient.expand(count, *gradient.shape) for _, gradient in roots],
                allow_unused=True,
            )
            results |= {name: g for name, g in zip(wanted, grads, strict=True) if g is not None}
    return Sample(count, {name: results[name] - value for name, value in oracle.values.items()})


def _noise(problem: "Problem", count: int) -> torch.Generator:
    """The generator of the errors of `count` runs: samples of other sizes have other errors."""
    return torch.Generator(device=problem.judged_on).manual_seed(problem.case.seed * 64 + count)


def _present(value: Tensor | None) -> Tensor:
    assert value is not None, "the original gave this tensor before and now it does not"
    return value
