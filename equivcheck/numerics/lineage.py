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
        self._greatest: dict[_Key, Tensor] = {}  # probabilities -> index of each row's greatest score
        self._again: dict[
            _Key, Tensor
        ] = {}  # exponents, and exponentials -> relative error of scores that are made again
        self._normalisers: set[_Key] = set()  # log-sum-exps: with one taken off, exponentials are probabilities
        self._probable: set[_Key] = set()  # exponents of probabilities
        self._alive: list[Tensor] = []  # storages that the dictionaries name must not be reused meanwhile

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

    def mark_greatest(self, probabilities: Tensor, index: Tensor) -> None:
        """Keep where the greatest score of each row is, by the probabilities made of them."""
        self._greatest[_key(probabilities)] = index
        self._alive.append(probabilities)

    def greatest(self, probabilities: Tensor) -> Tensor | None:
        """The index that was kept by these probabilities; None where none was."""
        return self._greatest.get(_key(probabilities))

    def mark_normaliser(self, of: Tensor) -> None:
        """Remember that `of` is the log-sum-exp of rows."""
        self._normalisers.add(_key(of))
        self._alive.append(of)

    def mark_recomputed(self, of: Tensor, size: Tensor, *, less: Tensor | None = None, probable: bool = False) -> None:
        """Keep by how much `of` is off where its score is computed a second time: an exponent or an exponential.

        `less` is what was taken off the scores: where that is their log-sum-exp, or the exponent is known to be `probable`,
        its exponential is a probability.
        """
        self._again[_key(of)] = size
        if probable or (less is not None and _key(less) in self._normalisers):
            self._probable.add(_key(of))
        self._alive.append(of)

    def again(self, of: Tensor) -> Tensor | None:
        """What was kept by an exponent or an exponential; None where nothing was."""
        return self._again.get(_key(of)) if self._again else None

    def is_probable(self, exponent: Tensor) -> bool:
        """Whether the exponential of it is a probability, which nothing will normalise any more."""
        return _key(exponent) in self._probable


def _key(x: Tensor) -> _Key:
    return x.untyped_storage().data_ptr(), int(x.storage_offset()), x.numel()
