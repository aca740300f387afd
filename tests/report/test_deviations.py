"""Deviations: with a reason, until a day, and told of when they no longer show."""

from datetime import UTC, datetime, timedelta

import pytest
from sample_reports import BROKEN, OUTPUT

from equivcheck.errors import UsageError
from equivcheck.report.deviations import apply_deviation, parse_deviations
from equivcheck.report.model import Deviation

TODAY = datetime.now(UTC).date()


def test_a_difference_that_is_declared_is_a_deviation_to_its_last_day() -> None:
    for given in ("the mask is wider", Deviation("", "the mask is wider", (TODAY + timedelta(1)).isoformat())):
        found = apply_deviation(BROKEN, parse_deviations({"output": given}))
        assert (found.outcome, found.detail) == ("deviation", "declared: the mask is wider")


def test_one_that_has_expired_accepts_nothing_and_says_so() -> None:
    expired = (TODAY - timedelta(1)).isoformat()
    found = apply_deviation(BROKEN, parse_deviations({"output": Deviation("output", "the mask is wider", expired)}))
    assert found.outcome == "different"
    assert found.detail == f"the deviation declared for it expired on {expired}: the mask is wider"


def test_one_that_no_longer_shows_is_noted() -> None:
    found = apply_deviation(OUTPUT, parse_deviations({"output": "the mask is wider"}))
    assert found.outcome == "equivalent"
    assert found.notes == ("the declared deviation no longer shows: the mask is wider",)
    assert apply_deviation(OUTPUT, {}) == OUTPUT


@pytest.mark.parametrize(
    ("given", "words"), [({"outputs": "x"}, "unknown deviation 'outputs'"), ({"output": " "}, "has no reason")]
)
def test_one_without_a_check_or_a_reason_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_deviations(given)
