"""The origin of a gradient: which matmul O = P V belongs to the dP = dO Vᵀ that reaches a softmax's backward pass.

A flash backward pass takes delta = rowsum(dO * O) from a summed and rounded O (Dao et al. 2022, algorithm 4). The
original has no such operation. To admit its error, the budget needs the dO and O behind a dP.
"""

from typing import Any

from torch import Tensor

__all__ = ["Origins"]

_Key = tuple[int, int, int]


class Origins:
    """Follows matmuls, and tensors that are computed from their results, by storage."""

    def __init__(self) -> None:
        self._products: dict[_Key, Tensor] = {}  # right factor of a matmul -> its result
        self._terms: dict[_Key, Tensor] = {}  # gradient of the probabilities -> rowsum((dO * O)**2)
        self._greatest: dict[_Key, Tensor] = {}  # probabilities -> index of each row's greatest score
        # exponents and exponentials -> error of the recomputed scores
        self._recompute_errors: dict[_Key, Tensor] = {}
        self._normalisers: set[_Key] = set()  # log-sum-exps: exponentials of scores minus one are probabilities
        self._probable: set[_Key] = set()  # exponents of probabilities
        self._alive: list[Tensor] = []  # keeps the storages that are keys from being reused

    def remember(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Store O = P @ V under its V; when dP = dO @ Vᵀ is formed, store rowsum((dO * O)**2) under that dP."""
        earlier = self._products.get(_key(b))
        if earlier is not None and earlier.shape == a.shape:
            self._terms[_key(out)] = (a * earlier).square().sum(-1)
            self._alive.append(out)
            return
        self._products[_key(b)] = out.clone()
        self._alive.append(b)

    def follow(self, args: tuple[Any, ...], out: Any) -> None:
        """Give an elementwise result (dropout's backward pass, a cast) the origin of its operand."""
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
        """rowsum((dO * O)**2) of the dP that `gradient` is, up to elementwise operations; None for other tensors."""
        return self._terms.get(_key(gradient))

    def mark_greatest(self, probabilities: Tensor, index: Tensor) -> None:
        """Store the index of each row's greatest score under the probabilities of these scores."""
        self._greatest[_key(probabilities)] = index
        self._alive.append(probabilities)

    def greatest(self, probabilities: Tensor) -> Tensor | None:
        """The index that is stored under these probabilities; None if there is none."""
        return self._greatest.get(_key(probabilities))

    def mark_normaliser(self, of: Tensor) -> None:
        """Record that `of` is the log-sum-exp of rows."""
        self._normalisers.add(_key(of))
        self._alive.append(of)

    def mark_recomputed(self, of: Tensor, size: Tensor, *, less: Tensor | None = None, probable: bool = False) -> None:
        """Store the error of an exponent or exponential whose score is computed a second time.

        Args:
            of: The exponent or exponential.
            size: Its error: of an exponent absolute, of an exponential relative.
            less: The number that was subtracted from the scores of a row. If it is their log-sum-exp, the exponential
                of `of` is a probability.
            probable: Whether that is known anyway.
        """
        self._recompute_errors[_key(of)] = size
        if probable or (less is not None and _key(less) in self._normalisers):
            self._probable.add(_key(of))
        self._alive.append(of)

    def recompute_error(self, of: Tensor) -> Tensor | None:
        """The error that is stored for an exponent or exponential; None if there is none."""
        return self._recompute_errors.get(_key(of)) if self._recompute_errors else None

    def is_probable(self, exponent: Tensor) -> bool:
        """Whether its exponential is a probability, which nothing normalises afterwards."""
        return _key(exponent) in self._probable


def _key(x: Tensor) -> _Key:
    return x.untyped_storage().data_ptr(), int(x.storage_offset()), x.numel()
