"""Where a gradient came from: which matmul O = P V belongs to the dP = dO Vᵀ that reaches a softmax's backward pass.

A flash backward takes delta = rowsum(dO * O) from O as it was summed and rounded (Dao et al. 2022, algorithm 4), which is
no operation of the original; to admit its error, the dO and O behind a dP have to be known.
"""

from typing import Any

from torch import Tensor

__all__ = ["Origins"]

_Key = tuple[int, int, int]


class Origins:
    """Follows matmuls and what is made of their results by storage."""

    def __init__(self) -> None:
        self._products: dict[_Key, Tensor] = {}  # right factor of a matmul -> its result
        self._terms: dict[_Key, Tensor] = {}  # gradient of the probabilities -> rowsum((dO * O)**2)
        self._alive: list[Tensor] = []  # storages that the two dictionaries name must not be reused meanwhile

    def remember(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Keep O = P @ V by its V, and when dP = dO @ Vᵀ is formed, keep rowsum((dO * O)**2) by that dP."""
        earlier = self._products.get(_key(b))
        if earlier is not None and earlier.shape == a.shape:
            self._terms[_key(out)] = (a * earlier).square().sum(-1)
            self._alive.append(out)
            return
        self._products[_key(b)] = out.clone()
        self._alive.append(b)

    def follow(self, args: tuple[Any, ...], out: Any) -> None:
        """An elementwise result (dropout's backward, a cast) inherits the origin of its operand."""
        if not self._terms or not isinstance(out, Tensor):
            return
        for arg in args:
            if isinstance(arg, Tensor) and arg.numel() == out.numel():
                terms = self.terms(arg)
                if terms is not None:
                    self._terms[_key(out)] = terms
                    self._alive.append(out)
                    return

    def terms(self, gradient: Tensor) -> Tensor | None:
        """rowsum((dO * O)**2) of the dP that `gradient` is, or came from by elementwise operations; None if of neither."""
        return self._terms.get(_key(gradient))


def _key(x: Tensor) -> _Key:
    return x.untyped_storage().data_ptr(), int(x.storage_offset()), x.numel()
