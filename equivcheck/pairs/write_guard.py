"""A guard against writes: inputs, upstream gradients and parameters are compared bit for bit after every pass.

Copies are of whole storages: a write beside a tensor shows as well, and a restored tensor keeps its layout and type.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from equivcheck.errors import Mismatch
from equivcheck.pairs.sides import CANDIDATE, current_side

__all__ = ["Guard", "Overwritten"]

_WORD = 8  # bytes that are compared as one number


class Overwritten(Mismatch):
    """A pass of the candidate changed a tensor that the original was not seen to change."""


@dataclass(frozen=True)
class _Copy:
    """A storage as flat words, and a copy of the words from before a pass."""

    name: str
    tensor: Tensor
    version: int
    words: Tensor  # (bytes / 8,) or (bytes,), in the memory of the storage
    before: Tensor  # the same shape, in other memory

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "_Copy":
        storage = tensor.untyped_storage()
        words = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        if words.numel() % _WORD == 0:
            words = words.view(torch.int64)
        return cls(name, tensor, _version(tensor), words, words.clone())


class Guard:
    """Compares the tensors that passes of one problem must not change.

    Attributes:
        reference_changes: The names of the tensors that the original changes.
    """

    def __init__(self, steady: Mapping[str, Tensor]) -> None:
        self._steady = {_place(x): name for name, x in steady.items() if x.numel()}
        self._tensors = dict(steady)
        self._copies: dict[int, _Copy] = {}  # of steady tensors, made at their first use
        self._weights: weakref.WeakKeyDictionary[nn.Module, list[_Copy]] = weakref.WeakKeyDictionary()
        self._active = False
        self.reference_changes: set[str] = set()

    @contextmanager
    def over(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, `module` may be run; afterwards its parameters and `tensors` are compared and restored.

        Args:
            module: The module that is run.
            tensors: Inputs and upstream gradients of this pass, by name.

        Raises:
            Overwritten: The candidate changed one of them, and the original was not seen to.
        """
        if self._active or torch._C._functorch.peek_interpreter_stack() is not None:
            yield
            return
        self._active = True
        try:
            with _disable_current_modes():
                copies = [*self._of_tensors(tensors), *self._of_weights(module)]
            try:
                yield
            except BaseException:  # the next pass must not read what a failed pass has written
                with _disable_current_modes():
                    for copy in _changed(copies):
                        self._put_back(copy)
                raise
            with _disable_current_modes():
                changed = _changed(copies)
                for copy in changed:
                    self._judge(copy)
        finally:
            self._active = False

    def _of_tensors(self, tensors: Mapping[str, Tensor]) -> list[_Copy]:
        copies: dict[int, _Copy] = {}
        for name, x in tensors.items():
            if not x.numel():
                continue
            place = _place(x)
            if place in copies:
                continue
            if place in self._steady:
                if place not in self._copies:
                    steady = self._steady[place]
                    self._copies[place] = _Copy.of(steady, self._tensors[steady])
                copies[place] = self._copies[place]
            else:
                copies[place] = _Copy.of(name, x)
        return list(copies.values())

    def _of_weights(self, module: nn.Module) -> list[_Copy]:
        tensors = dict(module.named_parameters()) | getattr(module, "arguments", {})
        named = {_place(p): (name, p) for name, p in tensors.items() if p.numel() and _readable(p)}
        known = self._weights.get(module)
        if known is not None and len(known) == len(named):
            # torch counts changes through the tensor, as an optimizer's, in its version
            same = (c.tensor is p and c.version == _version(p) for c, (_, p) in zip(known, named.values(), strict=True))
            if all(same):
                return known
        copies = [_Copy.of(name, p) for name, p in named.values()]
        self._weights[module] = copies
        return copies

    def _put_back(self, copy: _Copy) -> None:
        copy.words.copy_(copy.before)
        self._weights.clear()  # restoring changes the version

    def _judge(self, copy: _Copy) -> None:
        size = copy.tensor.element_size()
        off = copy.words.view(torch.uint8) != copy.before.view(torch.uint8)  # (bytes,)
        count = int(off[: off.numel() // size * size].view(-1, size).any(-1).sum())
        self._put_back(copy)
        if current_side() != CANDIDATE:
            self.reference_changes.add(copy.name)
        elif copy.name not in self.reference_changes:
            raise Overwritten(
                f"{copy.name} was overwritten: "
                f"{count} of the {off.numel() // size} numbers in its memory were changed by a pass",
                where=copy.name,
            )


def _changed(copies: Iterable[_Copy]) -> list[_Copy]:
    on_device = [c for c in copies if c.words.device.type != "cpu"]
    changed = [c for c in copies if c.words.device.type == "cpu" and not torch.equal(c.words, c.before)]
    if on_device:  # one wait for the device instead of one for each tensor
        flags: list[Any] = torch.stack([(c.words != c.before).any() for c in on_device]).tolist()
        changed += [c for c, flag in zip(on_device, flags, strict=True) if flag]
    return changed


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _readable(x: Tensor) -> bool:
    return x.device.type != "meta" and x.layout == torch.strided and type(x) in (Tensor, nn.Parameter)
