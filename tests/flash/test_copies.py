"""Copies and saved states of the drop-in, empty inputs, and inputs that the original refuses."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from drop_in import config, inputs, pair, results, same
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.flash.causal_mask import is_causal


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_one_of_its_own(copied: Any) -> None:
    _, flash = pair()
    flash(inputs())
    other = copied(flash)
    assert type(other) is FlashCausalSelfAttention
    assert torch.equal(other(inputs()), flash(inputs()))
    other.mask.fill_(1)
    assert is_causal(flash.mask)
    assert not is_causal(other.mask)


def test_a_saved_state_is_loaded_as_weights_only_by_either() -> None:
    original, flash = pair()
    flash(inputs())
    for source, target in ((flash, CausalSelfAttention), (original, FlashCausalSelfAttention)):
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        other = target(config()).double().eval()
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        same(other(inputs()), original(inputs()))


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (0, 0, 8), (1, 1, 8)])
def test_an_empty_batch_or_sequence_is_what_it_is_in_the_original(shape: tuple[int, int, int]) -> None:
    x = torch.zeros(shape, dtype=torch.float64)
    its, ours = (results(module, x) for module in pair())
    same(ours, its)


@pytest.mark.parametrize(
    "x", [inputs(6, 8), inputs(1, 2, 6, 8), inputs(3, 6, 7), inputs(dtype=torch.float32), torch.ones(3, 6, 8).long()]
)
def test_what_the_original_refuses_is_refused_with_the_same_kind_of_error(x: Tensor) -> None:
    kinds = []
    for module in pair():
        with pytest.raises(Exception, match=r"\S") as raised:
            module(x)
        kinds.append(raised.type)
    assert kinds[0] is kinds[1]
