"""Runs within a declared domain: every case is inside, planted faults are caught there, counterexamples stay there."""

import math
import shlex
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.checks import CHECKS
from equivcheck.engine.drawing import draw_cases
from equivcheck.engine.search import Search
from equivcheck.engine.strata import classes
from equivcheck.errors import UsageError
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.worker.plan import replay_line

DOMAIN = "head_size in (16, 32) and seq_len % 16 == 0 and seq_len <= 64 and kv_len == seq_len and dtype == 'bfloat16'"
BY_NAME = {check.name: check for check in CHECKS}
judged: list[tuple[int, ...]] = []


def picky(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    """An original with limits; the truth is computed in float64, and so it takes that."""
    judged.append((*q.shape, k.shape[-2]))
    assert q.shape[-1] in (16, 32), f"head size {q.shape[-1]}"
    assert q.shape[-2] == k.shape[-2]
    assert q.shape[-2] % 16 == 0
    assert q.dtype in (torch.bfloat16, torch.float64)
    s = q @ k.mT * q.size(-1) ** -0.5  # (B, H, T, T)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    return s.softmax(-1) @ v


def fast(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    assert q.shape[-1] in (16, 32)
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def wrong(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    y = fast(q, k, v, is_causal=is_causal)
    return y * 1.5 if q.shape[-2] > 20 else y


def run(candidate: Any, domain: Any = DOMAIN, **options: Any) -> Any:
    return verify(picky, candidate, profile="quick", device="cpu", domain=domain, **options)


def test_a_run_within_a_domain_is_sensitive_and_all_its_cases_are_inside() -> None:
    judged.clear()
    report = run(fast, checks=["output", "gradients", "causality"])
    assert report.verdict == "equivalent", report
    assert report.domain == DOMAIN
    assert report.dtypes == ("bfloat16",)
    assert set(report.dtypes_not_run.values()) == {"it is outside of the domain"}
    domain = Domain.parse(DOMAIN)
    shown = [*report.sensitivity.caught_by.values(), *(r.worst_case or "" for r in report.results)]
    assert all(domain.allows(Case.parse(text.rpartition(" ")[2])) for text in shown)
    assert not report.sensitivity.survived
    cases = [size for size in judged if not (size[0] == 3 and size[1] in (4, 16, 64))]  # which axis is the sequence's?
    assert all(size[-2] in (16, 32) and size[-3] % 16 == 0 and size[-3] == size[-1] for size in cases)
    assert not any("itself raises" in note for result in report.results for note in result.notes)


def test_a_counterexample_is_the_smallest_case_inside() -> None:
    subject = resolve(picky, wrong, kind="function", device="cpu", domain=DOMAIN)
    check = BY_NAME["output"]
    search = Search(check, subject, 16, 60, math.inf, lambda _: None)
    search.run(classes(check, subject, DTYPES, 16), 0)
    case = search.minimal
    assert case is not None
    assert all(subject.domain.allows(case) for case in (*search.failed, *search.passed))
    assert (case.seq_len, case.head_size, case.batch_size, case.n_head) == (32, 16, 1, 1)
    assert replay_line(subject, check).endswith(f"--domain {shlex.quote(DOMAIN)}")


@pytest.mark.parametrize("kind", ["module", "model"])
@pytest.mark.parametrize(
    "text", ["n_embd == 768 and seq_len <= 128", "head_size == 64 and seq_len >= 16", "not training", "n_head == 12"]
)
def test_every_class_of_every_check_is_inside(kind: str, text: str) -> None:
    sides = (CausalSelfAttention, FlashCausalSelfAttention) if kind == "module" else (GPT, GPT)
    subject = resolve(*sides, kind=kind, device="cpu", domain=text)
    for check in CHECKS:
        if kind not in check.kinds:
            continue
        seen: list[Case] = []

        def collect(case: Case) -> None:
            seen.append(case)  # noqa: B023  # called at once

        for number, (strategy, _) in enumerate(classes(check, subject, DTYPES, check.cases["quick"])):
            draw_cases(strategy, 2, number, collect)
        assert all(subject.domain.allows(case) for case in seen), check.name
        assert seen or text == "not training", check.name


def test_polishing_keeps_to_the_dtypes_of_the_check() -> None:
    def off_in_bfloat16(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal) * 1.5

    subject = resolve(F.scaled_dot_product_attention, off_in_bfloat16, kind="function", device="cpu")
    check = BY_NAME["output"]
    space = check.space.but(dtypes=("bfloat16",))
    search = Search(replace(check, space=space), subject, 4, 30, math.inf, lambda _: None)
    search.run(classes(search.check, subject, DTYPES, 4), 0)
    assert search.minimal is not None
    assert {case.dtype for case in search.failed} == {"bfloat16"}


def test_a_function_of_a_case_is_a_domain_of_a_pair_of_objects() -> None:
    report = run(fast, lambda case: Domain.parse(DOMAIN).allows(case), checks=["interface"])
    assert "<lambda>" in report.domain
    assert report.results[0].outcome == "equivalent"


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("head_size == 5 and is_causal", r"refuses every case that was tried .* AssertionError: head size 5"),
        ("head_size < 16 and head_size > 64", r"is empty: no case meets it; 'head_size .* alone rejects the most"),
        ("dtype == 'float16' and dtype == 'float32'", r"has no case in|is empty"),
        (lambda case: False, r"accepts none of"),
    ],
)
def test_a_domain_in_which_nothing_can_be_judged_is_one_line(domain: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        run(fast, domain)
    assert len(str(refused.value).splitlines()) == 1


def test_a_pair_of_import_strings_takes_no_function_as_a_domain() -> None:
    with pytest.raises(UsageError, match="give the import string of the function"):
        verify("pkg.slow:attention", "pkg.fast:attention", domain=lambda case: True)
