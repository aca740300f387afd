"""Trials show where an original runs, what a candidate may refuse, and what remains a difference of the candidate."""

from typing import Any

import pytest
import torch
from narrow_originals import attention, candidate_where, function_where, head_size_of, where
from torch import Tensor, nn

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.engine.discovery.discovered import Discovered, _not_too_narrow, discover
from equivcheck.engine.discovery.in_words import rule_in_words
from equivcheck.engine.discovery.single_fields import Refused
from equivcheck.engine.discovery.trials import Trials
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.sides import REFERENCE
from equivcheck.pairs.supported_dtypes import usable_dtypes


def discovered(reference: Any, candidate: Any, *, candidate_tried: bool = False) -> Discovered:
    subject = resolve(reference, candidate, kind="auto", device="cpu")
    dtypes, _ = usable_dtypes(subject)
    return discover(subject, dtypes, candidate=candidate_tried)


def rules_of_module(original: type[nn.Module]) -> list[str]:
    return [rule.rule for rule in discovered(original, original).original]


def test_an_original_that_runs_everywhere_has_no_rule() -> None:
    assert discovered(CausalSelfAttention, FlashCausalSelfAttention, candidate_tried=True) == Discovered()
    assert discovered(attention, attention, candidate_tried=True) == Discovered()


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        (lambda m, x: head_size_of(m, x) in (16, 32, 64, 128), "head_size in (16, 32, 64, 128)"),
        (lambda m, x: head_size_of(m, x) == 80, "head_size == 80"),
        (lambda m, x: x.size(1) % 64 == 0, "seq_len % 64 == 0"),
        (lambda m, x: x.size(1) >= 32, "seq_len >= 32"),
        (lambda m, x: x.dtype == torch.float64 or x.size(1) <= 64, "dtype == 'float64' or seq_len <= 64"),
        (lambda m, x: head_size_of(m, x) * m.n_head <= 128, "n_head * head_size <= 128"),
        (lambda m, x: not m.training, "not training"),
    ],
)
def test_the_rule_of_a_module_is_as_it_was_written(condition: Any, rule: str) -> None:
    assert rules_of_module(where(condition)) == [rule]


def test_two_rules_of_one_field_each_are_seen_together() -> None:
    both = where(lambda m, x: head_size_of(m, x) == 64 and x.size(1) % 128 == 0)
    assert rules_of_module(both) == ["head_size == 64", "seq_len % 128 == 0"]


@pytest.mark.parametrize(
    ("condition", "rules"),
    [
        (lambda q, k, causal: q.size(-1) in (64, 128), ["head_size in (64, 128)"]),
        (lambda q, k, causal: causal, ["is_causal"]),
        (lambda q, k, causal: k.size(2) >= q.size(2), ["kv_len >= seq_len"]),
    ],
)
def test_the_rule_of_a_function_is_as_it_was_written(condition: Any, rules: list[str]) -> None:
    assert [rule.rule for rule in discovered(function_where(condition), attention).original] == rules


def test_an_original_of_equal_lengths_has_no_other_cases() -> None:
    equal = function_where(lambda q, k, causal: q.size(2) == k.size(2))
    subject = resolve(equal, attention, kind="auto", device="cpu")
    assert not {"lengths", "causal lengths"} & subject.features
    assert discovered(equal, attention, candidate_tried=True) == Discovered()


@pytest.mark.parametrize(
    ("condition", "rules"),
    [
        (lambda m, x: head_size_of(m, x) in (16, 32, 64, 128, 256), ["head_size in (16, 32, 64, 128, 256)"]),
        (lambda m, x: head_size_of(m, x) <= 64, ["head_size <= 64"]),
        (lambda m, x: x.size(1) % 16 == 0, ["seq_len % 16 == 0"]),
        (lambda m, x: x.size(1) > 1, []),
        (lambda m, x: x.size(1) <= 64, []),
        (lambda m, x: x.size(0) > 1, []),
        (lambda m, x: x.size(1) % 2 == 0, []),
    ],
    ids=["sizes", "a bound", "a block", "one position", "past 64 positions", "one sample", "odd lengths"],
)
def test_a_candidate_may_refuse_what_one_rule_of_kernels_says(condition: Any, rules: list[str]) -> None:
    pair = discovered(CausalSelfAttention, candidate_where(condition), candidate_tried=True)
    assert [rule.rule for rule in pair.candidate] == rules
    assert all(rule.reason == "ValueError: not supported" for rule in pair.candidate)


def test_a_candidate_is_asked_for_nothing_that_the_original_refuses() -> None:
    original = where(lambda m, x: head_size_of(m, x) % 8 == 0)
    candidate = candidate_where(lambda m, x: head_size_of(m, x) % 8 == 0 and head_size_of(m, x) <= 64)
    pair = discovered(original, candidate, candidate_tried=True)
    assert [rule.rule for rule in pair.original] == ["head_size % 8 == 0"]
    assert [rule.rule for rule in pair.candidate] == ["head_size <= 64"]


class Rotary(CausalSelfAttention):
    """Turns pairs of channels; at odd sizes one half broadcasts against the other, or raises."""

    turned = 1.0  # the share of channels

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._heads(x)
        return self._turn(q), self._turn(k), v

    def _turn(self, x: Tensor) -> Tensor:
        size = int(x.size(-1) * self.turned)
        x, rest = x[..., :size], x[..., size:]
        half = size // 2
        angle = torch.arange(x.size(-2))[:, None] * 10000.0 ** (-torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        turned = torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
        return torch.cat((turned.to(x.dtype), rest), -1)


class PartlyRotary(Rotary):
    turned = 0.5


class Sinusoidal(CausalSelfAttention):
    """Uses sine without turning pairs: odd head sizes mean something."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super()._heads(x + torch.arange(x.size(1))[:, None].sin().to(x.dtype))


@pytest.mark.parametrize(("original", "rules"), [(Rotary, ["head_size % 2 == 0"]), (Sinusoidal, [])])
def test_head_sizes_under_rotary_positions_are_those_that_mean_something(
    original: type[nn.Module], rules: list[str]
) -> None:
    assert rules_of_module(original) == rules


def test_a_part_of_a_head_that_is_turned_must_be_even() -> None:
    (rule,) = rules_of_module(PartlyRotary)
    inside = [size for size in range(2, 65) if Domain.parse(rule).may_allow({"head_size": size})]
    assert inside == [size for size in range(2, 65) if size // 2 % 2 == 0]


def test_a_side_that_compiles_for_each_shape_is_given_few_sizes() -> None:
    each = torch.compile(attention, backend="eager", dynamic=False)

    def compiled(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return each(q, k, v, is_causal=is_causal)

    few = discovered(attention, compiled, candidate_tried=True).few_sizes
    assert few.startswith("seq_len in (1, 16, 33, 64, 128, 256) and head_size in (32, 64)")


@pytest.mark.parametrize(
    ("original", "domain"),
    [
        (where(lambda m, x: head_size_of(m, x) in (16, 32, 64)), "head_size in (16, 32, 64)"),
        (where(lambda m, x: x.size(1) % 16 == 0), "seq_len % 16 == 0"),
    ],
    ids=["head sizes", "a block"],
)
def test_a_right_candidate_is_equivalent_where_the_original_runs(original: Any, domain: str) -> None:
    report = verify(original, FlashCausalSelfAttention, device="cpu", profile="quick", checks=["output", "gradients"])
    assert report.verdict == "equivalent", report
    assert report.domain == domain
    assert not report.sensitivity.survived
    assert f"the original runs for {rule_in_words(domain)}" in report.results[0].notes
    assert not any("original refuses" in note for result in report.results for note in result.notes)


def test_a_refusal_that_is_a_bug_is_different() -> None:
    report = verify(
        CausalSelfAttention,
        candidate_where(lambda m, x: x.size(1) <= 64),
        device="cpu",
        profile="quick",
        checks=["output"],
    )
    (result,) = report.results
    assert report.verdict == "different"
    assert report.domain == ""
    assert "-T65-" in result.counterexample.case


def test_an_original_that_refuses_everything_is_a_line_with_its_exception() -> None:
    with pytest.raises(UsageError, match="ValueError: not supported") as refusal:
        verify(where(lambda m, x: False), FlashCausalSelfAttention, device="cpu", profile="quick", checks=["output"])
    assert "\n" not in str(refusal.value)


def test_a_case_that_the_original_refuses_now_and_then_is_drawn_again() -> None:
    odd = where(lambda m, x: x.size(0) != 3 or x.size(1) < 10 or m.n_head != 2)
    report = verify(odd, FlashCausalSelfAttention, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "equivalent", report


def test_a_mask_of_equal_lengths_leaves_causal_cases_of_every_length() -> None:
    def square(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        s = q @ k.mT * q.size(-1) ** -0.5
        if is_causal:
            T = q.size(-2)
            s = s.masked_fill(torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
        return s.softmax(-1) @ v

    subject = resolve(square, square, kind="function", device="cpu")
    for rule in discover(subject, DTYPES).original:
        domain = Domain.parse(rule.rule)
        assert all(domain.allows(Case(seq_len=n, block_size=n, head_size=8)) for n in range(1, 300)), rule


def test_a_rule_that_keeps_out_what_the_side_runs_is_dropped() -> None:
    subject = resolve(CausalSelfAttention, CausalSelfAttention, kind="module", device="cpu")
    trials = Trials(subject, REFERENCE)
    narrow = Refused("seq_len == 16", "planted", ("seq_len",))
    wide = Refused("seq_len <= 9999", "planted", ("seq_len",))
    drawn = [Case(seq_len=n, block_size=n, head_size=8) for n in (3, 16)]
    assert _not_too_narrow(trials, [narrow, wide], drawn) == [wide]


@pytest.mark.parametrize(("name", "rule"), [("least", "kv_len >= 16"), ("related", "kv_len >= seq_len")])
def test_a_bound_on_the_keys_is_told_from_a_relation_to_the_queries(name: str, rule: str) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    def least(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        assert min(q.size(2), k.size(2)) >= 16
        return attention(q, k, v, is_causal=is_causal)

    def related(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        assert k.size(2) >= q.size(2) >= 16
        return attention(q, k, v, is_causal=is_causal)

    original = {"least": least, "related": related}[name]
    subject = resolve(original, original, kind="function", device="cpu")
    assert rule in [known.rule for known in discover(subject, DTYPES).original]
