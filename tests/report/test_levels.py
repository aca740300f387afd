"""Levels: the outcome at each, which are required, and what a verdict makes of them."""

from dataclasses import replace

import pytest
from sample_reports import BROKEN, GRADIENTS, OUTPUT, report_of

from equivcheck.errors import UsageError
from equivcheck.faults import AROUND, FAULTS
from equivcheck.report.catalogue import CATALOGUE
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.codec import dumps, loads
from equivcheck.report.deviations import apply_deviation, observed, parse_deviations, undeclared
from equivcheck.report.github import annotations
from equivcheck.report.junit import render
from equivcheck.report.levels import LEVELS, levels_of, required_of
from equivcheck.report.model import CheckResult, Counterexample, Finding, Sensitivity
from equivcheck.report.outcomes import levels_with

EXAMPLE = Counterexample("B1", "attribute 'n_head' of the original is missing", "equivcheck replay B1 a:A b:B")
ATTRIBUTES, HOOKS = (Finding(name, "drop-in", "different", EXAMPLE) for name in ("attributes", "hooks"))
INTERFACE = CheckResult(
    "interface", "different", 4, counterexample=EXAMPLE, findings=(ATTRIBUTES, HOOKS), levels={"drop-in": "different"}
)


def test_a_difference_counts_where_its_level_is_required() -> None:
    report = report_of(OUTPUT, INTERFACE)
    assert report.verdict == "different"
    assert report.levels["drop-in"] == "different"
    assert verdict_line(report).startswith(
        "different at drop-in: values is equivalent; interface.attributes, interface.hooks,"
    )
    apart = replace(report, require=("values",))
    assert apart.verdict == "equivalent"
    assert verdict_line(apart).startswith("equivalent at values: ")
    assert "drop-in is different and not required (interface.attributes, interface.hooks)" in verdict_line(apart)
    assert replace(report, kind="function").verdict == "equivalent"


def test_a_difference_that_is_not_required_is_no_failure_elsewhere() -> None:
    report = report_of(OUTPUT, INTERFACE)
    assert len(annotations(report)) == 2
    assert annotations(replace(report, require=("values",))) == []
    assert 'type="different"' in render(report)
    assert 'type="different"' not in render(replace(report, require=("values",)))


def test_a_required_level_at_which_nothing_was_compared_is_not_judged() -> None:
    nothing = CheckResult("dropout", "not judged", 3, not_judged={"rounding": 3})
    report = report_of(OUTPUT, nothing)
    assert report.verdict == "not judged"
    assert "3 cases not judged (3 rounding)" in verdict_line(report)
    assert replace(report, require=("values",)).verdict == "equivalent"
    assert replace(report, require=("values", "transforms")).verdict == "not judged"  # no check of it was run
    assert report_of(OUTPUT, replace(nothing, outcome="not applicable", not_judged={})).verdict == "equivalent"


def test_refusals_and_deviations_leave_a_level_equivalent() -> None:
    report = report_of(OUTPUT, replace(GRADIENTS, outcome="unsupported"))
    assert (report.levels["values"], report.verdict) == ("equivalent", "equivalent")
    assert report_of(replace(OUTPUT, outcome="unsupported")).levels["values"] == "unsupported"


def test_a_survivor_counts_where_its_level_is_required() -> None:
    of = Sensitivity(("a", "b"), ("b",), levels={"a": "values", "b": "transforms"})
    report = report_of(OUTPUT, CheckResult("autocast", "equivalent", 3), sensitivity=of)
    assert report.verdict == "insensitive"
    assert replace(report, require=("values",)).verdict == "equivalent"
    unknown = replace(of, levels={})
    assert replace(report, require=("values",), sensitivity=unknown).verdict == "insensitive"


def test_a_deviation_is_of_one_finding_of_a_check_or_of_a_family() -> None:
    one = apply_deviation(INTERFACE, parse_deviations({"interface.attributes": "renamed"}))
    assert (one.outcome, one.levels) == ("different", {"drop-in": "different"})
    assert one.differing == ("interface.hooks",)
    both = apply_deviation(INTERFACE, parse_deviations({"interface": "fused"}))
    assert (both.outcome, both.levels) == ("deviation", {"drop-in": "deviation"})
    assert observed([one]) == {"interface.attributes", "interface"}
    gone = apply_deviation(OUTPUT, parse_deviations({"output": "wider"}))
    assert gone.notes[-1] == "the declared deviation no longer shows: wider"
    other = apply_deviation(INTERFACE, parse_deviations({"interface.config": "why"}))
    assert other.notes == ("the declared deviation no longer shows: why",)


@pytest.mark.parametrize("name", ["interface.colour", "interfaces", "output.attributes"])
def test_a_deviation_of_an_unknown_finding_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="unknown deviation") as raised:
        parse_deviations({name: "why"})
    assert "\n" not in str(raised.value)


def test_levels_are_read_in_any_order_and_unknown_ones_are_refused() -> None:
    assert levels_of("drop-in, values") == ("values", "drop-in")
    assert levels_of(["training"]) == ("training",)
    assert levels_of(None) is None
    for wrong in ("numbers", "values,numbers"):
        with pytest.raises(UsageError, match="unknown level 'numbers': allowed are values, training"):
            levels_of(wrong)
    for nothing in ("", " , ", []):
        with pytest.raises(UsageError, match="names no level"):
            levels_of(nothing)
    assert required_of("function") == ("values", "training")
    assert required_of("module") == required_of("replacement") == LEVELS


def test_levels_are_written_and_read_back() -> None:
    report = report_of(OUTPUT, BROKEN, INTERFACE, require=("values",))
    again = loads(dumps(report))
    assert again == report
    assert again.levels == report.levels


def test_every_check_that_judges_and_every_fault_has_a_level() -> None:
    assert all(check.level in LEVELS for check in CATALOGUE if check.judges)
    assert all(set(check.findings.values()) <= set(LEVELS) for check in CATALOGUE)
    assert all(fault.level in LEVELS or fault.seen_by in (("backend",), ("memory",)) for fault in (*AROUND, *FAULTS))
    assert {fault.level for fault in AROUND if set(fault.around) == {"replacement"}} == {"drop-in"}


def test_what_a_finding_hides_is_not_judged() -> None:
    values = Finding("", "values", "different", EXAMPLE)
    hidden = dict.fromkeys(("drop-in", "training", "transforms"), "not judged")
    assert levels_with("purity", [values]) == {"values": "different", **hidden}
    settings = Finding("settings", "drop-in", "different", EXAMPLE)
    assert levels_with("purity", [settings]) == {"drop-in": "different", "values": "equivalent"}
    by_numbers = Finding("hooks", "values", "different", EXAMPLE)  # an ordinary call shows it as well
    assert levels_with("interface", [by_numbers]) == {"values": "different", "drop-in": "not judged"}
    assert levels_with("interface", [by_numbers, ATTRIBUTES]) == {"values": "different", "drop-in": "different"}


def test_a_deviation_without_a_declaration_is_named_under_its_own_name() -> None:
    one = apply_deviation(INTERFACE, parse_deviations({"interface.attributes": "renamed"}))
    assert undeclared([one], ["interface.attributes"]) == []
    assert undeclared([one], ["interface.hooks"]) == ["interface.attributes"]
    old = CheckResult("replacement.modes", "deviation", 3)  # of an earlier version: no findings
    assert undeclared([old], ["replacement.hooks"]) == ["replacement.modes"]
    assert undeclared([old], ["replacement"]) == []
