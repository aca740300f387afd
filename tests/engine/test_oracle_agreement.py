"""A user's oracle is compared with the original before anything is judged by it; a reading that agrees is offered."""

import re
from pathlib import Path

import pytest

import equivcheck
from equivcheck.api import replay
from equivcheck.engine.oracle_agreement import agreement_note
from equivcheck.errors import UsageError
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

SOURCE = """
import torch
from equivcheck.adapters.readings import softmax_attention_top_left


def kernel(q, k, v, *, is_causal=False, scale=None):
    assert q.dtype in (torch.bfloat16, torch.float16)
    return softmax_attention_top_left(q, k, v, is_causal=is_causal, scale=scale)


def narrow(q, k, v, *, is_causal=False, scale=None):
    assert q.size(-1) in (64, 128), "HEAD_DIM"
    return kernel(q, k, v, is_causal=is_causal, scale=scale)


def like_flash_attn(q, k, v, causal=False):
    return kernel(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal).transpose(1, 2)


def doubled(q, k, v, *, is_causal=False, scale=None):
    return kernel(q, k, v, is_causal=is_causal, scale=scale) * 2


def refuses(q, k, v, *, is_causal=False, scale=None):
    assert q.size(-1) < 5, "only small ones"
    return kernel(q, k, v, is_causal=is_causal, scale=scale)
"""
TOP_LEFT = "equivcheck.adapters.readings:softmax_attention_top_left"
BOTTOM_RIGHT = "equivcheck.adapters.readings:softmax_attention"
DTYPES = ["bfloat16", "float16"]


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "kernels.py").write_text(SOURCE)
    return f"{tmp_path / 'kernels.py'}:"


def pair_of(reference: str, oracle: str) -> Pair:
    return resolve(reference, reference, kind="function", device="cpu", adaptation={"oracle": oracle})


@pytest.mark.parametrize("name", ["narrow", "like_flash_attn"])
def test_an_oracle_that_computes_the_same_agrees_on_fifty_cases(source: str, name: str) -> None:
    note = agreement_note(pair_of(source + name, TOP_LEFT), DTYPES)
    assert note == f"the oracle is {TOP_LEFT}, which agrees with the original on 50 of 50 cases"


@pytest.mark.parametrize(("name", "oracle"), [("doubled", TOP_LEFT), ("kernel", BOTTOM_RIGHT)])
def test_an_oracle_that_computes_something_else_is_refused_in_one_line(source: str, name: str, oracle: str) -> None:
    with pytest.raises(UsageError) as refused:
        agreement_note(pair_of(source + name, oracle), DTYPES)
    message = str(refused.value)
    assert "\n" not in message
    assert re.search(
        r"does not compute what the original .* does: on B\S+ [\w ]+ (is \S+ times further|cannot be compared)", message
    )
    assert "give an oracle" in message


def test_an_agreement_on_few_cases_is_none(source: str) -> None:
    with pytest.raises(UsageError, match="and 25 are needed, because the original refuses the others: AssertionError"):
        agreement_note(pair_of(source + "refuses", TOP_LEFT), DTYPES)


def test_a_reading_that_computes_the_same_is_offered_by_its_name(source: str) -> None:
    with pytest.raises(UsageError, match=r"on 50 of 50 cases: run again with --oracle") as refused:
        equivcheck.verify(source + "kernel", source + "kernel", device="cpu", profile="quick", checks=["output"])
    assert str(refused.value).endswith(f"--oracle {TOP_LEFT}")


def test_no_reading_is_offered_for_something_else(source: str) -> None:
    with pytest.raises(UsageError) as refused:
        equivcheck.verify(source + "doubled", source + "doubled", device="cpu", profile="quick", checks=["output"])
    assert "give --oracle" in str(refused.value)
    assert "readings" not in str(refused.value)


def test_a_report_names_the_oracle_and_a_replay_has_it(source: str) -> None:
    report = equivcheck.verify(
        source + "kernel", source + "doubled", oracle=TOP_LEFT, device="cpu", profile="quick", checks=["output"]
    )
    assert report.verdict == "different"
    assert any(note.startswith(f"the oracle is {TOP_LEFT}, which agrees") for note in report.results[0].notes)
    assert set(report.dtypes) == set(DTYPES)
    shown = report.results[0].counterexample
    assert shown is not None
    assert shown.replay.endswith(f"--oracle {TOP_LEFT}")
    [again] = replay(
        source + "kernel", source + "doubled", shown.case, oracle=TOP_LEFT, device="cpu", checks=["output"]
    )
    assert again.outcome == "different"
