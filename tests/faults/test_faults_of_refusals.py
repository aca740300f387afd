"""A fault that swallows refusals is seen whatever the original raises, and not planted where it refuses nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivcheck.api import verify


class Model(nn.Module):
    """A small causal model of token ids without a table of positions: it refuses no length."""

    limited = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.n_head, self.block_size = config.n_head, config.block_size
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.query, self.key, self.value = (nn.Linear(config.n_embd, config.n_embd) for _ in range(3))
        self.head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        if self.limited:
            assert idx.shape[1] <= self.block_size, "too long"
        x = self.embed(idx)  # (B, T, C)
        parts = (f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k, v = parts  # (B, H, T, D)
        scores = q @ k.mT / q.shape[-1] ** 0.5  # (B, H, T, T)
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        y = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        return self.head(y.transpose(1, 2).flatten(2))


class Limited(Model):
    """As nanoGPT it asserts that a sequence is not too long."""

    limited = True


@pytest.mark.parametrize(("model", "refuses"), [(Model, False), (Limited, True)])
def test_swallowed_refusals_are_planted_where_the_original_refuses(model: Any, refuses: bool) -> None:
    report = verify(model, model, device="cpu", profile="quick", checks=["errors", "logits"], dtypes=["float32"])
    assert report.equivalent, report.verdict
    assert ("refusals-swallowed" in report.sensitivity.planted) is refuses
    (errors,) = (result for result in report.results if result.name == "errors")
    assert errors.outcome == ("equivalent" if refuses else "not applicable")
