"""Settings of the process are what they were after code that switched them, and a candidate is not judged by those it switches."""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.planting import PlantedFault
from equivcheck.engine.search import Search
from equivcheck.engine.sensitivity import first_detection
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime import global_state

PURITY = next(check for check in CHECKS if check.name == "purity")
CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, seed=1)


def test_every_setting_can_be_put_back() -> None:
    before = global_state.now()
    with global_state.preserved():
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.cuda.enable_flash_sdp(not torch.backends.cuda.flash_sdp_enabled())
        torch.set_autocast_enabled("cpu", True)
        torch.set_default_device("meta")
        assert set(global_state.switched(before)) == {
            "default dtype", "default device", "deterministic algorithms", "float32 matmul precision",
            "cudnn.benchmark", "flash sdp", "autocast on the CPU",
        }  # fmt: skip
    assert global_state.now() == before


class SwitchedWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        torch.set_float32_matmul_precision("high")


class SwitchedWhenCalled(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_float32_matmul_precision("high")
        return super().forward(x)


@pytest.mark.parametrize("candidate", [SwitchedWhenBuilt, SwitchedWhenCalled])
def test_a_switched_setting_is_seen_every_time_and_put_back(candidate: Any) -> None:
    before = global_state.now()
    subject = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
    for _ in range(2):
        with pytest.raises(Mismatch, match="float32 matmul precision"):
            PURITY.run(subject, CASE)
    assert global_state.now() == before


def _hooked_by_everyone() -> None:
    nn.modules.module.register_module_forward_hook(lambda *_: None)


def _softmax_patched() -> None:
    own = F.softmax
    F.softmax = lambda *args, **options: own(*args, **options)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (_hooked_by_everyone, "hooks of every module"),
        (_softmax_patched, "functions of torch"),
        (lambda: torch.set_flush_denormal(True), "flushing of subnormal numbers"),
        (lambda: torch._C._set_mkldnn_enabled(False), "mkldnn"),
    ],
)
def test_what_is_set_for_everybody_is_seen_and_put_back(switch: Callable[[], object], message: str) -> None:
    before = global_state.now()

    class Switching(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            switch()

    subject = resolve(CausalSelfAttention, Switching, kind="module", device="cpu")
    with pytest.raises(Mismatch, match=message):
        PURITY.run(subject, CASE)
    assert global_state.now() == before


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("torch.use_deterministic_algorithms(True, warn_only=True)", "deterministic algorithms"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
    ],
)
def test_what_an_import_switches_is_seen_and_judges_nothing(switch: str, message: str, tmp_path: Path) -> None:
    before = global_state.now()
    file = tmp_path / f"switching_{message.split()[0]}.py"
    file.write_text(f"import torch\nfrom equivcheck.attention import FlashCausalSelfAttention\n\n{switch}\n")
    for _ in range(2):  # the second time the module is there already
        subject = resolve(CausalSelfAttention, f"{file}:FlashCausalSelfAttention", kind="module", device="cpu")
        assert global_state.now() == before
        with pytest.raises(Mismatch, match=f"importing the candidate changed global settings: {message}"):
            PURITY.run(subject, CASE)
    PURITY.run(subject.with_candidate(CausalSelfAttention, "another"), CASE)


class SeededWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        torch.manual_seed(1)
        super().__init__(config)


class PythonSeededWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        random.seed(1)
        super().__init__(config)


@pytest.mark.parametrize(
    ("candidate", "message"), [(SeededWhenBuilt, "torch's"), (PythonSeededWhenBuilt, "Python's own")]
)
def test_building_seeds_no_generator_unless_the_original_does(candidate: Any, message: str) -> None:
    for _ in range(2):
        with pytest.raises(Mismatch, match=f"where the candidate is built {message} generator is"):
            PURITY.run(resolve(CausalSelfAttention, candidate, kind="module", device="cpu"), CASE)
    PURITY.run(resolve(candidate, candidate, kind="module", device="cpu"), CASE)


class GradientsOverwritten(CausalSelfAttention):
    """The gradient of the values' weight takes the place of what was there."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.value.weight
        if torch.is_grad_enabled() and weight.requires_grad and not hasattr(weight, "latest"):
            weight.latest = torch.zeros_like(weight)
            weight.register_hook(lambda g: weight.latest.copy_(g))
            weight.register_post_accumulate_grad_hook(_overwritten)
        return super().forward(x)


def _overwritten(parameter: Tensor) -> None:
    assert parameter.grad is not None
    with torch.no_grad():
        parameter.grad.copy_(parameter.latest)


def test_gradients_are_added_to_those_that_are_there() -> None:
    subject = resolve(CausalSelfAttention, GradientsOverwritten, kind="module", device="cpu")
    with pytest.raises(Mismatch, match="after two backward passes"):
        PURITY.run(subject, CASE)


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if "module" in c.kinds and c.name not in ("long", "compile")], ids=lambda c: c.name
)
def test_no_check_leaves_a_setting_switched_for_the_next(check: Any) -> None:
    before = global_state.now()
    subject = resolve(CausalSelfAttention, SwitchedWhenCalled, kind="module", device="cpu")
    case = CASE.but(n_layer=1, vocab_size=7) if check.name in ("logits", "training", "generation") else CASE
    with suppress(Mismatch):
        Search(check, subject, 1, 0.0, math.inf, lambda _: None).visit(case)
    assert global_state.now() == before
    first_detection(PlantedFault("switched", (check.name,), subject, subject), [(check, case)], math.inf)
    assert global_state.now() == before
