"""The check `backend`: which kernel ran is recorded, and a required one that did not run is a difference."""

from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivcheck.api import replay, verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.checks.backend import backend, requiring
from equivcheck.cli import main
from equivcheck.errors import Mismatch, UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime.required_kernels import requirement

CASE = Case(batch_size=1, seq_len=8, n_head=1, head_size=32, block_size=8)
REQUIRED = {"float32": "flash", "bfloat16": "flash"}


class Falling(FlashCausalSelfAttention):
    """Asks for a fused kernel, and gets the math one."""

    def forward(self, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return super().forward(x)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def pair(candidate: Any = FlashCausalSelfAttention, reference: Any = CausalSelfAttention) -> Any:
    return resolve(reference, candidate, kind="auto", device="cpu")


def test_without_a_requirement_kernels_are_a_note_and_not_judged() -> None:
    held = backend(pair(), CASE)
    assert not held.judged
    (note,) = held.notes
    assert note.startswith("float32: flash at every head size from 32 to 256, with dropout math")
    (spelled,) = backend(pair(CausalSelfAttention), CASE).notes
    assert "spelled out" in spelled


def test_a_silent_fallback_is_a_difference_that_names_the_kernel_that_ran() -> None:
    assert backend(pair(), CASE, required=REQUIRED).judged
    with pytest.raises(Mismatch, match="that ran is math, and flash is required: float32, head size 32, no dropout"):
        backend(pair(Falling), CASE, required=REQUIRED)
    with pytest.raises(Mismatch, match=r"math, and flash is required.*dropout 0\.1"):
        backend(pair(), CASE.but(training=True, attn_pdrop=0.1), required=REQUIRED)
    assert not backend(pair(Falling), CASE.but(dtype="float64"), required=REQUIRED).judged


def test_functions_and_models_are_looked_at_too() -> None:
    backend(pair(attend, attend), CASE, required=REQUIRED)

    def fused(config: Any) -> Any:
        return GPT(config, attention=FlashCausalSelfAttention)

    case = CASE.but(n_layer=2, vocab_size=7)
    backend(resolve(GPT, fused, kind="model", device="cpu"), case, required=REQUIRED)
    with pytest.raises(Mismatch, match="spelled out, and flash is required"):
        backend(resolve(GPT, GPT, kind="model", device="cpu"), case, required=REQUIRED)


def test_a_requirement_is_for_every_dtype_or_for_one() -> None:
    assert set(requirement(["flash"]).values()) == {"flash"}
    assert requirement(["bfloat16=cudnn", "float16=flash"]) == {"bfloat16": "cudnn", "float16": "flash"}
    for wrong in ("flsh", "int8=flash", "=flash", "flash=bfloat16"):
        with pytest.raises(UsageError, match="KERNEL or DTYPE=KERNEL is allowed"):
            requirement([wrong])
    with pytest.raises(UsageError, match="both required in float32"):
        requirement(["flash", "float32=math"])


def test_only_the_check_backend_is_changed_by_a_requirement() -> None:
    changed = requiring(CHECKS, ["flash"])
    assert [c.name for c, old in zip(changed, CHECKS, strict=True) if c is not old] == ["backend"]
    assert requiring(CHECKS, []) == list(CHECKS)


def test_a_requirement_has_its_fault_and_its_replay_line() -> None:
    options: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["backend"]}
    report = verify(CausalSelfAttention, Falling, require_backend=["math"], **options)
    assert report.verdict == "equivalent"
    assert report.sensitivity.planted == ("softmax-spelled-out",)
    report = verify(CausalSelfAttention, Falling, require_backend=["bfloat16=flash"], **options)
    found = report.results[0].counterexample
    assert report.verdict == "different"
    assert found is not None
    assert "the kernel that ran is math, and flash is required: bfloat16" in found.message
    assert found.replay.endswith("--check backend --require-backend bfloat16=flash")
    (again,) = replay(
        CausalSelfAttention, Falling, found.case, device="cpu", checks=["backend"], require_backend=["bfloat16=flash"]
    )
    assert again.outcome == "different"


def test_where_nothing_would_be_judged_the_run_is_refused() -> None:
    with pytest.raises(UsageError, match="'backend' alone judges nothing"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, device="cpu", checks=["backend"])
    with pytest.raises(UsageError, match="'backend' is not among those that run"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, checks=["output"], require_backend=["flash"])


def test_the_command_ends_in_1_and_says_which_kernel_ran(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--device", "cpu", "--profile", "quick", "--check", "backend"]
    status = main.main(["verify", *options, "--require-backend", "efficient"])
    assert status == 1
    assert "the kernel that ran is flash, and efficient is required: float32" in capsys.readouterr().out
    (tmp_path / "on_cuda.py").write_text(
        "from torch.backends import cuda\ndef set_up():\n"  # as on CUDA, where float32 has no flash kernel
        "    cuda.enable_flash_sdp(False)\n    cuda.enable_mem_efficient_sdp(False)\n"
    )
    setup = ["--setup", f"{tmp_path}/on_cuda.py:set_up"]
    assert main.main(["verify", *options, *setup, "--require-backend", "float32=flash"]) == 1
    assert "the kernel that ran is math, and flash is required: float32" in capsys.readouterr().out
    assert main.main(["verify", *options, "--require-backend", "fast"]) == 2
    assert "a kernel is one of flash, cudnn, efficient, math" in capsys.readouterr().err
