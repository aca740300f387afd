"""A run of any pair: which counterexample it ends with, what it plants, and what becomes of it where a GPU is lost."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivcheck
from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.planting import planted
from equivcheck.engine.probes import Probes
from equivcheck.errors import DeviceLost, UsageError
from equivcheck.faults import FAULTS
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime.device import ensure_device_alive


class Attention(nn.Module):
    """The original: its class says in which dtype the softmax runs."""

    softmax: torch.dtype | None = None

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(config.n_embd, config.n_embd) for _ in range(3))
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (f(x).view(B, T, self.n_head, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.attend(q, k, v).transpose(1, 2).reshape(B, T, C)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.transpose(-2, -1)) / q.size(-1) ** 0.5  # (B, H, T, T)
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(), -float("inf"))
        return s.softmax(-1, dtype=self.softmax).to(v.dtype) @ v


class InSingle(Attention):
    softmax = torch.float32


class Fast(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class RefusesFloat32(Fast):
    """In half precision it is wrong, and in float32 it is not there."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype is torch.float32:
            raise RuntimeError("no kernel for float32")
        return super().attend(q, k, v) * (1.5 if q.dtype is torch.bfloat16 else 1.0)


def test_a_counterexample_is_in_no_dtype_that_is_refused_as_a_whole() -> None:
    report = equivcheck.verify(Attention, RefusesFloat32, device="cpu", profile="quick", checks=["output"])
    (result,) = report.results
    assert report.verdict == "different"
    assert result.counterexample is not None
    assert "-bfloat16-" in result.counterexample.case
    assert "raises" not in result.counterexample.message


def test_a_counterexample_is_of_the_dtypes_that_were_asked_for() -> None:
    report = equivcheck.verify(
        Attention, RefusesFloat32, device="cpu", profile="quick", checks=["output"], dtypes=["bfloat16", "float16"]
    )
    (result,) = report.results
    assert result.counterexample is not None
    assert "-bfloat16-" in result.counterexample.case


class RefusesWideHeads(Fast):
    widest = 128

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.size(-1) > self.widest:
            raise ValueError("no kernel for so wide a head")
        return super().attend(q, k, v)


def test_wide_heads_may_be_refused_and_that_is_unsupported() -> None:
    report = equivcheck.verify(Attention, RefusesWideHeads, device="cpu", profile="quick", checks=["output"])
    (result,) = report.results
    assert report.verdict == "equivalent"
    assert report.domain == "head_size <= 128"
    assert "the candidate refuses head_size > 128: ValueError: no kernel for so wide a head" in result.unsupported


@pytest.mark.parametrize(
    ("fault", "smallest"),
    [
        ("wrong-past-sixty-four-heads", "B1-T1-H65-D1-"),
        ("wrong-past-256-samples", "B257-T1-H1-D1-"),
        ("wrong-past-head-size-128", "B1-T1-H1-D129-"),
    ],
)
def test_what_is_wrong_from_some_number_on_is_found_and_shrinks_to_it(fault: str, smallest: str) -> None:
    (wrong,) = (f.attention for f in FAULTS if f.name == fault)
    report = equivcheck.verify(CausalSelfAttention, wrong, device="cpu", profile="gate", checks=["output"])
    (result,) = report.results
    assert result.counterexample is not None
    assert result.counterexample.case.startswith(smallest)


def test_a_fault_that_is_no_larger_than_what_the_original_does_is_doubtful() -> None:
    def names(original: Any) -> set[str]:
        subject = resolve(original, Fast, kind="module", device="cpu")
        return {fault.name for fault in planted(subject, {"output"}, "quick", 0) if not fault.doubtful}

    assert names(Attention) - names(InSingle) == {"outputs-through-float32"}
    assert not names(InSingle) - names(Attention)


def test_a_coarse_original_is_not_insensitive_for_what_it_hides() -> None:
    report = equivcheck.verify(InSingle, Fast, device="cpu", profile="quick", checks=["output"], dtypes=["float64"])
    assert report.sensitivity.planted
    assert not report.survived
    assert "half-precision-wrong" in report.sensitivity.without_effect
    assert not {*report.sensitivity.without_effect} & {*report.sensitivity.planted}


def test_a_gpu_that_does_not_answer_ends_the_run_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: object, **__: object) -> Tensor:
        raise RuntimeError("CUDA error: misaligned address\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "zeros", dead)
    ensure_device_alive(torch.device("cpu"), "it ran")  # nothing to lose
    ensure_device_alive(torch.device("cuda"), "it ran", ValueError("a right refusal"))  # no kernel's doing
    with pytest.raises(
        DeviceLost, match=r"^cuda is lost .* while it ran: RuntimeError: CUDA error: misaligned address; "
    ) as lost:
        ensure_device_alive(torch.device("cuda"), "it ran", RuntimeError("CUDA error: misaligned address\nCompile"))
    assert isinstance(lost.value, UsageError)
    assert "\n" not in str(lost.value)
    with pytest.raises(DeviceLost):  # taken for a refusal, and found out afterwards
        ensure_device_alive(torch.device("cuda"), "it ran")


def test_a_gpu_that_answers_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(()))
    ensure_device_alive(torch.device("cuda"), "it ran", RuntimeError("out of memory"))


def test_a_fault_changes_probes_only_in_dtypes_that_are_run() -> None:
    subject = resolve(CausalSelfAttention, CausalSelfAttention, kind="module", device="cpu")
    output = [check for check in CHECKS if check.name == "output"]
    attentions = {fault.name: fault.attention for fault in FAULTS}

    def changed(name: str, dtypes: Sequence[str]) -> bool:
        probes = Probes(subject, dtypes, {"output": 170}, 0)
        return any(probes.changed_by(subject.with_candidate(attentions[name], name), output))

    narrower = ("float32", "float64", "bfloat16")
    assert changed("wrong-in-float16", DTYPES)
    assert not changed("wrong-in-float16", narrower)
    assert all(changed(name, narrower) for name in ("wrong-past-head-size-64", "wrong-in-bfloat16"))


class GrowingWithLength(CausalSelfAttention):
    """Its error grows with the number of positions; with one it is hardly beyond rounding."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * (1 + 2e-5 * x.size(1))


class AlwaysSmall(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * (1 + 2e-5)


@pytest.mark.parametrize(
    ("candidate", "lengths", "least", "most"),
    [(GrowingWithLength, range(3, 30), 8.0, 40.0), (AlwaysSmall, range(1, 2), 1.0, 4.0)],
)
def test_a_clear_failure_is_not_made_small_until_it_reads_like_rounding(
    candidate: Any, lengths: range, least: float, most: float
) -> None:
    report = equivcheck.verify(
        CausalSelfAttention, candidate, device="cpu", profile="quick", checks=["output"], dtypes=["float32"]
    )
    counterexample = report.results[0].counterexample
    assert counterexample is not None
    assert Case.parse(counterexample.case).seq_len in lengths
    assert least <= (counterexample.ratio or 0.0) <= most
