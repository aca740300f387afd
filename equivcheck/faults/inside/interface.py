"""Faults of the interface: names, hooks, modes, refusals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import VALUES

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


@contextmanager
def without_bias(linear: nn.Linear) -> Iterator[None]:
    """Inside, `linear` adds no bias; its hooks still run."""
    bias = linear.bias
    linear.bias = None  # type: ignore[assignment]  # for one call
    try:
        yield
    finally:
        linear.bias = bias


class HooksOfTheValueBypassed(Parted):
    """The weights of `value` are used without calling it: its hooks never run."""

    def heads(self, x: Tensor) -> Heads:
        B, T, C = x.shape
        shape = (B, T, self.n_head, C // self.n_head)
        value = F.linear(x, self.value.weight, self.value.bias)
        q, k, v = (t.view(shape).transpose(1, 2) for t in (self.query(x), self.key(x), value))
        return q, k, v


class HooksBypassedInEval(Parted):
    """In eval mode without gradients the weights of `proj` are used without calling it."""

    def out(self, y: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            return super().out(y)
        return F.linear(self.merged(y), self.proj.weight, self.proj.bias)


class ForwardCalledDirectly(Parted):
    """The projection is run through `proj.forward`, which skips its hooks."""

    def out(self, y: Tensor) -> Tensor:
        return self.resid_drop(self.proj.forward(self.merged(y)))  # type: ignore[no-any-return]  # modules are Any


class ArgumentRenamed(Parted):
    """`forward` calls its argument `hidden_states`: a call with `x=` fails."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states)


class ResultInATuple(Parted):
    """`forward` returns a tuple of the result and None."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class ResultInFloat32(Parted):
    """The result is float32 for inputs of every dtype."""

    def out(self, y: Tensor) -> Tensor:
        return super().out(y).float()


class AttentionDropoutIsNoModule(Parted):
    """There is no `attn_drop` to switch or to change, only a number."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rate = self.attn_drop.p
        del self.attn_drop

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, self.rate, training=self.training)


class HeadCountNotChecked(Parted):
    """The constructor accepts an embedding that its heads do not divide; only a call fails."""

    def __init__(self, config: Any) -> None:
        super().__init__(_Undivided(config))
        self.n_head = config.n_head


class _Undivided:
    """A config with one head, and the other fields of another config."""

    n_head = 1

    def __init__(self, config: Any) -> None:
        self.config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)


class BuiltInEvalMode(Parted):
    """A new module is in eval mode."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.eval()


class BuiltFrozen(Parted):
    """The parameters of the projection do not require gradients."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.proj.requires_grad_(False)


class ProjectionBiasUnused(Parted):
    """The bias of the projection exists and is not added."""

    def out(self, y: Tensor) -> Tensor:
        with without_bias(self.proj):
            return super().out(y)


class ProjectionBiasTwice(Parted):
    """The bias of the projection is added twice."""

    def out(self, y: Tensor) -> Tensor:
        return self.resid_drop(self.proj(self.merged(y)) + self.proj.bias)  # type: ignore[no-any-return]


class ValueBiasUnused(Parted):
    """The bias of the value exists and is not added."""

    def heads(self, x: Tensor) -> Heads:
        with without_bias(self.value):
            return super().heads(x)


class BlockSizeNotEnforced(Parted):
    """A sequence past `block_size` is computed instead of refused."""

    def visible(self, s: Tensor) -> Tensor:
        return torch.ones(s.size(-2), s.size(-1), device=s.device).tril()


class WidthNotEnforced(Parted):
    """An input of the wrong width is cut or padded instead of refused."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, self.proj.in_features - x.size(-1))))


class RankNotEnforced(Parted):
    """A single sequence (T, C) is taken for a batch of one instead of refused."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[None])[0] if x.dim() == 2 else super().forward(x)


FAULTS = (
    inside("interface", HooksOfTheValueBypassed, seen_by=("interface",)),
    inside("interface", HooksBypassedInEval, seen_by=("interface",)),
    inside("interface", ForwardCalledDirectly, seen_by=("interface",)),
    inside("interface", ArgumentRenamed, seen_by=("interface",)),
    inside("interface", ResultInATuple, seen_by=("interface", "output"), wrong_at=VALUES),
    inside("interface", AttentionDropoutIsNoModule, seen_by=("interface",)),
    inside("interface", BuiltInEvalMode, seen_by=("interface",)),
    inside("interface", BuiltFrozen, seen_by=("interface", "gradients"), wrong_at=VALUES),
    inside("interface", ProjectionBiasUnused, seen_by=("output", "gradients", "logits")),
    inside("interface", ProjectionBiasTwice, seen_by=("output", "gradients")),
    inside("interface", ValueBiasUnused, seen_by=("output", "gradients")),
    inside("interface", HeadCountNotChecked, seen_by=("errors", "interface")),
    inside("interface", BlockSizeNotEnforced, seen_by=("errors",)),
    inside("interface", WidthNotEnforced, seen_by=("errors",)),
    inside("interface", RankNotEnforced, seen_by=("errors",)),
    inside("dtype", ResultInFloat32, seen_by=("output", "interface")),
)
