"""What a report must have judged, and with what: profile, dtypes, cases, torch, packages and files."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from gate_reasons import noted, reasons_of, the_reason
from green_reports import APPLYING, DTYPES, changed, green

from equivcheck.report.catalogue import least_cases
from equivcheck.report.installed_packages import content_of, version_of
from equivcheck.report.model import CheckResult, Combinations, Counterexample, Package
from equivcheck.report.provenance import digests
from equivcheck.runtime.source_files import CHANGED, hash_of

# what was judged -------------------------------------------------------------------------------------------------------


def test_a_run_of_a_smaller_profile_than_is_wanted_is_named(tree: Path) -> None:
    quick = green(tree, profile="quick")
    reason = "profile quick where gate is required; run with --profile gate, or allow it with --min-profile quick"
    assert the_reason(tree, quick) == f"report0: {reason}"
    assert reasons_of(tree, quick, min_profile="quick") == []
    assert reasons_of(tree, green(tree), min_profile="quick") == []
    assert "profile gate where thorough is required" in the_reason(tree, green(tree), min_profile="thorough")
    assert "profile gut where gate is required" in the_reason(tree, green(tree, profile="gut"))


def test_a_run_with_one_dtype_is_named_by_each_that_is_missing(tree: Path) -> None:
    narrow = green(tree, dtypes=("float32",))
    reasons = reasons_of(tree, narrow)
    assert len(reasons) == 3
    for dtype, reason in zip(DTYPES[1:], reasons, strict=True):
        assert reason == (
            f"report0: dtype {dtype} is required and was not judged; run equivcheck verify again with it, "
            "or allow it with --require-dtypes float32"
        )
    assert reasons_of(tree, narrow, dtypes=("float32",)) == []


def test_a_dtype_that_cannot_run_is_required_only_where_it_is_named(tree: Path) -> None:
    refused = green(tree, dtypes=DTYPES[:3], dtypes_not_run={"float16": "RuntimeError: no half"})
    assert reasons_of(tree, refused) == []
    assert "dtype float16 is required and was not judged (RuntimeError: no half)" in the_reason(
        tree, refused, dtypes=("float16", "float32")
    )


def test_a_smaller_share_of_pairs_than_is_wanted_is_named(tree: Path) -> None:
    counts = {"output": Combinations(948, 948), "gradients": Combinations(900, 948, {"not judged": 48})}
    report = green(tree, coverage={name: {"pairs": of} for name, of in counts.items()})
    assert reasons_of(tree, report) == []
    assert reasons_of(tree, report, min_coverage={"pairs": 0.949}) == []
    assert the_reason(tree, report, min_coverage={"pairs": 1.0}) == (
        "report0: pairs of classes: 900 of 948 are met in gradients, and --min-coverage asks for a share of 1; "
        "run equivcheck verify again with --profile thorough, or allow it with pairs=0.949 in --min-coverage"
    )
    reason = the_reason(tree, report, min_coverage={"pairs": 0.9, "triples": 0.1})
    assert "no triples of classes are counted" in reason
    assert "no pairs of classes are counted" in the_reason(tree, green(tree), min_coverage={"pairs": 1.0})
    none = replace(report, coverage={"output": {"pairs": Combinations(0, 9)}})
    reason = the_reason(tree, none, min_coverage={"pairs": 1.0})
    assert reason.endswith("run equivcheck verify again with --profile thorough")


def test_a_check_of_no_or_few_cases_is_named(tree: Path) -> None:
    known = {"output": 85, "gradients": 55, "purity": 20, "compile": 1, "long": 1}
    for check in APPLYING:
        least = known.pop(check.name, max(1, least_cases(check, "gate", 4) // 2))
        assert reasons_of(tree, changed(green(tree), check.name, cases=least)) == []
        reason = the_reason(tree, changed(green(tree), check.name, cases=least - 1))
        assert f"check {check.name} ran on {least - 1} case" in reason
        assert f"where {least} is the least" in reason
        none = changed(green(tree), check.name, cases=0, outcome="unsupported", detail="no dtype is left")
        assert f"check {check.name} ran on 0 cases" in the_reason(tree, none)
    assert not known


def test_a_check_of_no_cases_has_a_reason_where_its_dtypes_do_not_run(tree: Path) -> None:
    wide = ("float32", "float64")
    not_run = dict.fromkeys(("bfloat16", "float16"), "RuntimeError: no half")
    none = changed(
        green(tree, dtypes=wide, dtypes_not_run=not_run),
        "autocast",
        cases=0,
        outcome="unsupported",
        detail="no dtype is left",
    )
    assert reasons_of(tree, none) == []
    assert "report0: check autocast judged nothing: no dtype is left" in noted(tree, none)
    narrowed = replace(none, dtypes_not_run={})
    assert any("check autocast ran on 0 cases" in reason for reason in reasons_of(tree, narrowed))
    assert reasons_of(tree, narrowed, dtypes=wide) == []  # nobody asks for the dtypes of autocast


def test_a_check_that_judged_nothing_is_a_note(tree: Path) -> None:
    report = changed(green(tree), "long", outcome="not applicable", notes=("the original is not plain",))
    assert reasons_of(tree, report) == []
    assert noted(tree, report) == ["report0: check long is not applicable: the original is not plain"]
    nothing = changed(green(tree), "long", outcome="not judged", not_judged={"memory": 2})
    assert any(
        "level values is required and was not judged: nothing was compared in long" in r
        for r in reasons_of(tree, nothing)
    )


# with what it was judged -----------------------------------------------------------------------------------------------


def test_another_torch_is_a_note_or_refused(tree: Path) -> None:
    here = torch.__version__.partition("+")[0]
    assert noted(tree, green(tree, environment={"torch": f"{here}+cu999"})) == []  # it was built for another device
    other = green(tree, environment={"torch": "2.1.10+cu121"})
    words = f"the run was made with torch 2.1.10+cu121, and here is {version_of('torch')}"
    assert reasons_of(tree, other) == []
    assert noted(tree, other) == [f"report0: {words}"]
    assert words in the_reason(tree, other, strict_environment=True)
    assert noted(tree, other, strict_environment=True) == []
    for fitting in ("2", "2.1", "2.1.10", "2.1.10+cu121"):
        assert reasons_of(tree, other, torch=fitting) == []
    for wanted in ("2.11", "2.1.1", "2.1.10+cpu", "3"):
        assert f"torch {wanted} is required, and the run was made with 2.1.10+cu121" in the_reason(
            tree, other, torch=wanted
        )


def test_another_version_of_a_package_is_a_note_or_refused(tree: Path) -> None:
    report = green(tree, packages={"click": Package("0.1", "0" * 64), "no-such-package": Package("1.2")})
    words = [
        f"the run was made with the package click 0.1, and here is {version('click')}",
        "the run was made with the package no-such-package 1.2, and here is none",
    ]
    assert reasons_of(tree, report) == []
    assert noted(tree, report) == [f"report0: {text}" for text in words]
    reasons = reasons_of(tree, report, strict_environment=True)
    assert [reason.partition(";")[0] for reason in reasons] == [f"report0: {text}" for text in words]


def test_a_package_that_was_edited_is_refused(tree: Path) -> None:
    sha, _ = content_of("click")
    assert reasons_of(tree, green(tree, packages={"click": Package(version("click"), sha)})) == []
    edited = green(tree, packages={"click": Package(version("click"), "0" * 64)})
    assert f"stale: the package click {version('click')} has other files here than in the run" in the_reason(
        tree, edited
    )


def test_what_is_not_covered_is_a_note(tree: Path) -> None:
    report = green(tree, not_covered=("what the network answered: 10.0.0.1",))
    assert reasons_of(tree, report) == []
    assert noted(tree, report) == ["report0: not covered: what the network answered: 10.0.0.1"]


def test_a_module_or_a_data_file_that_was_used_is_compared_too(tree: Path) -> None:
    (tree / "kernel.cu").write_text("__global__ void f() {}")
    for part, words in (("loaded", "loaded by the pair"), ("read", "read by the pair")):
        files = {**green(tree).files, part: {"kernel.cu": hash_of(tree / "kernel.cu")}}
        report = green(tree, files=files, sources=digests(files))
        assert reasons_of(tree, report) == []
        files[part] = {"kernel.cu": CHANGED}
        reason = the_reason(tree, green(tree, files=files, sources=digests(files)))
        assert f"stale: kernel.cu ({words}) was changed while the pair ran" in reason
        files[part] = {"nowhere.cu": "0" * 64}
        assert "nowhere.cu" in the_reason(tree, green(tree, files=files, sources=digests(files)))
        files[part] = {"nowhere.so": "0" * 64}
        compiled = green(tree, files=files, sources=digests(files))
        assert reasons_of(tree, compiled) == []
        assert noted(tree, compiled) == [f"report0: not covered: nowhere.so ({words}), which is compiled and not here"]


def test_a_report_of_an_older_equivcheck_is_one_line(tree: Path) -> None:
    old = green(tree, schema_version=2, dtypes=())
    assert "stale: an older equivcheck wrote it (schema version 2)" in the_reason(tree, old)


def test_few_cases_of_a_shortened_check_are_allowed_at_a_different_level(tree: Path) -> None:
    asked = {"require": ("values", "training", "transforms")}
    example = Counterexample("B1", "differs", "equivcheck replay B1")
    apart = replace(
        changed(green(tree), "checkpoint", outcome="different", counterexample=example),
        **asked,  # type: ignore[arg-type]
    )
    assert reasons_of(tree, changed(apart, "errors", cases=2, shortened=True), **asked) == []
    assert "check errors ran on 2 cases" in the_reason(tree, changed(apart, "errors", cases=2), **asked)
    assert "check output ran on 2 cases" in the_reason(tree, changed(apart, "output", cases=2, shortened=True), **asked)


def test_a_remembered_case_that_differs_is_a_reason_and_no_other_is(tree: Path) -> None:
    example = Counterexample("B1-T3", "it differs", "equivcheck replay B1-T3")
    differs = CheckResult("modes", "different", 1, counterexample=example)
    assert reasons_of(tree, green(tree, remembered=())) == []
    assert (
        reasons_of(tree, green(tree, remembered=(replace(differs, outcome="equivalent", counterexample=None),))) == []
    )
    reason = the_reason(tree, green(tree, remembered=(differs,)))
    assert reason.startswith("report0: check modes is different at training; mend the candidate")
    assert reasons_of(tree, green(tree, remembered=(differs,)), require=("values",)) == []
