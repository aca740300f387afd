"""Attention layers inside of a module: their linears of queries, keys, values and output are known by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.names import OUT, role_of
from equivcheck.errors import NotOpened

__all__ = ["Attention", "as_if", "find_attentions", "one_hot"]


@dataclass
class Attention:
    """One attention layer.

    Attributes:
        module: The layer.
        case: The case for which it is built.
        linears: Its linears by role, `qkv` if one linear makes all three; none for a function of q, k, v.
        inside: Whether the forward pass is in this layer, while it is `watched`.
    """

    module: nn.Module
    case: Case
    linears: dict[str, nn.Module]
    inside: bool = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep `inside` up to date in this context."""

        def enter(*_: Any) -> None:
            self.inside = True

        def leave(*_: Any) -> None:
            self.inside = False

        handles = [
            self.module.register_forward_pre_hook(enter),
            self.module.register_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            self.inside = False
            for handle in handles:
                handle.remove()

    @contextmanager
    def read(self, first: int, length: int, out_value: float = 1.0) -> Iterator[dict[str, Tensor]]:
        """In this context, make scores equal, values one-hot and the last linear's result constant, so that drops show.

        Args:
            first: The first key that has a value of 1.
            length: The number of keys, T.
            out_value: The last linear's result.

        Yields:
            A dict that a forward pass fills: `weights` (B, H, T, D), the probabilities of the keys from `first` on, and
            `left` (B, T, C), the layer's output.

        Raises:
            NotOpened: A tensor has another shape, or the layer is called more than once.
        """
        taken: dict[str, Tensor] = {}
        c = self.case

        def replaced(role: str) -> Callable[..., Tensor]:
            def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor:
                hot = one_hot(first, length, c.head_size, like=out).repeat(1, c.n_head)  # (T, C)
                none = torch.zeros_like(hot)
                made = {
                    "v": hot,
                    "q": none,
                    "k": none,
                    "qkv": torch.cat((none, none, hot), -1),
                    "out": none + out_value,
                }[role]
                if out.numel() % made.numel():
                    raise NotOpened(f"its linear of {role} gives {tuple(out.shape)}")
                return as_if(out, made.expand(out.numel() // made.numel(), *made.shape).reshape(out.shape))

            return hook

        def before_out(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            y = args[0]  # (B, T, C)
            if y.numel() % (length * c.n_embd):
                raise NotOpened(f"its last linear takes {tuple(y.shape)}")
            if "weights" in taken:
                raise NotOpened("it is called more than once in a forward pass")
            taken["weights"] = y.detach().reshape(-1, length, c.n_head, c.head_size).transpose(1, 2)  # (B, H, T, D)

        def returned(module: nn.Module, args: Any, out: Any) -> None:
            left = out[0] if isinstance(out, tuple | list) else out
            taken["left"] = left.detach()

        handles = [module.register_forward_hook(replaced(role)) for role, module in self.linears.items()]
        handles.append(self.linears["out"].register_forward_pre_hook(before_out))
        handles.append(self.module.register_forward_hook(returned))
        try:
            with self.watched():
                yield taken
        finally:
            for handle in handles:
                handle.remove()


def one_hot(first: int, length: int, width: int, *, like: Tensor) -> Tensor:
    """Values (T, D) with a 1 in a separate column for each key from `first` on, and 0 elsewhere."""
    hot = torch.zeros(length, width, dtype=like.dtype, device=like.device)
    hot[first : min(length, first + width)].fill_diagonal_(1.0)
    return hot


def as_if(out: Tensor, values: Tensor) -> Tensor:
    """A copy of `values` that requires a gradient if `out` does: torch chooses kernels by that, too."""
    return values.clone().requires_grad_() if out.requires_grad else values.clone()


def find_attentions(module: nn.Module, case: Case) -> list[Attention]:
    """Return the attention layers inside of `module`, itself included, in the order of registration.

    A function of q, k, v in its module is one layer without linears.

    Raises:
        NotOpened: There is none.
    """
    if not list(module.parameters()):
        return [Attention(module, case, {})]
    attentions = []
    for owner in module.modules():
        linears = _linears(owner, case)
        if linears:
            attentions.append(Attention(owner, case, linears))
    if not attentions:
        raise NotOpened("it has no linears by whose names queries, keys, values and output are known")
    return attentions


def _linears(owner: nn.Module, case: Case) -> dict[str, nn.Module]:
    """The linears of an attention layer by role; empty if the module is no attention layer."""
    roles: dict[str, nn.Module] = {}
    for name, child in owner.named_children():
        if role_of(name):
            roles[role_of(name)] = child
        elif OUT.match(name):
            roles["out"] = child
        elif getattr(child, "out_features", 0) == 3 * case.n_embd == 3 * getattr(child, "in_features", 0):
            roles["qkv"] = child
    whole = {"q", "k", "v", "out"} <= set(roles) or {"qkv", "out"} <= set(roles)
    return {r: roles[r] for r in (("qkv", "out") if "qkv" in roles else ("q", "k", "v", "out"))} if whole else {}
