"""What comes back: a bare tensor or a tuple, the loss in its place, logits without targets, and code that leaves by sys.exit."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}
CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=1, vocab_size=17)


def hold(check: str, reference: Any, candidate: Any, kind: str, **fields: Any) -> Any:
    subject = resolve(reference, candidate, kind=kind, device="cpu")
    return BY_NAME[check].run(subject, CASE.but(**fields))


def hold_all_of(check: str, reference: Any, candidate: Any, kind: str, seeds: Any) -> None:
    for seed in seeds:
        hold(check, reference, candidate, kind, seed=seed)


def message_of(check: str, reference: Any, candidate: Any, kind: str, **fields: Any) -> str:
    with pytest.raises(Mismatch) as seen:
        hold(check, reference, candidate, kind, **fields)
    return str(seen.value)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, dropout_p: float = 0.0, scale: Any = None
) -> Any:
    s = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], device=s.device).triu(1) == 1, -torch.inf)
    return F.dropout(F.softmax(s, -1), dropout_p) @ v


def in_a_tuple(function: Any) -> Any:
    def returning(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Any:
        return function(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale), None

    return returning


class InATuple(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class OriginalInATuple(CausalSelfAttention):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


# --- forms -----------------------------------------------------------------------------------------------------------


def test_a_function_that_returns_a_tuple_is_no_drop_in_for_a_tensors() -> None:
    assert "tuple" in message_of("output", attend, in_a_tuple(F.scaled_dot_product_attention), "function", n_layer=0)


def test_a_function_that_returns_a_tensor_is_no_drop_in_for_a_tuples() -> None:
    assert "a tuple of 2" in message_of(
        "output", in_a_tuple(attend), F.scaled_dot_product_attention, "function", n_layer=0
    )


def test_functions_that_both_return_tuples_are_compared_by_the_tensor() -> None:
    hold("output", in_a_tuple(attend), in_a_tuple(F.scaled_dot_product_attention), "function", n_layer=0)


def test_a_module_returns_what_the_original_returns() -> None:
    assert "tuple" in message_of("output", CausalSelfAttention, InATuple, "module", n_layer=0)
    assert "a tuple of 2" in message_of("output", OriginalInATuple, FlashCausalSelfAttention, "module", n_layer=0)
    hold("output", OriginalInATuple, InATuple, "module", n_layer=0)


class Flash(GPT):
    """What a right candidate is, for faults to be made of."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, attention=FlashCausalSelfAttention)

    def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> Any:
        logits, loss, *rest = super().forward(idx, targets, return_attentions)
        return self.changed(logits, loss, targets, *rest)

    def changed(self, logits: Tensor, loss: Tensor | None, targets: Tensor | None, *rest: Any) -> Any:
        return (logits, loss, *rest)


@pytest.mark.parametrize("check", ["interface", "logits", "generation"])
def test_a_right_gpt_passes(check: str) -> None:
    hold(check, GPT, Flash, "model")


def changing(change: Any) -> type[Flash]:
    class Changed(Flash):
        def changed(self, logits: Tensor, loss: Tensor | None, targets: Tensor | None, *rest: Any) -> Any:
            return change(logits, loss, targets)

    return Changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits, loss, targets: logits, "a tensor"),
        (lambda logits, loss, targets: (logits, loss, None), "a tuple of 3"),
        (lambda logits, loss, targets: (logits, None), "with targets returns a tuple of 2 with no loss"),
        (lambda logits, loss, targets: (logits, logits.sum() if loss is None else loss), "without targets"),
    ],
)
def test_a_model_returns_logits_and_loss_as_the_original_does(change: Any, words: str) -> None:
    assert words in message_of("interface", GPT, changing(change), "model")


# --- targets ---------------------------------------------------------------------------------------------------------


class LastOnly(GPT):
    """As nanoGPT: without targets the logits of the last position alone."""

    def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> Any:
        logits, loss = super().forward(idx, targets)
        return (logits[:, [-1]] if targets is None else logits), loss


class FirstOnly(LastOnly):
    def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> Any:
        logits, loss = GPT.forward(self, idx, targets)
        return (logits[:, [0]] if targets is None else logits), loss


def test_logits_without_targets_are_the_originals() -> None:
    scaled = changing(lambda logits, loss, targets: (logits * (1.02 if targets is None else 1.0), loss))
    assert "without targets" in message_of("logits", GPT, scaled, "model")
    assert "without targets" in message_of("logits", GPT, LastOnly, "model")


def test_last_logits_are_judged_where_the_original_gives_no_more() -> None:
    hold("logits", LastOnly, LastOnly, "model")
    assert "without targets" in message_of("logits", LastOnly, FirstOnly, "model")
    assert "without targets" in message_of("logits", LastOnly, GPT, "model")


@pytest.mark.parametrize("ignored", [-100, 3])
def test_targets_that_the_original_does_not_count_are_not_counted(ignored: int) -> None:
    def change(logits: Tensor, loss: Tensor | None, targets: Tensor | None) -> Any:
        if targets is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignored)
        return logits, loss

    with pytest.raises(Mismatch):
        hold("logits", GPT, changing(change), "model")


def test_a_loss_that_is_a_mean_of_means_is_seen_where_samples_count_unlike() -> None:
    def change(logits: Tensor, loss: Tensor | None, targets: Tensor | None) -> Any:
        if targets is not None:
            each = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none")
            loss = (each.sum(1) / (targets != -1).sum(1).clamp(min=1)).mean()
        return logits, loss

    assert "does not count" in message_of("logits", GPT, changing(change), "model")


# --- generate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", ["temperature", "top_k"])
def test_a_generate_that_ignores_an_option_is_seen(ignored: str) -> None:
    class Ignoring(Flash):
        def generate(self, idx: Tensor, max_new_tokens: int, **options: Any) -> Tensor:  # type: ignore[override]
            return super().generate(idx, max_new_tokens, **{n: v for n, v in options.items() if n != ignored})

    with pytest.raises(Mismatch, match="of the first three, cooled"):
        hold_all_of("generation", GPT, Ignoring, "model", seeds=range(8))


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_scale_that_is_left_out_is_the_originals() -> None:
    def wrong(
        q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, dropout_p: float = 0.0, scale: Any = 1.0
    ) -> Any:
        return attend(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)

    message_of("output", attend, wrong, "function", n_layer=0, seed=1)
    hold("output", attend, F.scaled_dot_product_attention, "function", n_layer=0, seed=1)


def test_one_query_beside_many_keys_has_cases_of_its_own() -> None:
    subject = resolve(attend, F.scaled_dot_product_attention, kind="function", device="cpu")
    alone = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    output, dtypes = BY_NAME["output"], ("float32", "bfloat16")
    assert len(classes(output, subject, dtypes, 260)) == len(classes(output, alone, dtypes, 260)) + 1


def test_lengths_past_600_are_cut_in_each_wide_dtype_and_a_narrow_one() -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    found = classes(BY_NAME["lengths"], subject, ("float32", "float64", "bfloat16", "float16"), 8)
    assert [count for _, count in found][-3:] == [1, 1, 1]


# --- sys.exit ---------------------------------------------------------------------------------------------------------


class Leaving(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        sys.exit(3)


class LeavingWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        sys.exit(3)


@pytest.mark.parametrize("candidate", [Leaving, LeavingWhenBuilt])
@pytest.mark.parametrize("check", ["output", "interface", "purity"])
def test_a_candidate_that_calls_sys_exit_is_different(candidate: type[nn.Module], check: str) -> None:
    assert "sys.exit(3) was called" in message_of(check, CausalSelfAttention, candidate, "module", n_layer=0)


def test_a_replacement_that_calls_sys_exit_is_different() -> None:
    def leaving(model: nn.Module) -> nn.Module:
        sys.exit(3)

    assert "sys.exit(3) was called" in message_of("replacement.returned", GPT, leaving, "replacement", n_layer=2)


# --- one input unlike the others --------------------------------------------------------------------------------------


def test_strides_that_are_taken_from_the_queries_for_the_keys_are_seen() -> None:
    def wrong(
        q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, dropout_p: float = 0.0, scale: Any = None
    ) -> Any:
        k = k if q.stride() == k.stride() else k * 1.02
        return attend(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)

    assert "alone" in message_of("layouts", attend, wrong, "function", n_layer=0)
