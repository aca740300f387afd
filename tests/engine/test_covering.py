"""Every pair of classes of a case's factors is met, inside the domain, by other cases for each seed."""

from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F
from searches import BY_NAME

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.cases.factors import SIGNED_SCALES, factors_of, labels_of
from equivcheck.engine import covering
from equivcheck.engine.covering import chosen, coverage_left, coverage_of, rows_of
from equivcheck.engine.strata import space_of
from equivcheck.numerics.dtypes import DTYPES, WIDE
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report.codec import dumps, loads

OUTPUT, GRADIENTS = BY_NAME["output"], BY_NAME["gradients"]


def module(domain: str = "") -> Pair:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    return replace(subject, domain=Domain.parse(domain)) if domain else subject


def function() -> Pair:
    return resolve(F.scaled_dot_product_attention, F.scaled_dot_product_attention, kind="function", device="cpu")


def rows(subject: Pair, seed: int = 0) -> dict[str, Any]:
    return rows_of([OUTPUT, GRADIENTS], subject, DTYPES, "gate", seed)


@pytest.mark.parametrize("make", [module, function])
def test_every_pair_of_classes_is_met_or_costs_too_much(make: Any) -> None:
    subject = make()
    of_checks = rows(subject)
    assert of_checks["output"] == of_checks["gradients"]
    cases = of_checks["output"]["cases"]
    covered = coverage_of(OUTPUT, subject, DTYPES, "gate", of_checks["output"], cases)["pairs"]
    assert covered["met"] == covered["of"] > 900
    assert set(covered["not_met"]) <= {"cost"}
    assert covered["not_met"].get("cost", 0) <= 0.05 * covered["of"]
    assert len(cases) <= 180
    half = coverage_of(OUTPUT, subject, DTYPES, "gate", of_checks["output"], cases[::2])["pairs"]
    assert half["met"] + half["not_met"]["not judged"] == half["of"]
    assert half["met"] < half["of"]


def test_what_no_part_of_the_cases_meets_all_of_them_do_not_meet() -> None:
    subject = module()
    of_check = rows(subject)["output"]
    cases = of_check["cases"][:60]
    whole = coverage_of(OUTPUT, subject, DTYPES, "gate", of_check, cases)
    parts = coverage_left(OUTPUT, subject, DTYPES, "gate", of_check, [cases[::3], cases[1::3], cases[2::3], []])
    for at, (strength, counts) in enumerate(whole.items()):
        assert {(part[at]["strength"], part[at]["of"]) for part in parts} == {(strength, counts["of"])}
        for reason in ("cost", "not judged"):
            bits = [int(part[at]["not_met"][reason], 16) for part in parts]
            assert (bits[0] & bits[1] & bits[2] & bits[3]).bit_count() == counts["not_met"].get(reason, 0)


def test_sizes_are_those_of_the_field() -> None:
    cases = [Case.parse(case) for case in rows(module())["output"]["cases"]]
    assert {64, 80, 96, 128, 192, 256} <= {case.head_size for case in cases}
    assert {12, 16, 32, 40} <= {case.n_head for case in cases}
    assert any(case.batch_size * case.seq_len > 1024 and case.batch_size > 1 for case in cases)
    assert max(case.n_head * case.head_size for case in cases) <= 800


def test_a_function_is_asked_every_relation_of_keys_to_queries() -> None:
    subject = function()
    cases = [Case.parse(case) for case in rows(subject)["output"]["cases"]]
    assert {None, 0.25, 1.0, 0.0, -0.5} <= {case.scale for case in cases}
    assert all(not case.is_causal and case.dtype in WIDE for case in cases if case.scale in SIGNED_SCALES)
    assert any(case.seq_len <= 8 and case.kv_len >= 64 for case in cases)
    assert any(0 < case.kv_len < case.seq_len for case in cases)
    assert {2, 4, 8} <= {case.n_head // case.kv_heads for case in cases if case.kv_heads}
    factors = factors_of(space_of(OUTPUT, subject, DTYPES), has_weights=False)
    assert all(len(labels_of(case, factors)) == len(factors) for case in cases)


def test_two_seeds_share_hardly_a_case() -> None:
    one, two = (
        {Case.parse(case).but(seed=0).id for case in rows(module(), seed)["output"]["cases"]} for seed in (1, 2)
    )
    assert len(one & two) <= 0.1 * len(one)
    assert rows(module(), 1) == rows(module(), 1)


def test_cases_are_inside_the_domain() -> None:
    subject = module("head_size in (64, 128) and seq_len % 16 == 0 and dtype == 'float32' and not training")
    of_check = rows(subject)["output"]
    cases = [Case.parse(case) for case in of_check["cases"]]
    assert cases
    assert all(subject.domain.allows(case) for case in cases)
    covered = coverage_of(OUTPUT, subject, DTYPES, "gate", of_check, of_check["cases"])["pairs"]
    assert covered["met"] == covered["of"]


@pytest.mark.parametrize("domain", ["", "n_head * head_size <= 256 and batch_size * seq_len <= 512"])
def test_a_thorough_run_meets_every_triple_and_so_every_pair(domain: str) -> None:
    subject = module(domain)
    of_check = rows_of([OUTPUT], subject, DTYPES, "thorough", 0)["output"]
    assert all(subject.domain is None or subject.domain.allows(Case.parse(case)) for case in of_check["cases"])
    covered = coverage_of(OUTPUT, subject, DTYPES, "thorough", of_check, of_check["cases"])
    for strength in ("pairs", "triples"):
        assert covered[strength]["met"] == covered[strength]["of"]
        assert set(covered[strength]["not_met"]) <= {"cost"}
    assert covered["triples"]["of"] > 10000
    assert len(of_check["cases"]) <= 1000
    # what is outside of the domain is a pair, or a triple of which every pair is inside
    assert bool(of_check["outside"]) == bool(domain)
    pairs = {frozenset(map(tuple, one)) for one in of_check["outside"] if len(one) == 2}
    triples = {frozenset(map(tuple, one)) for one in of_check["outside"] if len(one) == 3}
    assert not any(pair < triple for triple in triples for pair in pairs)


def test_small_profiles_and_other_checks_have_none() -> None:
    assert rows_of([OUTPUT], module(), DTYPES, "quick", 0) == {}
    assert rows_of([BY_NAME["causality"]], module(), DTYPES, "thorough", 0) == {}
    assert chosen({}) == []


def test_a_gate_covers_logits_of_models_and_a_thorough_run_those_of_all() -> None:
    model = resolve("equivcheck.gpt:GPT", "equivcheck.gpt:GPT", kind="model", device="cpu")
    logits = BY_NAME["logits"]
    assert rows_of([logits], module(), DTYPES, "gate", 0) == {}
    assert rows_of([logits], module(), DTYPES, "thorough", 0)["logits"]["cases"]
    cases = [Case.parse(case) for case in rows_of([logits], model, DTYPES, "gate", 0)["logits"]["cases"]]
    assert {1, 2, 3, 4} == {case.n_layer for case in cases}
    assert {2, 17, 73} == {case.vocab_size for case in cases}
    assert {True, False} == {case.block_size > case.seq_len for case in cases}


def test_cases_of_dropout_meet_every_rate_and_stay_readable() -> None:
    dropout = BY_NAME["dropout"]
    rows = rows_of([dropout], module(), DTYPES, "gate", 0)["dropout"]
    cases = [Case.parse(case) for case in rows["cases"]]
    assert {case.attn_pdrop for case in cases} == set(dropout.space.train_rates)
    assert all(case.seq_len <= (dropout.space.max_chunks or 0) * case.head_size for case in cases)
    assert not rows["outside"]


class WrongAtTwelveHeads(CausalSelfAttention):
    """Two heads are exchanged where there are exactly twelve."""

    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        return y * 1.01 if self.n_head == 12 else y


SMALL = "seq_len <= 8 and head_size <= 15 and batch_size <= 2 and dtype == 'float32' and not training"


@pytest.mark.parametrize(("candidate", "verdict"), [(CausalSelfAttention, True), (WrongAtTwelveHeads, False)])
def test_the_report_has_the_pairs_that_were_met(candidate: Any, verdict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "_covers", lambda check, *_: bool(check.covering))
    report = verify(CausalSelfAttention, candidate, device="cpu", checks=["output"], domain=SMALL, profile="quick")
    assert (report.verdict != "different") is verdict
    pairs = report.coverage["output"]["pairs"]
    if verdict:
        assert pairs["met"] == pairs.met == pairs["of"] > 0
        triples = report.coverage["output"]["triples"]
        assert 0 < triples.met < triples.of
        assert triples.met + triples.not_met["not judged"] == triples.of
    else:
        assert report.results[0].counterexample is not None
        assert "H12" in report.results[0].counterexample.case
        assert pairs["not_met"]["not judged"] > 0
    assert loads(dumps(report)).coverage == report.coverage


def test_the_id_of_a_case_with_a_negative_scale_rebuilds_it() -> None:
    case = Case(scale=-0.5)
    assert Case.parse(case.id) == case
