"""A candidate without submodules of the original: they are a finding, and those that both have are modified and compared."""

from typing import Any

import pytest
from quick_runs import quick
from torch import Tensor, nn

from equivcheck.worker import on_cases


class Split(nn.Module):
    """Projections of queries, keys and values apart."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.query, self.key, self.value, self.proj = (nn.Linear(config.n_embd, config.n_embd) for _ in range(4))

    def heads(self, x: Tensor) -> list[Tensor]:
        return [project(x) for project in (self.query, self.key, self.value)]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.heads(x))
        scores = q @ k.mT * q.size(-1) ** -0.5
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Fused(Split):
    """One projection in the place of three."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.query, self.key, self.value
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)

    def heads(self, x: Tensor) -> list[Tensor]:
        return [*self.qkv(x).chunk(3, dim=-1)]


class Bypassing(Fused):
    """One projection, and the weight of the last one read without a call of it."""

    def forward(self, x: Tensor) -> Tensor:
        proj = self.proj
        self.proj = nn.Identity()
        try:
            return super().forward(x) @ proj.weight.T + proj.bias
        finally:
            self.proj = proj


def test_an_adapter_on_what_both_have_is_no_difference() -> None:
    (result,) = quick(Split, Fused, checks=["interface"]).results
    assert "interface.submodules" in result.differing
    assert "interface.hooks" in result.differing
    assert "interface.adapters" not in result.differing


def test_an_adapter_that_the_candidate_leaves_out_is_one() -> None:
    (result,) = quick(Split, Bypassing, checks=["interface"]).results
    assert "interface.adapters" in result.differing


def test_a_difference_stands_where_no_more_can_be_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Split):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1.5

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(on_cases, "place", broken)
    (result,) = quick(Split, Wrong, checks=["output"]).results
    assert result.counterexample is not None
    assert (
        "no place was looked for, by a defect of equivcheck (ZeroDivisionError: a defect)"
        in result.counterexample.message
    )
