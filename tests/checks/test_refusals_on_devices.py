"""Inputs that are out of range cost no GPU: both sides refuse them on the CPU where they run there."""

from dataclasses import replace
from typing import Any

import torch
from check_cases import PLAIN, pair
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.checks import refusals
from equivcheck.checks.refusals import errors
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve


class Indexed(CausalSelfAttention):
    """A table of positions: past its end an index is out of range, which no assertion guards."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.positions = torch.nn.Embedding(config.block_size, config.n_embd)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x + self.positions(torch.arange(x.shape[1], device=x.device)))


def test_an_index_out_of_range_is_a_refusal_on_each_device(device: torch.device) -> None:
    subject = resolve(Indexed, Indexed, kind="module", device=str(device))
    errors(subject, PLAIN)
    assert torch.ones((), device=device).item() == 1.0


def test_what_runs_on_the_cpu_is_asked_there() -> None:
    elsewhere = replace(pair(CausalSelfAttention), device=torch.device("meta"))
    assert refusals._without_kernels(elsewhere, PLAIN).device.type == "cpu"


class NeedsAGpu(CausalSelfAttention):
    """It runs on no CPU."""

    def forward(self, x: Tensor) -> Any:
        if x.device.type == "cpu":
            raise RuntimeError("no kernel for a CPU")
        return super().forward(x)


def test_a_kernel_for_gpus_is_asked_where_it_runs() -> None:
    subject: Pair = replace(pair(NeedsAGpu), device=torch.device("meta"))
    assert refusals._without_kernels(subject, PLAIN).device.type == "meta"
