"""Modes as a state machine: after any switches and changes, in any order, the candidate behaves as the original does.

A case carries its steps, a letter each, so that Hypothesis draws and shrinks them and an id replays them. A call
follows each step, as between the switches of a real training. A forward and backward pass at the end is compared.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.findings import finding, is_passed_over
from equivcheck.checks.base.inference import called_in_inference_mode
from equivcheck.checks.base.spaces import ORDINARY
from equivcheck.checks.base.within import within
from equivcheck.checks.dropout.dropout import generator_is_used
from equivcheck.checks.dropout.exact import compare_exactly, forward, must_open
from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.checks.dropout.nothing_drops import compare_where_nothing_drops
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import ensure_foreign, foreign
from equivcheck.runtime.rng import seeded

__all__ = ["STEPS", "modes"]


@dataclass(frozen=True)
class _Now:
    """The problem at one step, and the names of the dropouts that both modules have."""

    problem: Problem
    dropouts: tuple[str, ...]


Action = Callable[[_Now, nn.Module], nn.Module | None]


def _rate(which: slice, rate: float) -> Action:
    def do(now: _Now, module: nn.Module) -> None:
        for name in now.dropouts[which]:
            module.get_submodule(name).p = rate  # type: ignore[assignment]  # to torch, a tensor or module

    return do


def _toggled(which: slice) -> Action:
    def do(now: _Now, module: nn.Module) -> None:
        for name in now.dropouts[which]:
            drop = module.get_submodule(name)
            drop.train(not drop.training)

    return do


def _weights(now: _Now, module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.75)


def _reloaded(now: _Now, module: nn.Module) -> None:
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()})


def _copied(now: _Now, module: nn.Module) -> nn.Module:
    # without autograd: tensors that a pass with autograd leaves in a module, even the original, cannot be copied
    _called(now, module)
    return copy.deepcopy(module)


def _called(now: _Now, module: nn.Module) -> None:
    with seeded(now.problem.case.seed, now.problem.device):
        forward(now.problem, module, now.problem.inputs, gradients=False)


def _inferred(now: _Now, module: nn.Module) -> None:
    with seeded(now.problem.case.seed, now.problem.device):
        called_in_inference_mode(now.problem, module)


def _trained(now: _Now, module: nn.Module) -> None:
    now.problem.run(module, now.problem.inputs, gradients=True)


def _moved(now: _Now, module: nn.Module) -> None:
    module.to("cpu").to(now.problem.device)


STEPS: dict[str, tuple[str, Action]] = {
    "e": ("eval()", lambda _, m: m.eval()),
    "t": ("train()", lambda _, m: m.train()),
    "f": ("a forward and backward pass", _trained),
    "n": ("a call under no_grad", _called),
    "i": ("a call in inference mode", _inferred),
    "a": ("the first dropout's p = 0.6", _rate(slice(0, 1), 0.6)),
    "b": ("the last dropout's p = 0.3", _rate(slice(-1, None), 0.3)),
    "z": ("every dropout's p = 0", _rate(slice(None), 0.0)),
    "o": ("the first dropout's mode switched alone", _toggled(slice(0, 1))),
    "p": ("the last dropout's mode switched alone", _toggled(slice(-1, None))),
    "w": ("weights times 0.75", _weights),
    "r": ("its own state loaded", _reloaded),
    "c": ("deepcopy", _copied),
    "m": ("moved to the CPU and back", _moved),
    "d": ("double()", lambda _, m: m.double()),
    "h": ("the first half of the sequence", lambda _, m: m),
    "l": ("the whole sequence", lambda _, m: m),
    "s": ("the first sample alone", lambda _, m: m),
}
"""Description and action of each step, by its letter in a case id; an action that returns None keeps the module."""


_CALLS = "fnic"


def _problem_now(whole: Problem, done: str) -> Problem:
    """The problem after the steps `done`: cut, or in float64."""
    case = whole.case
    halved = done.rfind("h") > done.rfind("l")
    length = whole.part_of_length(max(1, case.seq_len // 2)) if halved else case.seq_len
    samples = 1 if "s" in done and whole.allows(batch_size=1) else case.batch_size
    dtype = "float64" if "d" in done else case.dtype

    def cut(x: Tensor) -> Tensor:
        x = x[:samples, :length] if x.dim() > 1 else x
        return x.to(getattr(torch, dtype)) if x.is_floating_point() else x

    return replace(
        whole,
        case=case.but(seq_len=length, batch_size=samples, dtype=dtype),
        inputs=tuple(cut(x) for x in whole.inputs),
        upstream={name: cut(g) for name, g in whole.upstream.items()},
    )


_ACTS = frozenset("abzoprcmd")
"""Steps beyond switching, calling and training a whole module: on one submodule, a state_dict, a copy, a conversion."""


def modes(pair: Pair, case: Case) -> CaseResult:
    """After any switches and changes, in any order, the candidate behaves as the original does."""
    whole = "".join(letter for letter in case.steps if letter not in _ACTS)
    if whole == case.steps:
        return _stepped_through(pair, case)
    if is_passed_over("acts"):
        return _stepped_through(pair, case.but(steps=whole))
    try:
        return _stepped_through(pair, case)
    except Mismatch:
        _stepped_through(pair, case.but(steps=whole))  # a difference without these steps is not theirs
        with finding("acts"):
            raise


def _stepped_through(pair: Pair, case: Case) -> CaseResult:
    """The result after the steps of a case."""
    description = ", ".join(STEPS[letter][0] for letter in case.steps)
    description = f"after {description}, with a call after each" if description else "as built"
    with within(description, plain=True):
        try:
            must_open(pair, case)
            return _after(pair.problem(case), _exactly)
        except NotOpened as error:
            exact = _after(pair.problem(case), compare_where_nothing_drops)
            result = _after(pair.problem(pair.inside(case.but(**small_sizes(case)))), compare_moments)
            note = f"masks cannot be read off, and modes with dropout were judged by distributions alone: {error}"
            return CaseResult.together((exact, replace(result, notes=(*result.notes, note))))


def _exactly(problem: Problem, reference: nn.Module, candidate: nn.Module) -> CaseResult:
    return compare_exactly(problem, candidate)[0]


def _after(whole: Problem, judge: Callable[[Problem, nn.Module, nn.Module], CaseResult]) -> CaseResult:
    """The result of `judge` after both modules have gone through the case's steps."""
    names = {
        name
        for name, m in candidate_run(whole, lambda m: m, reference=whole.make_reference).named_modules()
        if isinstance(m, nn.Dropout)
    }
    dropouts = tuple(n for n, m in whole.reference.named_modules() if isinstance(m, nn.Dropout) and n in names)
    steps = whole.case.steps

    def stepped(module: nn.Module) -> nn.Module:
        for number, letter in enumerate(steps):
            now = _Now(_problem_now(whole, steps[: number + 1]), dropouts)
            with foreign():
                module = STEPS[letter][1](now, module) or module
            if letter not in _CALLS:
                _called(now, module)  # state that a call leaves behind shows in the next one
        return module

    problem = replace(_problem_now(whole, steps), make_reference=lambda: stepped(whole.make_reference()))
    try:
        reference = problem.make_reference()
    except Exception as error:  # the candidate need not do it either
        ensure_foreign(error)
        return CaseResult(notes=(f"not judged where the original raises {type(error).__name__}",), judged=False)
    candidate = candidate_run(
        whole, lambda _: stepped(whole.another_candidate()), reference=lambda: stepped(whole.make_reference())
    )
    result = judge(problem, reference, candidate)
    generator_is_used(problem, reference, candidate)
    return result


_RATES = (0.1, 0.25, 0.5)
_STEPPED = CaseSpace(
    max_seq_len=24,
    max_batch_size=2,
    max_heads=3,
    max_head_size=16,
    regimes=ORDINARY,
    layouts=("contiguous", "transposed"),
    rates=_RATES,
    train_rates=_RATES,
    steps="".join(STEPS),
)

CHECKS = (Check.of("modes", modes, _STEPPED),)
