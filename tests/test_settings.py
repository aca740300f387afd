"""Settings of the process are what they were after code that switched them, and a candidate is not judged by those it switches."""

import math
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck import settings
from equivcheck.attention import CausalSelfAttention
from equivcheck.cases import Case
from equivcheck.checks import CHECKS
from equivcheck.comparison import Mismatch
from equivcheck.kinds import resolve
from equivcheck.search import Search
from equivcheck.sensitivity import first_sighting

PURITY = next(check for check in CHECKS if check.name == "purity")
CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, seed=1)


def test_every_setting_can_be_put_back() -> None:
    before = settings.now()
    with settings.kept():
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.cuda.enable_flash_sdp(not torch.backends.cuda.flash_sdp_enabled())
        torch.set_autocast_enabled("cpu", True)
        torch.set_default_device("meta")
        assert set(settings.switched(before)) == {
            "default dtype", "default device", "deterministic algorithms", "float32 matmul precision",
            "cudnn.benchmark", "flash sdp", "autocast on the CPU",
        }  # fmt: skip
    assert settings.now() == before


class SwitchedWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        torch.set_float32_matmul_precision("high")


class SwitchedWhenCalled(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_float32_matmul_precision("high")
        return super().forward(x)


@pytest.mark.parametrize("candidate", [SwitchedWhenBuilt, SwitchedWhenCalled])
def test_a_setting_that_is_switched_once_and_for_all_is_seen_every_time_and_put_back(candidate: Any) -> None:
    before = settings.now()
    subject = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
    for _ in range(2):
        with pytest.raises(Mismatch, match="float32 matmul precision"):
            PURITY.run(subject, CASE)
    assert settings.now() == before


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if "module" in c.kinds and c.name not in ("long", "compile")], ids=lambda c: c.name
)
def test_no_check_leaves_a_setting_switched_in_which_the_next_would_not_see_it(check: Any) -> None:
    before = settings.now()
    subject = resolve(CausalSelfAttention, SwitchedWhenCalled, kind="module", device="cpu")
    case = CASE.but(n_layer=1, vocab_size=7) if check.name in ("logits", "training", "generation") else CASE
    with suppress(Mismatch):
        Search(check, subject, 1, 0.0, math.inf, lambda _: None).visit(case)
    assert settings.now() == before
    first_sighting(subject, [(check, case)], math.inf)
    assert settings.now() == before
