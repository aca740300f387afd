"""Shares of pairs and triples of classes: those that a user asks for, and the smallest of a report."""

import pytest
from sample_reports import OUTPUT, report_of

from equivcheck.errors import UsageError
from equivcheck.report import markdown, page, table
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
    equal = report_of(OUTPUT, coverage={name: {"pairs": Combinations(9, 9)} for name in ("output", "gradients")})
    assert smallest(equal, "pairs") == ("gradients", Combinations(9, 9))
    assert [share(of) for of in counts.values()] == [0.9, 0.8, 1.0]


def test_the_closing_lines_name_the_smallest_share_of_each() -> None:
    coverage = {
        "output": {"pairs": Combinations(948, 948, {"cost": 42}), "triples": Combinations(5, 10, {"not judged": 5})},
        "gradients": {"pairs": Combinations(947, 948, {"not judged": 1}), "triples": Combinations(9, 10)},
    }
    report = report_of(OUTPUT, coverage=coverage)
    line = "smallest coverage: pairs 947 of 948 met in gradients, triples 5 of 10 met in output"
    assert line in table.plain(report).splitlines()
    assert f"{line}." in markdown.render(report).splitlines()
    assert page.view(report, {})["combinations"] == [
        ("output", "948 of 948 met (42 cost too much)", "5 of 10 met"),
        ("gradients", "947 of 948 met", "9 of 10 met"),
    ]
    for text in (table.plain(report_of(OUTPUT)), markdown.render(report_of(OUTPUT))):
        assert "coverage" not in text


def test_pairs_alone_are_a_line_without_triples() -> None:
    report = report_of(OUTPUT, coverage={"output": {"pairs": Combinations(948, 948, {"cost": 42})}})
    assert "smallest coverage: pairs 948 of 948 met in output (42 cost too much)" in table.plain(report).splitlines()
    assert page.view(report, {})["combinations"] == [("output", "948 of 948 met (42 cost too much)", "-")]
