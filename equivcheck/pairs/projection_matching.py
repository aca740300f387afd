"""A transfer found: where one projection stands against three, the ways in which it can hold them are tried, and one fits."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.names import OUT, role_of
from equivcheck.errors import UsageError
from equivcheck.pairs.weight_transfer import HOW_TO_TRANSFER, Transfer

__all__ = ["differs", "find_transfer"]

State = dict[str, Tensor]
_AGREES = 1e-9  # of the largest value, in float64
_CLEARLY = 0.3  # of the distance of the next best
_WORDS = {"q": "queries", "k": "keys", "v": "values"}


@dataclass(frozen=True)
class _Part:
    """One linear of an attention: which roles it makes, one after the other, and whether its weight is (in, out)."""

    weight: str
    bias: str | None
    roles: tuple[str, ...]
    flipped: bool


@dataclass(frozen=True)
class _Arrangement:
    """How one linear holds several: in which order of roles, and in which order of the axes role (r), head (h) and channel (d)."""

    roles: tuple[str, ...]
    axes: str

    @property
    def told(self) -> str:
        inner = {"rhd": "one after the other", "hrd": "head by head"}.get(self.axes, f"in the order {self.axes}")
        return f"{', '.join(_WORDS[r] for r in self.roles)}, {inner}"


_USUAL = _Arrangement(("q", "k", "v"), "rhd")


def differs(reference: nn.Module, candidate: nn.Module) -> bool:
    """Whether the parameters of the two have other names or shapes."""
    one, other = ({name: p.shape for name, p in m.named_parameters()} for m in (reference, candidate))
    return one != other


def find_transfer(
    reference: nn.Module,
    candidate: nn.Module,
    config: Any,
    distance: Callable[[Transfer], tuple[float, float]],
) -> Transfer | None:
    """The transfer by which the two agree; None where their structure is not one projection against several.

    `distance(transfer)` tells how far apart the two are on one token and on several, in shares of the largest value. Where
    none makes them agree, the one that is clearly nearest is taken, or the usual one where one token agrees: the candidate
    may be wrong. A UsageError where neither is.
    """
    mine = [_parts(owner, prefix, config.n_embd) for prefix, owner in _owners(candidate, config.n_embd)]
    its = [_parts(owner, prefix, config.n_embd) for prefix, owner in _owners(reference, config.n_embd)]
    if not its or len(its) != len(mine) or all(_alike(a, b) for a, b in zip(its, mine, strict=True)):
        return None
    others = _others(reference, candidate, its, mine)
    if others is None or _biased(its) != _biased(mine):
        return None
    scored: list[tuple[float, float, Transfer]] = []
    for arrangement in _arrangements(its + mine):
        transfer = Transfer(_Regrouped(its, mine, arrangement, others), f"with {arrangement.told}")
        single, several = distance(transfer)
        if max(single, several) <= _AGREES:
            return transfer
        scored.append((several, single, transfer))
    usual = scored[0]
    ranked = sorted(scored, key=lambda s: s[0])
    if len(ranked) == 1 or ranked[0][0] <= _CLEARLY * ranked[1][0]:
        return _unsure(ranked[0][2], "the nearest")
    if usual[1] <= _AGREES:
        return _unsure(usual[2], "the usual one")
    raise UsageError(
        f"the two hold the projections of queries, keys and values in other ways, and none of {len(scored)} ways to carry "
        f"the weights over makes them agree: {HOW_TO_TRANSFER}"
    )


def _unsure(transfer: Transfer, why: str) -> Transfer:
    told = f"{transfer.told} ({why} of the orders tried, none of which makes the two agree: if it is wrong, pass transfer=)"
    return replace(transfer, told=told)


def _owners(module: nn.Module, width: int) -> list[tuple[str, nn.Module]]:
    found = []
    for name, owner in module.named_modules():
        prefix = f"{name}." if name else ""
        roles = "".join(sorted(r for part in _parts(owner, prefix, width) for r in part.roles if r in "qkv"))
        if roles == "kqv":
            found.append((prefix, owner))
    return found


def _parts(owner: nn.Module, prefix: str, width: int) -> list[_Part]:
    """The linears of an attention, by the roles that their names and shapes tell."""
    parts, fused = [], []
    for name, child in owner.named_children():
        weight = getattr(child, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() != 2:
            continue
        flipped = not isinstance(child, nn.Linear) and hasattr(child, "nf")  # as the Conv1D of GPT-2 is
        bias = f"{prefix}{name}.bias" if getattr(child, "bias", None) is not None else None
        makes = weight.shape[1 if flipped else 0]
        role = role_of(name) or ("out" if OUT.match(name) and makes == width else "")
        if role:
            parts.append(_Part(f"{prefix}{name}.weight", bias, (role,), flipped))
        elif makes in (2 * width, 3 * width):
            fused.append((f"{prefix}{name}.weight", bias, flipped, makes // width))
    whole = getattr(owner, "in_proj_weight", None)
    if isinstance(whole, nn.Parameter):
        bias = f"{prefix}in_proj_bias" if getattr(owner, "in_proj_bias", None) is not None else None
        fused.append((f"{prefix}in_proj_weight", bias, False, 3))
    missing = tuple(r for r in "qkv" if all(r not in part.roles for part in parts))
    if len(fused) == 1 and fused[0][3] == len(missing):
        name, bias, flipped, _ = fused[0]
        parts.append(_Part(name, bias, missing, flipped))
    return parts


def _alike(one: Sequence[_Part], other: Sequence[_Part]) -> bool:
    def shape(parts: Sequence[_Part]) -> list[tuple[tuple[str, ...], bool]]:
        return sorted((p.roles, p.flipped) for p in parts)

    return shape(one) == shape(other)


def _biased(groups: Sequence[Sequence[_Part]]) -> list[list[str]]:
    return [sorted(role for part in group if part.bias for role in part.roles) for group in groups]


def _others(
    reference: nn.Module, candidate: nn.Module, its: Sequence[Sequence[_Part]], mine: Sequence[Sequence[_Part]]
) -> dict[str, str] | None:
    """Which of the candidate's other parameters is which of the reference's: of the same name, or the next of the same shape."""

    def rest(module: nn.Module, parts: Sequence[Sequence[_Part]]) -> dict[str, torch.Size]:
        used = {n for group in parts for part in group for n in (part.weight, part.bias)}
        return {name: p.shape for name, p in module.named_parameters() if name not in used}

    theirs, own = rest(reference, its), rest(candidate, mine)
    if list(theirs.values()) != list(own.values()):
        return None
    return dict(zip(theirs, own, strict=True)) if set(theirs) != set(own) else {name: name for name in theirs}


def _arrangements(groups: Sequence[Sequence[_Part]]) -> Iterator[_Arrangement]:
    widest = max((part.roles for group in groups for part in group), key=len)
    if len(widest) == 1:
        yield _USUAL
        return
    orders = list(itertools.permutations(widest))
    for axes in ("rhd", "hrd", "dhr", "drh", "rdh", "hdr"):
        for order in orders:
            yield _Arrangement(order, axes)


@dataclass(frozen=True)
class _Regrouped:
    """A transfer from the linears of one attention to those of another, which groups them otherwise."""

    reference: Sequence[Sequence[_Part]]
    candidate: Sequence[Sequence[_Part]]
    arrangement: _Arrangement
    others: Mapping[str, str]

    def __call__(self, state: State, config: Any) -> State:
        made = {mine: state[its] for its, mine in self.others.items()}
        for its, mine in zip(self.reference, self.candidate, strict=True):
            apart: dict[tuple[str, str], Tensor] = {}
            for part in its:
                for kind, name in (("weight", part.weight), ("bias", part.bias)):
                    if name is not None:
                        value = state[name].t() if part.flipped and kind == "weight" else state[name]
                        apart |= {(role, kind): x for role, x in self._apart(part, value, config).items()}
            for part in mine:
                for kind, name in (("weight", part.weight), ("bias", part.bias)):
                    if name is not None:
                        value = self._together(part, {r: apart[r, kind] for r in part.roles}, config)
                        made[name] = value.t() if part.flipped and kind == "weight" else value
        return made

    def _order(self, part: _Part) -> tuple[str, ...]:
        return tuple(r for r in self.arrangement.roles if r in part.roles) or part.roles

    def _apart(self, part: _Part, value: Tensor, config: Any) -> dict[str, Tensor]:
        if len(part.roles) == 1:
            return {part.roles[0]: value}
        sizes = {"r": len(part.roles), "h": config.n_head, "d": config.n_embd // config.n_head}
        axes = self.arrangement.axes
        split = value.reshape(*(sizes[a] for a in axes), *value.shape[1:])
        split = split.movedim([axes.index(a) for a in "rhd"], [0, 1, 2])
        return {role: split[i].reshape(config.n_embd, *value.shape[1:]) for i, role in enumerate(self._order(part))}

    def _together(self, part: _Part, values: Mapping[str, Tensor], config: Any) -> Tensor:
        if len(part.roles) == 1:
            return values[part.roles[0]]
        heads = (config.n_head, config.n_embd // config.n_head)
        stacked = torch.stack([values[role].reshape(*heads, *values[role].shape[1:]) for role in self._order(part)])
        axes = self.arrangement.axes
        placed = stacked.movedim([0, 1, 2], [axes.index(a) for a in "rhd"])
        return placed.reshape(-1, *placed.shape[3:])
