"""A model before and after a replacement, object by object, and the changes between the two."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.patch_guard import classes_restored
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["REPLACED", "ModelSnapshot", "ReplacementRun", "alike", "listed", "replaced"]

REPLACED = TRANSFORMED.but(
    layouts=("contiguous",),
    min_seq_len=4,  # for a prefix that sees itself by an edited mask, and positions after it
    min_heads=2,  # so that another block may have one
    min_head_size=4,
    max_head_size=8,
    n_layers=(2, 3),
    training=False,
)

Prepare = Callable[[nn.Module], object]
_SHOWN = 3  # names that a message lists
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


@dataclass(frozen=True)
class ModelSnapshot:
    """The parts of a model at one time, by name; a shared part is under each of its names."""

    modules: Mapping[str, nn.Module]
    kinds: Mapping[str, type]
    forwards: Mapping[str, Any]
    parameters: Mapping[str, nn.Parameter]
    requires_grad: Mapping[str, bool]
    dtypes: Mapping[str, tuple[torch.dtype, torch.device]]
    values: Mapping[str, Tensor]
    modes: Mapping[str, bool]
    rates: Mapping[str, float]
    hooks: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, model: nn.Module) -> "ModelSnapshot":
        """The snapshot of a model as it is now; tensor values are copied."""
        modules = dict(model.named_modules(remove_duplicate=False))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        tensors: dict[str, Tensor] = {**parameters, **dict(model.named_buffers(remove_duplicate=False))}
        return cls(
            modules,
            {name: type(m) for name, m in modules.items()},
            {name: vars(m).get("forward") for name, m in modules.items()},
            parameters,
            {name: p.requires_grad for name, p in parameters.items()},
            {name: (t.dtype, t.device) for name, t in tensors.items()},
            {name: t.detach().clone() for name, t in tensors.items()},
            {name: m.training for name, m in modules.items()},
            {name: m.p for name, m in modules.items() if isinstance(m, nn.Dropout)},
            {name: tuple(h for kind in _HOOKS for h in vars(m).get(kind, {}).values()) for name, m in modules.items()},
        )

    def changed(self, after: "ModelSnapshot") -> list[str]:
        """The outermost modules that were replaced: another object, another class or another forward than before."""
        outermost: list[str] = []
        for name, module in self.modules.items():
            if any(name.startswith(f"{outer}.") for outer in outermost if outer):
                continue
            now = after.modules.get(name)
            same = (
                now is module and after.kinds[name] is self.kinds[name] and after.forwards[name] is self.forwards[name]
            )
            if not same:
                outermost.append(name)
        return outermost


@dataclass
class ReplacementRun:
    """One replacement of a model.

    Attributes:
        problem: The problem, with the prepared original.
        given: The model that the replacement was given.
        returned: The object that it returned.
        before: The model before the replacement.
        patched: The names of classes and functions that it changed.
        drawn: Whether it drew from the generator.
    """

    problem: Problem
    given: nn.Module
    returned: Any
    before: ModelSnapshot
    patched: list[str] = field(default_factory=list)
    drawn: bool = False

    @property
    def model(self) -> nn.Module:
        """The model after the replacement: the returned one, or the given one if no model was returned."""
        return self.returned if isinstance(self.returned, nn.Module) else self.given

    @property
    def after(self) -> ModelSnapshot:
        """The model as it is now."""
        return ModelSnapshot.of(self.model)

    def compare_all(self) -> CaseResult:
        """Compare outputs and gradients of the replaced model with the oracle, an original prepared in the same way.

        Raises:
            Mismatch: They differ.
        """
        problem = replace(self.problem, make_candidate=lambda _: self.model)
        candidate_results = candidate_run(problem, lambda model: problem.run(model, problem.inputs, gradients=True))
        truth = problem.truth(gradients=True)

        def run_reference() -> Results:
            return problem.run(problem.reference, problem.inputs, gradients=True)

        try:
            return compare_all(
                problem, truth, candidate_results, run_reference, dict.fromkeys((*truth.values, *candidate_results))
            )
        except Mismatch as error:
            message, separator, names = str(error).partition("\nand so are: ")
            if separator:
                message += separator + listed(names.split(", "))
            raise Mismatch(message, ratio=error.ratio, where=error.where, spot=error.spot) from None


def replaced(
    pair: Pair,
    case: Case,
    prepare: Prepare = lambda model: None,
    wrap: Prepare | None = None,
    *,
    rate: float = 0.0,
) -> ReplacementRun:
    """Build an original, prepare it, and have it replaced.

    Args:
        pair: The original and the replacement.
        case: The case.
        prepare: Changes the model before the replacement.
        wrap: Puts the prepared model into another module.
        rate: The dropout rates of the model. By default nothing drops, because other checks find a lost mode or rate.

    Returns:
        The replacement, with the model before and after it.

    Raises:
        Mismatch: The replacement raises.
    """
    plain = pair.problem(case.but(attn_pdrop=rate, resid_pdrop=rate))

    def make() -> nn.Module:
        model = plain.make_reference()
        prepare(model)
        if wrap is None:
            return model
        wrapped = wrap(model)
        assert isinstance(wrapped, nn.Module)
        return wrapped

    problem = replace(plain, make_reference=make, memory=Memory(), memory_key="prepared")
    given = make()
    before = ModelSnapshot.of(given)
    with warnings.catch_warnings(), seeded(case.seed, problem.device), classes_restored(given) as patched:
        warnings.simplefilter("ignore")
        state = generator_state(problem.device)
        try:
            with exits_as_errors(), foreign(CANDIDATE):
                returned = pair.candidate(given)
        except Exception as error:
            ensure_foreign(error)
            text = " ".join(str(error).split())[:300]
            raise Mismatch(
                f"the replacement raises {type(error).__name__}: {text}", where=type(error).__name__
            ) from error
        drawn = not torch.equal(state, generator_state(problem.device))
    return ReplacementRun(problem, given, returned, before, patched, drawn)


def listed(names: list[str]) -> str:
    """The first names of a list, and the number of the others."""
    shown = ", ".join(name or "the model itself" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def alike(names: list[str]) -> list[list[str]]:
    """Groups of two or more names that differ in the number of a layer alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "#", name), []).append(name)
    return [group for pattern, group in groups.items() if "#" in pattern and len(group) > 1]
