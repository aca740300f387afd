"""What is done to a named part of both, both must follow: a hook, an adapter in a child's place, a field of the config."""

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
    """A low-rank adapter in the place of a module: what that gives, and a trained change of it."""

    def __init__(self, inner: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(down)  # (C, rank)
        self.up = nn.Parameter(up)  # (rank, C)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.inner(*args, **kwargs)  # (..., C)
        return y + y @ self.down @ self.up


def hooked(problem: Problem, module: nn.Module, name: str) -> None:
    """A forward hook on the submodule `name` that makes its result larger."""
    module.get_submodule(name).register_forward_hook(lambda _module, _args, out: out * _FACTOR)


def adapted(problem: Problem, module: nn.Module, name: str) -> None:
    """An adapter in the place of the submodule `name`, with random weights of its own."""
    path, _, last = name.rpartition(".")
    inner = module.get_submodule(name)
    parameter = next(inner.parameters())
    width = int(getattr(inner, "out_features", 0) or parameter.shape[0 if parameter.dim() == 1 else -1])

    def drawn(what: str, *shape: int) -> Tensor:
        draw = torch.randn(shape, generator=generator(problem.case, f"{what} of {name}"), dtype=torch.float64)
        return (0.5 * draw / math.sqrt(shape[0])).to(parameter)

    adapter = Adapter(inner, drawn("down", width, _RANK), drawn("up", _RANK, width))
    setattr(module.get_submodule(path), last, adapter.train(inner.training))


_CHANGES: dict[str, Change] = {"a forward hook": hooked, "an adapter": adapted}


def parts(module: nn.Module) -> list[str]:
    """The submodules that hold parameters of their own, by name."""
    return [
        name for name, sub in module.named_modules() if name and next(sub.parameters(recurse=False), None) is not None
    ]


def compare_modified(pair: Pair, problem: Problem) -> CaseResult:
    """Hold candidate and oracle after the same was done to both: to all parts at once, and where that shows, to each alone."""
    helds = []
    for what, change in _CHANGES.items():
        names = parts(problem.reference)
        if not _stands(problem, change, names):
            names = [name for name in names if _stands(problem, change, (name,))]
        if not names:
            continue
        try:
            helds.append(_compare_changed(problem, what, change, names))
        except Mismatch:
            for name in names:
                _compare_changed(problem, what, change, (name,))
            raise
    helds += [_compare_field(pair, problem.case, name, values) for name, values in _fields(problem.case.config())]
    return CaseResult.together(helds) if helds else CaseResult()


def _stands(problem: Problem, change: Change, names: Sequence[str]) -> bool:
    """Whether the original runs with the change: what reads the weights of a part cannot have it replaced."""

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
        # built as without the change: it is done to what is there
        make_candidate=lambda _: _changed(problem, problem.another_candidate(), change, names),
        memory_key=(problem.memory_key, where),
    )
    with within(where, where=names[0], plain=True):
        got = candidate_run(changed, lambda m: changed.run(m, changed.inputs, gradients=True))
        truth = changed.truth(gradients=True)

        def own() -> Results:
            return changed.run(changed.reference, changed.inputs, gradients=True)

        return compare_all(changed, truth, got, own, dict.fromkeys((*truth.values, *got)))


def _fields(config: Any) -> Iterator[tuple[str, list[Any]]]:
    """Each field of a config with other values that it may take, nearest first."""
    for name, value in vars(config).items():
        if isinstance(value, bool):
            yield name, [not value]
        elif isinstance(value, int):
            # past its block an original refuses, or does what `errors` looks at
            others = (value * 2,) if name == "block_size" else (value * 2, value - 1, value // 2, value + 1)
            yield name, [other for other in dict.fromkeys(others) if other > 0 and other != value]
        elif isinstance(value, float):
            yield name, [1.0]  # to drop everything is not random


def _compare_field(pair: Pair, case: Case, name: str, values: Sequence[Any]) -> CaseResult:
    """Where a field of the config moves the original's result, the candidate's is moved to where the oracle's is."""
    if isinstance(values[0], float):  # a rate: nothing else is to be dropped, and all that it drops
        case = case.but(training=True, attn_pdrop=0.0, resid_pdrop=0.0)
    plain = pair.problem(case)
    before = _result(plain, plain.reference)
    for value in values:
        rebuilt = pair.rebuilt(partial(with_field, vars(case.config()), name, value))
        try:
            changed = rebuilt.problem(case)
            own = _result(changed, changed.reference)
        except Exception as error:
            ensure_foreign(error)
            continue  # what the original refuses is asked of nobody
        if not _differ(own, before):
            continue
        told = f"with {name}={value} in the config, and {getattr(case.config(), name)} before"
        with within(told, where=name, plain=True):
            got = candidate_run(changed, partial(_result, changed))
            return compare_all(
                changed, changed.truth(gradients=False), got, partial(_result, changed, changed.reference), got
            )
    return CaseResult()


def with_field(given: dict[str, Any], name: str, value: Any, config: Any) -> Any:
    """The config with another value where it is the given one; a factory may also be tried with others."""
    changed = copy.copy(config)
    if vars(config) == given:
        setattr(changed, name, value)
    return changed


def _result(problem: Problem, module: nn.Module) -> Results:
    with seeded(problem.case.seed, problem.device):
        return dict(forward(problem, module, problem.inputs, gradients=False))
