"""The search for a transfer between one projection and several: the possible arrangements are tried until one fits."""

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
_AGREES = 1e-9  # relative to the largest value, in float64
_CLEARLY = 0.3  # relative to the distance of the second best
_WORDS = {"q": "queries", "k": "keys", "v": "values"}


@dataclass(frozen=True)
class _Part:
    """One linear layer of an attention: the roles that it computes, in order, and whether its weight is (in, out)."""

    weight: str
    bias: str | None
    roles: tuple[str, ...]
    flipped: bool


@dataclass(frozen=True)
class _Arrangement:
    """The arrangement of several roles in one linear layer.

    Attributes:
        roles: The roles in order.
        axes: The order of the axes role (r), head (h) and channel (d).
    """

    roles: tuple[str, ...]
    axes: str

    @property
    def description(self) -> str:
        inner = {"rhd": "one after the other", "hrd": "head by head"}.get(self.axes, f"in the order {self.axes}")
        return f"{', '.join(_WORDS[r] for r in self.roles)}, {inner}"


_USUAL = _Arrangement(("q", "k", "v"), "rhd")


def differs(reference: nn.Module, candidate: nn.Module) -> bool:
    """Whether names or shapes of the parameters of the two differ."""
    one, other = ({name: p.shape for name, p in m.named_parameters()} for m in (reference, candidate))
    return one != other


def find_transfer(
    reference: nn.Module,
    candidate: nn.Module,
    config: Any,
    distance: Callable[[Transfer], tuple[float, float]],
) -> Transfer | None:
    """The transfer by which the two agree; None if their structures are not one projection against several.

    The candidate may be wrong. If no transfer makes the two agree, the result is the one that is clearly nearest, else
    the usual one if the two agree on one token.

    Args:
        reference: An original.
        candidate: A candidate.
        config: Their config.
        distance: The distances of the two under a transfer on one token and on several, relative to the largest value.

    Raises:
        UsageError: No transfer makes the two agree, none is clearly nearest, and they do not agree on one token.
    """
    candidate_parts = [_parts(owner, prefix, config.n_embd) for prefix, owner in _owners(candidate, config.n_embd)]
    reference_parts = [_parts(owner, prefix, config.n_embd) for prefix, owner in _owners(reference, config.n_embd)]
    if (
        not reference_parts
        or len(reference_parts) != len(candidate_parts)
        or all(_alike(a, b) for a, b in zip(reference_parts, candidate_parts, strict=True))
    ):
        return None
    others = _others(reference, candidate, reference_parts, candidate_parts)
    if others is None or _biased(reference_parts) != _biased(candidate_parts):
        return None
    scored: list[tuple[float, float, Transfer]] = []
    for arrangement in _arrangements(reference_parts + candidate_parts):
        transfer = Transfer(
            _Regrouped(reference_parts, candidate_parts, arrangement, others), f"with {arrangement.description}"
        )
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
        f"the two hold the projections of queries, keys and values in other ways, and none of {len(scored)} ways "
        f"to carry the weights over makes them agree: {HOW_TO_TRANSFER}"
    )


def _unsure(transfer: Transfer, why: str) -> Transfer:
    description = (
        f"{transfer.description} "
        f"({why} of the orders tried, none of which makes the two agree: if it is wrong, pass transfer=)"
    )
    return replace(transfer, description=description)


def _owners(module: nn.Module, width: int) -> list[tuple[str, nn.Module]]:
    owners = []
    for name, owner in module.named_modules():
        prefix = f"{name}." if name else ""
        roles = "".join(sorted(r for part in _parts(owner, prefix, width) for r in part.roles if r in "qkv"))
        if roles == "kqv":
            owners.append((prefix, owner))
    return owners


def _parts(owner: nn.Module, prefix: str, width: int) -> list[_Part]:
    """The linear layers of an attention, with roles by their names and shapes."""
    parts, fused = [], []
    for name, child in owner.named_children():
        weight = getattr(child, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() != 2:
            continue
        flipped = not isinstance(child, nn.Linear) and hasattr(child, "nf")  # such as the Conv1D of GPT-2
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
    reference: nn.Module,
    candidate: nn.Module,
    reference_parts: Sequence[Sequence[_Part]],
    candidate_parts: Sequence[Sequence[_Part]],
) -> dict[str, str] | None:
    """The candidate's names of the reference's other parameters, by name or else by order; None if shapes differ."""

    def rest(module: nn.Module, parts: Sequence[Sequence[_Part]]) -> dict[str, torch.Size]:
        used = {n for group in parts for part in group for n in (part.weight, part.bias)}
        return {name: p.shape for name, p in module.named_parameters() if name not in used}

    reference_rest, candidate_rest = rest(reference, reference_parts), rest(candidate, candidate_parts)
    if list(reference_rest.values()) != list(candidate_rest.values()):
        return None
    return (
        dict(zip(reference_rest, candidate_rest, strict=True))
        if set(reference_rest) != set(candidate_rest)
        else {name: name for name in reference_rest}
    )


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
    """A transfer between attentions that group their projections into linear layers in different ways."""

    reference: Sequence[Sequence[_Part]]
    candidate: Sequence[Sequence[_Part]]
    arrangement: _Arrangement
    others: Mapping[str, str]

    def __call__(self, state: State, config: Any) -> State:
        candidate_state = {
            candidate_name: state[reference_name] for reference_name, candidate_name in self.others.items()
        }
        for reference_parts, candidate_parts in zip(self.reference, self.candidate, strict=True):
            apart: dict[tuple[str, str], Tensor] = {}
            for part in reference_parts:
                for kind, name in (("weight", part.weight), ("bias", part.bias)):
                    if name is not None:
                        value = state[name].t() if part.flipped and kind == "weight" else state[name]
                        apart |= {(role, kind): x for role, x in self._apart(part, value, config).items()}
            for part in candidate_parts:
                for kind, name in (("weight", part.weight), ("bias", part.bias)):
                    if name is not None:
                        value = self._together(part, {r: apart[r, kind] for r in part.roles}, config)
                        candidate_state[name] = value.t() if part.flipped and kind == "weight" else value
        return candidate_state

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
