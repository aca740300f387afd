"""A dtype that a candidate refuses is unsupported; a candidate that is broken in every dtype, or changes dtypes, is judged."""

from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.supported_dtypes import usable_dtypes


class HalfAlone(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.float16, torch.bfloat16):
            raise TypeError("half precision only")
        return super().forward(x)


class Broken(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        raise AttributeError("no attribute 'attend'")


def new_modules_in_float32(model: Any) -> Any:
    for block in model.blocks:
        fresh = FlashCausalSelfAttention(model.config).train(block.attn.training)
        fresh.load_state_dict(block.attn.state_dict())
        block.attn = fresh
    return model


@pytest.mark.parametrize(
    ("reference", "candidate", "usable"),
    [
        (CausalSelfAttention, FlashCausalSelfAttention, set(DTYPES)),
        (CausalSelfAttention, HalfAlone, {"bfloat16", "float16"}),
        (CausalSelfAttention, Broken, set(DTYPES)),
        (GPT, new_modules_in_float32, set(DTYPES)),
    ],
)
def test_only_what_is_refused_loudly_and_as_a_whole_is_left_out(
    reference: Any, candidate: Any, usable: set[str]
) -> None:
    found, refused = usable_dtypes(resolve(reference, candidate, kind="auto", device="cpu"))
    assert set(found) == usable
    assert set(refused) == set(DTYPES) - usable
