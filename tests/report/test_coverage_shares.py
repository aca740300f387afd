"""Shares of pairs and triples of classes: those that a user asks for, and the smallest of a report."""

import pytest
from sample_reports import OUTPUT, report_of

from equivcheck.errors import UsageError
from equivcheck.report.coverage import share, shares_of, smallest
from equivcheck.report.model import Combinations


def test_shares_are_read_by_strength() -> None:
    assert shares_of("pairs=1.0") == {"pairs": 1.0}
    assert shares_of(" pairs = 1, triples = .5 ") == {"pairs": 1.0, "triples": 0.5}
    assert shares_of(None) is None


@pytest.mark.parametrize(
    "text",
    ["", "pairs", "pairs=", "pairs=two", "pairs=0", "pairs=1.1", "pairs=nan", "pair=1", "pairs=1,", "pairs=1,pairs=1"],
)
def test_another_share_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        shares_of(text)
    assert str(refused.value) == (
        f"--min-coverage {text!r}: pairs and triples with a number above 0 and up to 1, such as pairs=1.0,triples=0.5, "
        "are allowed"
    )


def test_the_smallest_share_is_that_of_the_check_that_meets_least() -> None:
    assert smallest(report_of(OUTPUT), "pairs") is None
    counts = {"output": Combinations(9, 10), "gradients": Combinations(80, 100), "dropout": Combinations(0, 0)}
    report = report_of(OUTPUT, coverage={name: {"pairs": of} for name, of in counts.items()})
    assert smallest(report, "pairs") == ("gradients", Combinations(80, 100))
    assert smallest(report, "triples") is None
    assert [share(of) for of in counts.values()] == [0.9, 0.8, 1.0]
