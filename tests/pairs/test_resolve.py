"""A pair is found from objects and import strings, its kind and device found out, and bad input refused in one line."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from given_pairs import CASE, attend, refusal
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.errors import UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import KINDS, resolve
from equivcheck.runtime.device import find_device

# --- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        (CausalSelfAttention, FlashCausalSelfAttention, "module"),
        (lambda config: CausalSelfAttention(config), lambda config: FlashCausalSelfAttention(config), "module"),
        (attend, F.scaled_dot_product_attention, "function"),
        (GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), "model"),
        (GPT, GPT, "model"),
        (GPT, replace_attention_with_flash_attention, "replacement"),
        (GPT, lambda m: replace_attention_with_flash_attention(m), "replacement"),
    ],
)
def test_the_kind_of_a_pair_is_found(reference: Any, candidate: Any, kind: str) -> None:
    assert resolve(reference, candidate, kind="auto", device="cpu").kind == kind
    assert resolve(reference, candidate, kind=kind, device="cpu").kind == kind


def test_finding_the_kind_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    resolve(GPT, replace_attention_with_flash_attention, kind="auto", device="cpu")
    resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_may_return_its_logits_alone() -> None:
    class Logits(GPT):
        def forward(self, idx: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(idx)[0]

    subject = resolve(Logits, GPT, kind="auto", device="cpu")
    assert subject.kind == "model"
    truth = subject.problem(CASE).oracle_values(gradients=False)
    logits = truth["logits"]
    targets = subject.problem(CASE).inputs[1]
    torch.testing.assert_close(truth["loss"], F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize("wrong", ["layer", "", "Module"])
def test_an_unknown_kind_is_refused_with_those_allowed(wrong: str) -> None:
    message = refusal(CausalSelfAttention, kind=wrong)
    assert repr(wrong) in message
    assert all(kind in message for kind in KINDS)


def test_a_kind_that_the_pair_is_not_is_refused() -> None:
    assert "looks like a module" in refusal(CausalSelfAttention, kind="model")


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        (lambda: None, "takes no argument, and is called with a config"),
        (nn.Linear(3, 3), "is an instance of Linear: give the class itself, or a factory f(config)"),
        (lambda config: 3, "it returned int"),
        (lambda config: nn.Linear(3, 3), "on module input it raised RuntimeError"),
        (lambda config: nn.Flatten(), "on model input it returned (2, 3)"),
        (lambda q, k, v: q, "is a function of q, k, v, and"),
        (lambda q, k, v, window: q, "needs 'window', which is not known"),
        (3, "cannot be called"),
    ],
)
def test_a_pair_that_fits_no_kind_is_refused_with_what_was_tried(reference: Any, named: str) -> None:
    assert named in refusal(reference, attend if "window" in named else FlashCausalSelfAttention)


def test_a_candidate_that_is_an_instance_is_refused_rather_than_judged() -> None:
    with pytest.raises(UsageError, match="is an instance of Identity: give the class itself"):
        resolve(CausalSelfAttention, nn.Identity(), kind="auto", device="cpu")


# --- devices ---------------------------------------------------------------------------------------------------------


def test_devices_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("wrong", ["gpu", "meta", "mps", "", "cuda:x"])
def test_an_unknown_device_is_refused_with_those_allowed(wrong: str) -> None:
    assert "auto, cpu, cuda and cuda:N" in refusal(CausalSelfAttention, device=wrong)


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA GPU" in refusal(CausalSelfAttention, device="cuda")
    assert "sees no CUDA GPU" in refusal(CausalSelfAttention, device="cuda:1")


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert "use cuda:0 to cuda:1" in refusal(CausalSelfAttention, device="cuda:2")
    assert find_device("cuda") == find_device("auto") == torch.device("cuda", 1)
