"""The gate: green on the source that a report was made from, and refused by name for everything else."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from gate_reasons import reasons_of, the_reason
from green_reports import changed, edit, green

from equivcheck.cli.options import SHIPPED
from equivcheck.errors import UsageError
from equivcheck.report.model import Deviation, Report, Sensitivity
from equivcheck.report.provenance import digests


def without(report: Report, name: str) -> Report:
    return replace(report, results=tuple(r for r in report.results if r.name != name))


# the refusals by name ------------------------------------------------------------------------------------------------


def test_the_source_that_it_was_made_from_is_green(tree: Path) -> None:
    assert reasons_of(tree, green(tree), devices=("cuda", "H100"), max_age=timedelta(days=1), pair=SHIPPED) == []


def test_a_changed_line_in_the_flash_module_is_named(tree: Path) -> None:
    report = green(tree)
    edit(tree / "equivcheck/attention.py")
    reasons = reasons_of(tree, report)
    assert (
        "report0: stale: equivcheck/attention.py (candidate) was changed after the run; run equivcheck verify again"
        in reasons
    )
    assert all("stale" in reason for reason in reasons)


def test_a_changed_line_in_the_budget_is_named(tree: Path) -> None:
    report = green(tree)
    edit(tree / "equivcheck/numerics/monte_carlo.py")
    assert "stale: equivcheck judges differently since the run (numerics/monte_carlo.py)" in the_reason(tree, report)


def test_a_check_that_is_gone_is_named(tree: Path) -> None:
    report = green(tree)
    assert "check gradients is required and was not run" in the_reason(tree, without(report, "gradients"))
    (tree / "equivcheck/checks/bias.py").unlink()
    assert "stale: equivcheck judges differently since the run (checks/bias.py)" in the_reason(tree, report)


def test_an_expired_deviation_is_named(tree: Path) -> None:
    declared = Deviation("errors", "it runs past its block", "2026-01-30", True)
    report = changed(green(tree, deviations=(declared,)), "errors", outcome="deviation")
    reason = (
        "deviation errors expired on 2026-01-30 (it runs past its block); mend the candidate, or give it a later date"
    )
    assert reasons_of(tree, report) == [reason]
    assert (
        reasons_of(tree, report, deviations={"errors": replace(declared, expires="2026-01-31")}) == []
    )  # its last day
    unlimited = replace(report, deviations=(replace(declared, expires=None),))
    assert reasons_of(tree, unlimited, deviations={"errors": declared}) == [reason]  # the config has been changed since


def test_a_deviation_that_is_no_longer_observed_is_named(tree: Path) -> None:
    report = green(tree, deviations=(Deviation("errors", "it runs past its block"),))
    assert "deviation errors is declared and no longer observed" in the_reason(tree, report)
    assert "deviation purity is declared" in the_reason(tree, green(tree), deviations={"purity": "it counts"})
    observed = changed(report, "errors", outcome="deviation")
    assert reasons_of(tree, observed, report, deviations={"errors": "it runs"}) == []  # on one device of the two


def test_an_old_file_is_named(tree: Path) -> None:
    old = green(tree, created="2026-01-29T11:59:00+00:00")
    assert "too old: 2.0 days where --max-age allows 24.0 hours" in the_reason(tree, old, max_age=timedelta(days=1))
    later = green(tree, created="2026-02-01T00:00:00+00:00")
    assert "later than this machine's clock" in the_reason(tree, later, max_age=timedelta(days=1))
    assert "is none" in the_reason(tree, green(tree, created="yesterday"), max_age=timedelta(days=1))


def test_another_device_is_named(tree: Path) -> None:
    cpu = green(tree, device="cpu")
    reason = the_reason(tree, cpu, devices=("cuda",))
    assert reason == "device cuda is required, and the reports are from cpu; run verify on it, and give that file too"
    assert reasons_of(tree, cpu, green(tree), devices=("cuda", "cpu")) == []  # several files are judged together
    assert "device H200 is required" in the_reason(tree, cpu, green(tree), devices=("H200",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"complete": False}, "partial: the run was cut short"),
        ({"sensitivity": Sensitivity(("a", "b"), ("b",))}, "insensitive: planted faults survived (b)"),
        ({"sensitivity": Sensitivity()}, "insensitive: no fault was planted"),
        ({"files": {}, "sources": {"equivcheck": "0" * 64}}, "stale: it does not tell which files it was made from"),
    ],
)
def test_a_run_that_proves_nothing_is_refused(tree: Path, changes: dict[str, object], words: str) -> None:
    assert words in the_reason(tree, green(tree, **changes))


def test_a_difference_is_refused_and_a_loud_inability_is_not(tree: Path) -> None:
    assert "check output is different" in the_reason(tree, changed(green(tree), "output", outcome="different"))
    assert reasons_of(tree, changed(green(tree), "output", outcome="unsupported")) == []


def test_an_undeclared_deviation_is_refused(tree: Path) -> None:
    report = changed(green(tree), "errors", outcome="deviation")
    assert "deviation errors has no reason" in the_reason(tree, report)


def test_every_file_has_to_hold_by_itself(tree: Path) -> None:
    reasons = reasons_of(tree, green(tree), without(green(tree, device="cpu", complete=False), "output"))
    assert len(reasons) == 2
    assert all(reason.startswith("report1: ") for reason in reasons)


def test_a_check_that_the_project_excludes_is_not_required(tree: Path) -> None:
    assert reasons_of(tree, without(green(tree), "long"), exclude=("long",)) == []
    assert reasons_of(tree, without(green(tree), "long"), checks=("output", "gradients")) == []
    assert "check long is required" in the_reason(tree, without(green(tree), "long"), checks=("long",))
    with pytest.raises(UsageError, match="unknown check 'lung'"):
        reasons_of(tree, green(tree), checks=("lung",))


def test_a_report_of_another_pair_is_no_evidence(tree: Path) -> None:
    report = green(tree, candidate="equivcheck.attention:CausalSelfAttention")
    assert "no report is of equivcheck.attention:Flash" in the_reason(tree, report, pair=SHIPPED)
    assert reasons_of(tree, report, green(tree), pair=SHIPPED) == []


def test_a_file_of_the_pair_that_is_gone_is_named(tree: Path) -> None:
    files = {**green(tree).files, "candidate": {"nowhere/fast.py": "0" * 64}}
    report = green(tree, files=files, sources=digests(files))
    assert "nowhere/fast.py (candidate) is not here" in the_reason(tree, report)
    files["candidate"] = {}
    assert "the candidate has no file" in the_reason(tree, green(tree, files=files, sources=digests(files)))


# against an older report ----------------------------------------------------------------------------------------------


def test_what_fell_behind_an_older_report_is_named(tree: Path) -> None:
    old = green(tree, kernels={"bfloat16, head size 64": "cudnn", "float32": "efficient"})
    assert reasons_of(tree, old, against=old) == []
    new = replace(old, kernels={"bfloat16, head size 64": "math"})
    assert "kernel of bfloat16, head size 64 was cudnn and is math" in the_reason(tree, new, against=old)
    new = changed(old, "output", worst_ratio=0.376)
    assert "the worst ratio grew from 0.25 to 0.376, by more than half" in the_reason(tree, new, against=old)
    assert reasons_of(tree, changed(old, "output", worst_ratio=0.375), against=old) == []
    new = changed(old, "output", outcome="unsupported")
    assert "check output was equivalent and is unsupported" in the_reason(tree, new, against=old)
    assert reasons_of(tree, old, against=new) == []  # it has become better
    assert "check long was equivalent and is gone" in the_reason(
        tree, without(old, "long"), against=old, exclude=("long",)
    )


def test_an_older_report_of_something_else_is_an_error(tree: Path) -> None:
    with pytest.raises(UsageError, match="--against old: it is of"):
        reasons_of(tree, green(tree), against=green(tree, device="cpu"))


def test_evidence_of_an_unsealed_run_or_one_with_findings_is_refused(tree: Path) -> None:
    assert "unsealed: the pair ran in the process that made the verdict" in the_reason(tree, green(tree, sealed=False))
    replaced = "the candidate replaced slow.Attention.forward: its output is not what it is alone"
    assert f"{replaced}; mend the candidate" in reasons_of(tree, green(tree, findings=(replaced,)))[0]
