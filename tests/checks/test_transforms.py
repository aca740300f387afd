"""What shows under a transform only, or in long use: seen by the check it is for, and refused loudly is unsupported."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from check_cases import spelled_out
from torch import Tensor, nn

import equivcheck
from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.checks.base.retained_memory import sizes
from equivcheck.cli import main
from equivcheck.engine.planting import planted
from equivcheck.errors import Mismatch
from equivcheck.faults import Fault
from equivcheck.faults.around.module_contract import adapter_ignored
from equivcheck.faults.around.transforms import CHANGES
from equivcheck.faults.correct.another_core import Rewritten
from equivcheck.faults.correct.rewritten import CachedMask
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report import junit
from equivcheck.report.model import Report
from equivcheck.report.table import plain

BY_NAME = {check.name: check for check in CHECKS}


PLAIN = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, seed=1)


NARROW = PLAIN.but(dtype="bfloat16")


def case_for(check: str) -> Case:
    return {"autocast": NARROW, "lengths": PLAIN.but(seq_len=220, block_size=220)}.get(check, PLAIN)


def module(candidate: Any, reference: Any = CausalSelfAttention) -> Pair:
    return resolve(reference, candidate, kind="module", device="cpu")


@pytest.mark.parametrize("fault", CHANGES, ids=lambda fault: fault.name)
def test_what_shows_under_a_transform_is_seen_by_its_check_alone(fault: Fault) -> None:
    candidate, check = module(fault.put_around(CausalSelfAttention, "module")), fault.seen_by[0]
    with pytest.raises(Mismatch):
        BY_NAME[check].run(candidate, case_for(check))
    for other in ("output", "gradients"):
        BY_NAME[other].run(candidate, PLAIN)


@pytest.mark.parametrize("kind", ["function", "model"])
def test_plants_for_transforms_are_seen_around_functions_and_models_too(kind: str) -> None:
    subject = resolve(spelled_out, spelled_out, kind=kind, device="cpu") if kind == "function" else None
    subject = subject or resolve(GPT, GPT, kind="model", device="cpu")
    case = {} if kind == "function" else {"n_layer": 1, "vocab_size": 5}
    faults = [f for f in planted(subject, set(BY_NAME), "quick", 0) if f.name in {change.name for change in CHANGES}]
    assert len(faults) >= len(CHANGES) - 2
    for fault in faults:
        if subject.kind in BY_NAME[fault.seen_by[0]].kinds and not fault.doubtful:
            with pytest.raises(Mismatch):
                BY_NAME[fault.seen_by[0]].run(fault.subject, case_for(fault.seen_by[0]).but(**case))


class CompiledOff(CausalSelfAttention):
    """Wrong when compiled, where `where` says so."""

    @staticmethod
    def where(module: nn.Module, x: Tensor) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 1.01 if torch.compiler.is_compiling() and self.where(self, x) else y


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (lambda module, x: not torch.is_grad_enabled(), "and no_grad"),
        (lambda module, x: module.training, r"switched to train\(\)"),
        (lambda module, x: x.size(1) < 5, "called with 2 positions after 5"),
    ],
)
def test_a_compiled_candidate_is_called_in_every_way(where: Any, message: str) -> None:
    wrong = type("Wrong", (CompiledOff,), {"where": staticmethod(where)})
    with pytest.raises(Mismatch, match=message):
        BY_NAME["compile"].run(module(wrong), PLAIN)


class CacheOfAutocast(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        cached = torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled()
        return super().forward(x) * (1.25 if cached else 1.0)


def test_autocast_keeps_the_weights_that_it_casts_as_it_does_by_default() -> None:
    with pytest.raises(Mismatch, match=r"under torch.autocast in bfloat16: "):
        BY_NAME["autocast"].run(module(CacheOfAutocast), NARROW)


def test_long_sequences_are_drawn_for_autocast_and_compilation() -> None:
    assert BY_NAME["autocast"].space.max_seq_len >= 129
    assert BY_NAME["compile"].space.min_seq_len > 32


# --- loud inability --------------------------------------------------------------------------------------------------


class OnceOnly(Rewritten):
    """A right core whose backward pass is of torch's kernel: not twice differentiable on the CPU."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_a_refused_transform_is_unsupported_with_its_reason() -> None:
    held = BY_NAME["derivatives"].run(module(OnceOnly), PLAIN)
    assert [what.split(":")[0] for what in held.unsupported] == ["second derivatives", "torch.func.jvp"]
    assert "is not implemented" in held.unsupported[0]
    assert held.ratio is not None  # what it can do was compared


def test_what_is_once_differentiable_is_not_left_out_in_silence() -> None:
    from equivcheck.faults import RIGHT

    flash = next(right for right in RIGHT if right.name == "flash-recurrence")
    held = BY_NAME["derivatives"].run(module(flash.attention), PLAIN)
    assert "marked with @once_differentiable" in held.unsupported[0]


def test_where_the_original_cannot_either_there_is_only_a_note() -> None:
    held = BY_NAME["derivatives"].run(module(OnceOnly, OnceOnly), PLAIN)
    assert not held.unsupported
    assert any("second derivatives: the original itself raises" in note for note in held.notes)


class BreaksTheGraph(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.detach().sum() > -1e30 else y * 2


def test_a_graph_that_breaks_is_unsupported_by_compile() -> None:
    held = BY_NAME["compile"].run(module(BreaksTheGraph), PLAIN)
    assert held.unsupported[0].startswith("torch.compile(fullgraph=True): Unsupported")


class RefusesAutocast(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            raise NotImplementedError("not under autocast\nat all")
        return super().forward(x)


def test_unsupported_fails_under_strict_only() -> None:
    def run(*, strict: bool) -> Report:
        return equivcheck.verify(
            CausalSelfAttention, RefusesAutocast, checks=["autocast"], profile="quick", device="cpu", strict=strict
        )

    lenient, strict = run(strict=False), run(strict=True)
    assert lenient.results[0].outcome == strict.results[0].outcome == "unsupported"
    assert "NotImplementedError: not under autocast (" in " ".join(lenient.results[0].unsupported)
    assert (lenient.verdict, strict.verdict) == ("equivalent", "unsupported")
    assert not strict.equivalent
    assert "unsupported: autocast, and the run is strict" in plain(strict)
    assert "<failure" in junit.render(strict)
    assert "<failure" not in junit.render(lenient)


def test_a_strict_report_is_read_back_as_strict(tmp_path: Any) -> None:
    report = equivcheck.verify(CausalSelfAttention, RefusesAutocast, checks=["autocast"], profile="quick", strict=True)
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    assert dataclasses.replace(report, strict=False).equivalent


def test_a_strict_run_of_the_command_line_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["equivcheck.attention:CausalSelfAttention", "equivcheck.faults.correct.blockwise:FlashRecurrence"]
    options = ["--check", "derivatives", "--profile", "quick", "--device", "cpu"]
    assert main.main(["verify", *pair, *options]) == 0
    assert main.main(["verify", *pair, *options, "--strict"]) == 1
    assert "and the run is strict" in capsys.readouterr().out


def test_an_exception_in_a_plain_backward_pass_is_different() -> None:
    class NoBackward(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if y.requires_grad:
                y.register_hook(self.refuse)
            return y

        def refuse(self, gradient: Tensor) -> Tensor:
            raise NotImplementedError("no backward pass")

    for check in ("derivatives", "autocast", "compile"):
        with pytest.raises(Mismatch, match="NotImplementedError: no backward pass; the original runs"):
            BY_NAME[check].run(module(NoBackward), case_for(check))


# --- interface, purity, checkpoints ----------------------------------------------------------------------------------


def test_an_adapter_that_is_not_called_is_named_by_its_part() -> None:
    with pytest.raises(Mismatch, match=r"^with an adapter on key: grad key\.down: there is none"):
        BY_NAME["interface"].run(module(lambda config: adapter_ignored(CausalSelfAttention(config))), PLAIN)


def test_a_hook_whose_result_is_not_used_is_seen() -> None:
    class Unhooked(Parted):
        """Calls the projection, and goes on with what it would have given without hooks."""

        def out(self, y: Tensor) -> Tensor:
            self.proj(self.merged(y))
            return self.resid_drop(F.linear(self.merged(y), self.proj.weight, self.proj.bias))

    with pytest.raises(Mismatch, match="with a forward hook on proj"):
        BY_NAME["interface"].run(module(Unhooked), PLAIN)


@pytest.mark.parametrize(
    ("field", "seen"), [("n_head", "n_head"), ("attn_pdrop", "attn_pdrop"), ("resid_pdrop", "resid_pdrop")]
)
def test_a_field_of_the_config_that_the_candidate_ignores_is_named(field: str, seen: str) -> None:
    class Ignoring(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            if field == "n_head":
                self.n_head, kept = 2, self.n_head
                y = super().forward(x)
                self.n_head = kept
                return y
            drop = self.attn_drop if field == "attn_pdrop" else self.resid_drop
            kept = drop.p
            drop.p = 0.0
            y = super().forward(x)
            drop.p = kept
            return y

    with pytest.raises(Mismatch, match=f"with {seen}=.* in the config"):
        BY_NAME["interface"].run(module(Ignoring), PLAIN)


def test_a_rate_or_a_head_count_that_only_rounding_tells_of_accuses_nobody() -> None:
    for regime in ("constant_v", "near_initial"):
        BY_NAME["interface"].run(module(OnceOnlyButDropping), PLAIN.but(dtype="bfloat16", regime=regime))


class OnceOnlyButDropping(Rewritten):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate if rate < 1 else 0.0)
        return F.dropout(y, 1.0) if rate == 1 else y


def test_an_optimizer_state_that_goes_to_another_parameter_is_seen() -> None:
    class Reordering(CausalSelfAttention):
        """Its parameters come in another order than their names."""

        def parameters(self, recurse: bool = True) -> Any:
            return iter(list(super().parameters(recurse))[::-1])

    case = PLAIN.but(n_head=1, head_size=1)  # where every parameter takes any state of its rank
    with pytest.raises(Mismatch, match=r"its state went to another parameter|does not fit"):
        BY_NAME["checkpoint"].run(module(Reordering), case)


KEPT: list[Tensor] = []


def test_what_grows_with_every_call_has_a_name() -> None:
    class Listing(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x.detach())
            return super().forward(x)

    class Hoarding(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            KEPT.append(x.detach())
            return super().forward(x)

    with pytest.raises(Mismatch, match=r"^seen grows: by .* in 4 calls"):
        BY_NAME["purity"].run(module(Listing), PLAIN)
    with pytest.raises(Mismatch, match=r"the global 'KEPT' of .*test_transforms grows"):
        BY_NAME["purity"].run(module(Hoarding), PLAIN)
    KEPT.clear()


def test_a_cache_by_length_does_not_grow() -> None:
    attention, seen = CachedMask(PLAIN.config()), []
    for length in (5, 5, 5, 3):
        attention(torch.zeros(1, length, 8))
        seen.append(sizes(attention, torch.device("cpu"))["masks"])
    assert seen[0] == seen[1] == seen[2] < seen[3]  # a mask is kept for each length, once
    BY_NAME["purity"].run(module(CachedMask), PLAIN)


def test_how_nan_spreads_is_a_note_and_refusing_it_is_different() -> None:
    held = BY_NAME["extremes"].run(module(OnceOnly), PLAIN.but(dtype="float16"))
    assert any("than in the original are not finite" in note for note in held.notes)

    class Strict(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            if not bool(torch.isfinite(x).all()):
                raise ValueError("not finite")
            return super().forward(x)

    with pytest.raises(Mismatch, match="NaN in the last position: the candidate raises ValueError"):
        BY_NAME["extremes"].run(module(Strict), PLAIN)


@pytest.mark.parametrize("check", ["layouts", "batching", "derivatives"])
def test_a_counterexample_is_small(check: str) -> None:
    name = {
        "layouts": "expanded-gradient-read-once",
        "batching": "batch-of-one-off",
        "derivatives": "second-derivative-lost",
    }
    (fault,) = (fault for fault in CHANGES if fault.name == name[check])
    report = equivcheck.verify(
        CausalSelfAttention,
        fault.put_around(CausalSelfAttention, "module"),
        kind="module",
        checks=[check],
        profile="quick",
        device="cpu",
    )
    found = report.results[0].counterexample
    assert found is not None
    case = Case.parse(found.case)
    assert case.batch_size * case.seq_len * case.n_head * case.head_size <= 8


def fused(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = True, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """Torch's fused kernel: as an original, it has no second derivative and no forward mode on the CPU."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def test_an_original_without_a_transform_makes_no_run_insensitive() -> None:
    found = equivcheck.verify(fused, fused, device="cpu", profile="quick", checks=["derivatives"])
    assert found.verdict == "equivalent"
    assert found.sensitivity.planted == ("mapped-one-percent-off",)
    assert any("second derivatives: the original itself raises" in note for note in found.results[0].notes)
