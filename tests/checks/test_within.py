"""What is said of a difference where it arose: its message, its class, and the line by which the search tells it apart."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from equivcheck.cases.case import Case
from equivcheck.checks import CaseResult
from equivcheck.checks.base.within import within
from equivcheck.engine.case_outcomes import origin_of, outcome_of
from equivcheck.errors import Mismatch, Raised
from equivcheck.pairs.write_guard import Overwritten


def raise_within(error: Exception, elsewhere: bool, options: Mapping[str, Any]) -> None:
    if elsewhere:
        with within("elsewhere", **options):
            raise error
    with within("under autocast", **options):
        for _ in range(2):
            raise error


def seen(error: Exception, elsewhere: bool = False, **options: Any) -> Mismatch:
    with pytest.raises(Mismatch) as caught:
        raise_within(error, elsewhere, options)
    return caught.value


def test_a_message_begins_with_where_it_arose_and_all_else_stays() -> None:
    mismatch = seen(Mismatch("too far", ratio=2.5, where="output"))
    assert (str(mismatch), mismatch.ratio, mismatch.where) == ("under autocast: too far", 2.5, "output")
    assert mismatch.__cause__ is None
    assert str(seen(Mismatch("too far"), separator=":\n")) == "under autocast:\ntoo far"
    assert seen(Mismatch("too far", where="output"), where="n_head").where == "n_head"


def test_what_the_candidate_raised_stays_that_unless_it_is_plain() -> None:
    loud = seen(Raised("the candidate raises", where="TypeError"))
    assert type(loud) is Raised
    assert (loud.ratio, loud.where) == (math.inf, "TypeError")
    assert type(seen(Raised("the candidate raises"), plain=True)) is Mismatch
    assert type(seen(Overwritten("x was overwritten"))) is Mismatch


def test_what_is_no_difference_goes_through() -> None:
    with pytest.raises(KeyError), within("under autocast"):
        raise KeyError("x")


def test_the_origin_of_a_difference_is_the_line_that_said_where() -> None:
    first, again, other = (origin_of(seen(Mismatch(m), elsewhere=m == "c")) for m in "abc")
    assert first == again
    assert first.startswith("Mismatch test_within.py:")
    assert first != other
    assert origin_of(seen(Raised("a", where="TypeError"))) == f"{first.replace('Mismatch', 'Raised')} TypeError"
    case = Case(batch_size=1, seq_len=1, n_head=1, head_size=1, block_size=1)
    assert outcome_of(case, seen(Mismatch("a"))).origin == first


def test_several_results_are_one() -> None:
    helds = (
        CaseResult(0.2, "a", ("x",)),
        CaseResult(0.5, "b", ("y",), judged=False),
        CaseResult(0.5, "c", ("x",)),
        CaseResult(),
    )
    assert CaseResult.worst(helds) is helds[1]
    assert CaseResult.together(helds) == CaseResult(0.5, "b", ("x", "y"))
    assert CaseResult.together(
        [CaseResult(judged=False), CaseResult(judged=False, unsupported=("vmap",))]
    ) == CaseResult(judged=False, unsupported=("vmap",))
