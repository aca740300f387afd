"""The modules that a replacement has replaced, place by place, and faults that spoil or undo it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Replace", "Swap", "all_spoiled", "each_spoiled", "spoiled", "swapping"]

Replace = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Swap:
    """A replaced module: its parent and name (None and "" for the root), and its old object, class and forward."""

    parent: nn.Module | None
    name: str
    old: nn.Module
    old_class: type
    old_forward: Any

    @property
    def new(self) -> nn.Module:
        return self.old if self.parent is None else getattr(self.parent, self.name)

    def undo(self) -> None:
        """Restore the old module, class and forward."""
        if self.parent is not None:
            setattr(self.parent, self.name, self.old)
        self.old.__class__ = self.old_class
        if self.old_forward is None:
            vars(self.old).pop("forward", None)


def swapping(replace: Replace, model: nn.Module) -> tuple[Any, list[Swap]]:
    """Call `replace`, and find the modules that it replaced.

    Returns:
        The result of `replace`, and each place whose module has another object, class or forward than before.
    """
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
    """A replacement whose calls go to `wrong`, with the replacement itself."""

    def replacing(model: nn.Module) -> Any:
        return wrong(replace, model)

    return replacing


def all_spoiled(replace: Replace, spoil: Callable[[Sequence[Swap]], None]) -> Replace:
    """A replacement of the same modules, which `spoil` takes all at once afterwards."""

    def replacing(model: nn.Module) -> Any:
        out, swaps = swapping(replace, model)
        spoil(swaps)
        return out

    return replacing


def each_spoiled(replace: Replace, spoil: Callable[[nn.Module], object]) -> Replace:
    """A replacement of the same modules, which `spoil` takes one by one afterwards, once for each place."""

    def one_by_one(swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            spoil(swap.new)

    return all_spoiled(replace, one_by_one)


def _forward(module: nn.Module) -> Any:
    return vars(module).get("forward")
