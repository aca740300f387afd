"""What a script of one case needs, which has torch and the two sides alone: how each is built and called, and from what."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.cases.config import CaseConfig
from equivcheck.errors import UsageError
from equivcheck.pairs.forward import is_adapted, three_times
from equivcheck.pairs.loading import load
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

__all__ = ["Call", "Drawn", "Facts", "facts_of", "refusal"]

_DIGITS = 12  # of a factor and of a shift
_PLAIN = (bool, int, float, str, type(None))


def refusal(why: str) -> UsageError:
    """The error for a case of which no script can be written."""
    return UsageError(f"no script can be written of this case: {why}; replay it without --script")


@dataclass(frozen=True)
class Drawn:
    """A tensor as a line through random numbers: `factor` times those of this purpose, plus `shift`."""

    purpose: str
    shape: tuple[int, ...]
    factor: float
    shift: float


@dataclass(frozen=True)
class Call:
    """The arguments of a constructor, or of a function behind q, k and v, as source text."""

    positional: tuple[str, ...]
    named: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a script needs.

    Attributes:
        case: The case.
        device: The device.
        function: Whether the sides are functions.
        sides: The import strings of the original and the candidate.
        calls: How each is built; of functions, the options of its call.
        config: The fields of the config that a constructor has read.
        weights: The parameters of the original by name.
        inputs: The inputs.
        upstream: The gradient of the output.
        three: Whether forward of each side takes the input as queries, keys and values.
        heads_last: Whether functions take (B, T, H, D).
    """

    case: Case
    device: str
    function: bool
    sides: tuple[str, str]
    calls: tuple[Call, Call]
    config: Mapping[str, Any]
    weights: Mapping[str, Drawn]
    inputs: tuple[Drawn, ...]
    upstream: Drawn
    three: tuple[bool, bool]
    heads_last: bool


@dataclass
class _Spy:
    """A side that records its last call, and which fields of a config it reads."""

    target: Callable[..., Any]
    read: set[str]
    last: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def spied(self) -> Callable[..., Any]:
        """The side with the same signature and name."""

        @functools.wraps(self.target, updated=())
        def called(*given: Any, **named: Any) -> Any:
            watched = tuple(_watched(value, self.read) for value in given)
            self.last[:] = [(given, named)]
            return self.target(*watched, **{name: _watched(value, self.read) for name, value in named.items()})

        return called


class _WatchedConfig(CaseConfig):
    """A config that records which fields are read."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and name != "value_of":
            super().__getattribute__("__dict__")["_read"].add(name)
        return value

    def __getattr__(self, name: str) -> Any:
        value = CaseConfig.__getattr__(self, name)
        self.__dict__["_read"].add(name)
        return value


def _watched(value: Any, read: set[str]) -> Any:
    if type(value) is not CaseConfig:
        return value
    watched = object.__new__(_WatchedConfig)
    watched.__dict__.update({field.name: getattr(value, field.name) for field in fields(value)}, _read=read)
    return watched


def facts_of(pair: Pair, given: Mapping[str, Any], case: Case) -> Facts:
    """The facts of a case.

    Args:
        pair: The pair.
        given: The arguments by which it was resolved.
        case: The case.

    Raises:
        UsageError: No script can be written of it.
    """
    sides = given["reference"], given["candidate"]
    if not all(isinstance(side, str) for side in sides):
        raise refusal("the sides have no import strings")
    if pair.kind not in ("module", "function"):
        raise refusal(f"it is of a {pair.kind}, and scripts are of modules and functions")
    if used := [name for name, value in given["adaptation"].items() if value is not None and name != "config"]:
        raise refusal(f"the pair needs --{used[0]}")
    if case.training and (case.attn_pdrop or case.resid_pdrop):
        raise refusal("dropout is random")
    for name, plain in (("steps", ""), ("mask", ""), ("layout", "contiguous")):
        if getattr(case, name) != plain:
            raise refusal(f"its {name} is {getattr(case, name)!r}, and a script knows {plain or 'none'!r}")
    read: set[str] = set()
    spies = [_Spy(load(side), read) for side in sides]
    spied = resolve(**{**given, "reference": spies[0].spied(), "candidate": spies[1].spied(), "kind": pair.kind})
    if spied.transfer is not None:
        raise refusal("the candidate has other names of parameters")
    problem, exact = spied.problem(case), spied.problem(case.but(dtype="float64"))
    modules = problem.reference, problem.candidate
    for module in modules:  # the last calls that the spies record are these
        problem.run(module, problem.inputs, gradients=False)
    function = spied.traits.function
    calls = tuple(_call(spy, function=function) for spy in spies)
    parameters = {} if function else dict(modules[0].named_parameters())
    inputs = zip(exact.inputs, problem.inputs, "qkv" if function else "x", strict=True)
    result = "upstream output"
    return Facts(
        case=case,
        device=str(pair.device),
        function=function,
        sides=sides,
        calls=(calls[0], calls[1]),
        config=_read_fields(case, read),
        weights={
            name: _drawn(value, parameters[name], case, name) for name, value in exact.reference.named_parameters()
        }
        if parameters
        else {},
        inputs=tuple(_drawn(value, rounded, case, name) for value, rounded, name in inputs),
        upstream=_drawn(exact.upstream["output"], problem.upstream["output"], case, result),
        three=(_three(modules[0]), _three(modules[1])),
        heads_last=spied.heads_last,
    )


def _call(spy: _Spy, *, function: bool) -> Call:
    given, named = spy.last[-1]
    if function:
        given = given[3:]
    return Call(tuple(map(_source, given)), {name: _source(value) for name, value in named.items()})


def _source(value: Any) -> str:
    """A value as source text."""
    if isinstance(value, CaseConfig):
        return "config"
    if not isinstance(value, _PLAIN):
        raise refusal(f"a side is given {type(value).__name__}, which has no source text")
    return repr(value)


def _read_fields(case: Case, read: set[str]) -> dict[str, Any]:
    config = case.config()
    return {name: value for name in sorted(read) if isinstance(value := getattr(config, name), _PLAIN)}


def _drawn(exact: Tensor, rounded: Tensor, case: Case, purpose: str) -> Drawn:
    """A tensor as a line through its random numbers.

    Args:
        exact: The tensor of the same case in float64.
        rounded: The tensor itself.
        case: The case.
        purpose: The purpose of its random numbers.

    Raises:
        UsageError: It is no such line, as in regimes that repeat or leave out positions.
    """
    shape, value = tuple(exact.shape), exact.detach().cpu()
    flat = (shape[0] * shape[1], *shape[2:]) if len(shape) == 4 else shape  # as heads are drawn
    numbers = torch.randn(flat, generator=generator(case, purpose), dtype=torch.float64).view(shape)
    centred = numbers - numbers.mean()
    if spread := float((centred**2).sum()):
        factor = _short(float((centred * (value - value.mean())).sum()) / spread)
        shift = float((value - factor * numbers).mean())
        # the factor's last digit moves the mean by less
        shift = _short(shift) if abs(shift) > 10.0**-_DIGITS * abs(factor) * float(numbers.abs().max()) else 0.0
    else:
        factor, shift = float(value.mean() / numbers.mean()), 0.0
    line, given = (numbers * factor + shift).to(rounded.dtype).double(), rounded.detach().cpu().double()
    # the last digits, and one rounding, which they may turn to the neighbouring number
    digits = 10.0 ** (1 - _DIGITS) * (abs(factor) * float(numbers.abs().max()) + abs(shift))
    if bool(((line - given).abs() > digits + torch.finfo(rounded.dtype).eps * given.abs()).any()):
        raise refusal(f"{purpose} is no multiple of random numbers in the regime {case.regime!r}")
    return Drawn(purpose, shape, factor, shift)


def _short(x: float) -> float:
    return float(f"{x:.{_DIGITS}g}")


def _three(module: nn.Module) -> bool:
    """Whether forward takes the input three times."""
    if not is_adapted(module):
        return False
    inputs = module.forward.args[1]  # type: ignore[attr-defined]  # a partial: see `adapt_module`
    if inputs is not None and inputs is not three_times:
        raise refusal("forward needs other arguments than the input")
    return inputs is not None
