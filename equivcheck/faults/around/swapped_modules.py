"""Which modules a replacement has replaced, place by place, and how a fault is put around it to spoil or undo that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Replace", "Swap", "all_spoiled", "each_spoiled", "spoiled", "swapping"]

Replace = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Swap:
    """A module that was replaced: its parent and name (of the root: None and ""), and what it was."""

    parent: nn.Module | None
    name: str
    old: nn.Module
    old_class: type
    old_forward: Any

    @property
    def new(self) -> nn.Module:
        return self.old if self.parent is None else getattr(self.parent, self.name)

    def undo(self) -> None:
        """Make it again what it was."""
        if self.parent is not None:
            setattr(self.parent, self.name, self.old)
        self.old.__class__ = self.old_class
        if self.old_forward is None:
            vars(self.old).pop("forward", None)


def swapping(replace: Replace, model: nn.Module) -> tuple[Any, list[Swap]]:
    """What `replace` returns, and which modules it replaced: another object, class or forward than before; each place once."""
    places: list[tuple[nn.Module | None, str, nn.Module]] = [(None, "", model)]
    places += [(m, name, child) for m in model.modules() for name, child in m.named_children()]
    known = [Swap(parent, name, old, type(old), vars(old).get("forward")) for parent, name, old in places]
    out = replace(model)
    swaps = [
        s for s in known if s.new is not s.old or type(s.new) is not s.old_class or _forward(s.new) is not s.old_forward
    ]
    inner = {id(m) for s in swaps for m in s.old.modules() if m is not s.old}
    return out, [s for s in swaps if id(s.old) not in inner]


def spoiled(replace: Replace, wrong: Callable[[Replace, nn.Module], Any]) -> Replace:
    """A replacement that is called by what is wrong."""

    def replacing(model: nn.Module) -> Any:
        return wrong(replace, model)

    return replacing


def all_spoiled(replace: Replace, spoil: Callable[[Sequence[Swap]], None]) -> Replace:
    """A replacement of the same modules, all of which are spoiled together afterwards."""

    def replacing(model: nn.Module) -> Any:
        out, swaps = swapping(replace, model)
        spoil(swaps)
        return out

    return replacing


def each_spoiled(replace: Replace, spoil: Callable[[nn.Module], object]) -> Replace:
    """A replacement of the same modules, each of which is spoiled afterwards, in each place that it has."""

    def one_by_one(swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            spoil(swap.new)

    return all_spoiled(replace, one_by_one)


def _forward(module: nn.Module) -> Any:
    return vars(module).get("forward")
