"""Modifications that both sides must follow: a hook on a named part, an adapter in its place, a field of the config."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.within import within
from equivcheck.checks.dropout.exact import forward
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import ensure_foreign, failure, foreign
from equivcheck.runtime.rng import seeded

__all__ = ["Adapter", "adapted", "compare_modified", "hooked", "parts", "with_field"]

_RANK = 2
_FACTOR = 1.25  # of a hook: exact in every dtype

Change = Callable[[Problem, nn.Module, str], None]


class Adapter(nn.Module):
    """A low-rank adapter in the place of a module: the module's result, and a trained change of it.

    Args:
        inner: The module, from (..., C) to (..., C).
        down: Weights (C, rank).
        up: Weights (rank, C).
    """

    def __init__(self, inner: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(down)  # (C, rank)
        self.up = nn.Parameter(up)  # (rank, C)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.inner(*args, **kwargs)  # (..., C)
        return y + y @ self.down @ self.up


def hooked(problem: Problem, module: nn.Module, name: str) -> None:
    """Put a forward hook on the submodule `name`; it makes the result larger."""
    module.get_submodule(name).register_forward_hook(lambda _module, _args, out: out * _FACTOR)


def adapted(problem: Problem, module: nn.Module, name: str) -> None:
    """Put an adapter with random weights in the place of the submodule `name`."""
    path, _, last = name.rpartition(".")
    inner = module.get_submodule(name)
    parameter = next(inner.parameters())
    width = int(getattr(inner, "out_features", 0) or parameter.shape[0 if parameter.dim() == 1 else -1])

    def drawn(what: str, *shape: int) -> Tensor:
        draw = torch.randn(shape, generator=generator(problem.case, f"{what} of {name}"), dtype=torch.float64)
        return (0.5 * draw / math.sqrt(shape[0])).to(parameter)

    adapter = Adapter(inner, drawn("down", width, _RANK), drawn("up", _RANK, width))
    setattr(module.get_submodule(path), last, adapter.train(inner.training))


_CHANGES: dict[str, tuple[str, Change]] = {"a forward hook": ("hooks", hooked), "an adapter": ("adapters", adapted)}
"""A change in words -> the finding that it can have, and what makes it."""


def parts(module: nn.Module) -> list[str]:
    """The submodules that hold parameters of their own, by name."""
    return [
        name for name, sub in module.named_modules() if name and next(sub.parameters(recurse=False), None) is not None
    ]


def compare_modified(pair: Pair, problem: Problem) -> CaseResult:
    """Compare candidate and oracle after the same modification of both.

    A modification is made to all parts at once. If the results differ, it is made to each part alone, so that the
    message names one part.

    Raises:
        Mismatch: The candidate does not follow a modification.
    """
    results = []
    there = {name for name, _ in problem.candidate.named_modules()}
    for what, (name_of_finding, change) in _CHANGES.items():
        names = [name for name in parts(problem.reference) if name in there]  # others are a finding of their own
        if not names:
            continue
        if not _stands(problem, change, names):
            names = [name for name in names if _stands(problem, change, (name,))]
        if not names:
            continue
        with finding(name_of_finding):
            try:
                results.append(_compare_changed(problem, what, change, names))
            except Mismatch:
                for name in names:
                    _compare_changed(problem, what, change, (name,))
                raise
    with finding("config"):
        results += [_compare_field(pair, problem.case, name, values) for name, values in _fields(problem.case.config())]
    return CaseResult.together(results) if results else CaseResult()


def _stands(problem: Problem, change: Change, names: Sequence[str]) -> bool:
    """Whether the original runs with the change: it may read the weights of a part, which then cannot be replaced."""

    def run() -> None:
        with foreign():
            problem.run(_changed(problem, problem.make_reference(), change, names), problem.inputs, gradients=False)

    return failure(run) is None


def _differ(one: Results, other: Results) -> bool:
    return any(
        value is not None and not torch.equal(torch.nan_to_num(value), torch.nan_to_num(other[name]))  # type: ignore[arg-type]
        for name, value in one.items()
    )


def _changed(problem: Problem, module: nn.Module, change: Change, names: Sequence[str]) -> nn.Module:
    for name in names:
        change(problem, module, name)
    return module


def _compare_changed(problem: Problem, what: str, change: Change, names: Sequence[str]) -> CaseResult:
    where = f"with {what} on {', '.join(names)}"
    changed = replace(
        problem,
        make_reference=lambda: _changed(problem, problem.make_reference(), change, names),
        # built without the change, and changed afterwards
        make_candidate=lambda _: _changed(problem, problem.another_candidate(), change, names),
        memory_key=(problem.memory_key, where),
    )
    with within(where, where=names[0], plain=True):
        candidate_results = candidate_run(changed, lambda m: changed.run(m, changed.inputs, gradients=True))
        truth = changed.truth(gradients=True)

        def run_reference() -> Results:
            return changed.run(changed.reference, changed.inputs, gradients=True)

        compared = dict.fromkeys((*truth.values, *candidate_results))
        return compare_all(changed, truth, candidate_results, run_reference, compared)


def _fields(config: Any) -> Iterator[tuple[str, list[Any]]]:
    """Each field of a config, with other values that it may take, nearest first."""
    for name, value in vars(config).items():
        if isinstance(value, bool):
            yield name, [not value]
        elif isinstance(value, int):
            # an original refuses sequences past its block, or the check `errors` looks at them
            others = (value * 2,) if name == "block_size" else (value * 2, value - 1, value // 2, value + 1)
            yield name, [other for other in dict.fromkeys(others) if other > 0 and other != value]
        elif isinstance(value, float):
            yield name, [1.0]  # dropping everything is not random


def _compare_field(pair: Pair, case: Case, name: str, values: Sequence[Any]) -> CaseResult:
    """Compare results under the first value of a config field that changes the original's result."""
    if isinstance(values[0], float):  # a rate: nothing else drops, and this one drops everything
        case = case.but(training=True, attn_pdrop=0.0, resid_pdrop=0.0)
    plain = pair.problem(case)
    unchanged_results = _result(plain, plain.reference)
    for value in values:
        if not _inside(pair, case, name, value):
            continue
        rebuilt = pair.rebuilt(partial(with_field, vars(case.config()), name, value))
        try:
            changed = rebuilt.problem(case)
            reference_results = _result(changed, changed.reference)
        except Exception as error:
            ensure_foreign(error)
            continue  # the candidate may refuse a value that the original refuses
        if not _differ(reference_results, unchanged_results):
            continue
        description = f"with {name}={value} in the config, and {getattr(case.config(), name)} before"
        with within(description, where=name, plain=True):
            candidate_results = candidate_run(changed, partial(_result, changed))
            return compare_all(
                changed,
                changed.truth(gradients=False),
                candidate_results,
                partial(_result, changed, changed.reference),
                candidate_results,
            )
    return CaseResult()


def _inside(pair: Pair, case: Case, name: str, value: Any) -> bool:
    """Whether the case is in the domain with the heads that another value of a field of its config makes."""
    width, heads = case.n_head * case.head_size, case.n_head
    heads, width = (value if name == "n_head" else heads), (value if name == "n_embd" else width)
    if not pair.domain or name not in ("n_head", "n_embd") or width % heads:
        return True
    return pair.domain.allows(case.but(n_head=heads, head_size=width // heads))


def with_field(given: dict[str, Any], name: str, value: Any, config: Any) -> Any:
    """A copy of a config, with another value of one field if the config has the `given` fields.

    A factory may also be tried with other configs; those stay as they are.
    """
    changed = copy.copy(config)
    if vars(config) == given:
        setattr(changed, name, value)
    return changed


def _result(problem: Problem, module: nn.Module) -> Results:
    with seeded(problem.case.seed, problem.device):
        return dict(forward(problem, module, problem.inputs, gradients=False))
