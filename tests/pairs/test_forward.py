"""What a forward pass may return: what cannot be compared is a finding, and what the original returns is not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from searches import changing, different, smallest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention


class Odd(torch.Tensor):
    @property
    def shape(self) -> Any:  # type: ignore[override]  # that is what is odd of it
        raise RuntimeError("no shape")


class Late:
    """A result that is worked out when it is looked at."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self.make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self.make(), name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.to_sparse(), "output has the layout torch.sparse_coo"),
        (lambda y: y.to("meta"), "output is on the device meta"),
        (lambda y: y.as_subclass(Odd), "output is a Odd, a subclass of torch.Tensor"),
        (lambda y: Late(lambda: y), "the forward pass returned Late instead of a tensor"),
        (lambda y: None, "the forward pass returned NoneType instead of a tensor"),
    ],
    ids=["sparse", "meta", "subclass", "lazy", "none"],
)
def test_a_result_that_cannot_be_compared_is_a_finding(change: Callable[[Tensor], Any], words: str) -> None:
    _, message = smallest(CausalSelfAttention, changing(change))
    assert words in message
    assert "raises" not in message


class Tagged(torch.Tensor):
    """A subclass that does nothing."""


def test_a_subclass_that_the_original_returns_too_is_accepted() -> None:
    reference = changing(lambda y: y.as_subclass(Tagged), CausalSelfAttention)
    assert not different(reference, changing(lambda y: y.as_subclass(Tagged)))
    assert not different(reference, FlashCausalSelfAttention)
    assert different(CausalSelfAttention, changing(lambda y: y.as_subclass(Tagged)))
