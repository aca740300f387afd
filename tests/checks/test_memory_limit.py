"""The check `memory`: the candidate's peak memory is held to a multiple of the original's, where a limit is given."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.api import replay, verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.checks import CHECKS
from equivcheck.checks.memory import limiting, memory, stands_for
from equivcheck.cli.main import main
from equivcheck.errors import Mismatch, ReferenceRaises, UsageError
from equivcheck.pairs.resolve import resolve
from equivcheck.report.chosen_checks import chosen_checks
from equivcheck.report.levels import LEVELS
from equivcheck.report.model import CheckResult
from equivcheck.runtime.memory_limit import memory_limit

CASE = Case(batch_size=1, seq_len=4, n_head=1, head_size=2, block_size=4)


class KeepsScores(FlashCausalSelfAttention):
    """A (T, T) matrix is alive beside the result of a flash kernel."""

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.zeros(x.size(1), x.size(1), dtype=x.dtype)
        return super().forward(x) + 0 * scores[0, 0]


class CachesScores(FlashCausalSelfAttention):
    """A (T, T) matrix is made in the first call, and stays."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = torch.zeros(x.size(1), x.size(1), dtype=x.dtype)
        return super().forward(x) + 0 * self.kept[0, 0]


class SavesScores(FlashCausalSelfAttention):
    """A (T, T) matrix is made in the backward pass alone."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.requires_grad:
            y.register_hook(lambda g: g + 0 * torch.zeros(x.size(1), x.size(1), dtype=g.dtype)[0, 0])
        return y


class ShortAlone(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) > 64:
            raise ValueError("too long")
        return super().forward(x)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    scores = q @ k.transpose(-2, -1) * scale  # (B, H, T, T)
    if is_causal:
        scores = scores.masked_fill(
            torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).tril().logical_not(), -torch.inf
        )
    return F.dropout(scores.softmax(-1), dropout_p) @ v


def pair(candidate: Any = FlashCausalSelfAttention, reference: Any = FlashCausalSelfAttention) -> Any:
    return resolve(reference, candidate, kind="auto", device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_flash_attention_is_far_below_the_original(dtype: str) -> None:
    result = memory(pair(reference=CausalSelfAttention), CASE.but(dtype=dtype), limit=1.0)
    assert result.judged
    assert result.ratio is not None
    assert result.ratio < 0.5
    forward, both = result.notes
    assert forward.startswith(f"{dtype}, forward: ")
    assert forward.endswith("memory grows as T^1.0, the original's as T^2.0")
    assert both.startswith(f"{dtype}, forward and backward: ")


def test_the_same_attention_is_at_a_ratio_of_one() -> None:
    assert memory(pair(), CASE, limit=1.0).ratio == 1.0


@pytest.mark.parametrize("candidate", [KeepsScores, CachesScores])
def test_a_matrix_of_scores_is_a_difference_that_names_both_peaks(candidate: type) -> None:
    with pytest.raises(Mismatch) as caught:
        memory(pair(candidate), CASE, limit=1.5)
    first, *lengths, growth = str(caught.value).splitlines()
    assert first == (
        "forward takes 21 MiB at T=2048, 4.2 times the original's 5 MiB, and 1.5 times is the limit: float32, batch 1, "
        "2 heads of 64, eval, on cpu"
    )
    assert lengths == [
        "  T=512: 2.25 MiB, the original 1.25 MiB",
        "  T=1024: 6.5 MiB, the original 2.5 MiB",
        "  T=2048: 21 MiB, the original 5 MiB",
    ]
    assert growth == "  memory grows as T^1.7, the original's as T^1.0"
    assert caught.value.ratio == pytest.approx(4.2 / 1.5)


def test_a_generous_limit_admits_it() -> None:
    assert memory(pair(KeepsScores), CASE, limit=6.0).ratio == pytest.approx(4.2 / 6.0)


def test_memory_of_the_backward_pass_counts() -> None:
    with pytest.raises(Mismatch, match=r"^forward and backward takes "):
        memory(pair(SavesScores), CASE, limit=1.2)


def test_functions_and_models_are_measured_too() -> None:
    assert memory(pair(attend, spelled_out), CASE, limit=1.0).judged
    with pytest.raises(Mismatch, match=r"memory grows as T\^[12]\.\d, the original's as T\^1\.0"):
        memory(pair(spelled_out, attend), CASE, limit=1.0)
    whole = pair(reference=CausalSelfAttention).within_gpt()
    assert memory(whole, CASE.but(n_layer=1, vocab_size=5), limit=1.0).judged


def test_lengths_and_sizes_stay_in_the_domain() -> None:
    def sizes(domain: str, case: Case = CASE) -> list[tuple[int, int, int]]:
        one = pair()
        object.__setattr__(one, "domain", Domain.parse(domain))
        cases = stands_for(one, case)
        assert all(one.domain.allows(longer) for longer in cases)
        return [(longer.seq_len, longer.n_head, longer.head_size) for longer in cases]

    assert sizes("seq_len > 0") == [(512, 2, 64), (1024, 2, 64), (2048, 2, 64)]
    assert sizes("seq_len <= 200") == [(50, 2, 64), (100, 2, 64), (200, 2, 64)]
    assert sizes("seq_len % 96 == 4 and head_size == 2") == [(484, 1, 2), (964, 1, 2), (2020, 1, 2)]
    assert sizes("seq_len == 4") == [(4, 1, 2)]


def test_nothing_is_compared_where_the_original_raises_at_every_length() -> None:
    with pytest.raises(ReferenceRaises, match="too long"):
        memory(pair(reference=ShortAlone), CASE, limit=1.0)
    with pytest.raises(Mismatch, match="the candidate raises ValueError: too long"):
        memory(pair(ShortAlone), CASE, limit=1.0)


def test_a_limit_that_compared_nothing_is_no_green_run() -> None:
    assert CheckResult("memory", "not judged", 1).in_vain
    assert not CheckResult("backend", "not judged", 1).in_vain


def test_without_a_limit_the_check_is_not_among_those_that_run() -> None:
    assert "memory" not in [check.name for check in chosen_checks(None, (), "module")]
    assert "memory" in [check.name for check in chosen_checks(None, (), "module", ("memory",))]
    assert "memory" not in [check.name for check in chosen_checks(["output"], (), "module", ("memory",))]
    assert limiting(CHECKS, None) == list(CHECKS)
    options: dict[str, Any] = {"checks": ["memory"], "profile": "quick", "dtypes": ["float32"], "device": "cpu"}
    with pytest.raises(UsageError, match="say which one with --max-memory-ratio"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, **options)
    with pytest.raises(UsageError, match="'memory' is not among those that run"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, **options | {"checks": ["output"]}, max_memory_ratio=1.0)
    with pytest.raises(UsageError, match="'memory' has no case in the domain in float32 or bfloat16"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, **options | {"dtypes": ["float16"]}, max_memory_ratio=1.0)


@pytest.mark.parametrize("ratio", [0, -1.0, float("inf"), float("nan"), "1", True])
def test_a_ratio_is_a_finite_number_above_zero(ratio: Any) -> None:
    with pytest.raises(UsageError, match=f"^max_memory_ratio {ratio!r}: a finite number above 0 is allowed"):
        verify(CausalSelfAttention, FlashCausalSelfAttention, max_memory_ratio=ratio)
    assert memory_limit(2) == 2.0


def test_a_run_fails_at_no_level_and_its_replay_has_the_limit() -> None:
    run = partial(verify, CausalSelfAttention, device="cpu", profile="screen", checks=["memory"], dtypes=["float32"])
    report = run(FlashCausalSelfAttention, max_memory_ratio=0.5)
    assert report.verdict == "not refuted"
    report = run(CausalSelfAttention, max_memory_ratio=0.5)
    assert report.verdict == "different"
    assert [report.levels[level] for level in LEVELS] == ["not judged"] * len(LEVELS)
    shown = report.results[0].counterexample
    assert shown is not None
    assert shown.replay.endswith("--check memory --max-memory-ratio 0.5")
    (again,) = replay(
        CausalSelfAttention, CausalSelfAttention, shown.case, device="cpu", checks=["memory"], max_memory_ratio=0.5
    )
    assert (again.outcome, again.worst_ratio) == ("different", 2.0)


def test_the_command_line_and_the_project_set_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["verify", "--check", "memory", "--device", "cpu", "--jobs", "1", "--profile"]
    assert main([*options, "quick", "--max-memory-ratio", "1.0"]) == 0
    assert "1 of 1 planted fault caught" in capsys.readouterr().out
    Path("pyproject.toml").write_text("[tool.equivcheck]\nmax_memory_ratio = 0.01\n")
    assert main([*options, "screen"]) == 1
    assert "and 0.01 times is the limit" in capsys.readouterr().out
    Path("pyproject.toml").write_text("[tool.equivcheck]\nmax_memory_ratio = 0\n")
    assert main([*options, "screen"]) == 2
    assert "max_memory_ratio = 0 was given, and a finite number above 0 is allowed" in capsys.readouterr().err
