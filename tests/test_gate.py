"""The gate: green on the source that a report was made from, and refused by name for everything else."""

import json as stdlib_json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import equivcheck
from equivcheck.checks import CHECKS
from equivcheck.cli.main import main
from equivcheck.cli.options import SHIPPED
from equivcheck.engine.gate.verdict import GatePolicy, notes, violations
from equivcheck.errors import UsageError
from equivcheck.report import codec
from equivcheck.report.catalogue import least_cases
from equivcheck.report.installed_packages import content_of, version_of
from equivcheck.report.model import SCHEMA_VERSION, CheckResult, Counterexample, Deviation, Package, Report, Sensitivity
from equivcheck.report.provenance import digests, package_files
from equivcheck.runtime.source_files import CHANGED, hash_of

PACKAGE = Path(equivcheck.__file__).parent
CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
APPLYING = [check for check in CHECKS if "module" in check.kinds]
DTYPES = ("float32", "float64", "bfloat16", "float16")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that holds a copy of the package, to be changed."""
    shutil.copytree(PACKAGE, tmp_path / "equivcheck", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def green(tree: Path, **changes: object) -> Report:
    """What `verify` would have written in that tree for the pair that ships."""
    attention = {"equivcheck/attention.py": hash_of(tree / "equivcheck/attention.py")}
    files = {"equivcheck": package_files(tree / "equivcheck"), "reference": attention, "candidate": attention}
    facts = {
        "reference": SHIPPED[0],
        "candidate": SHIPPED[1],
        "kind": "module",
        "device": "cuda:0 (NVIDIA H100 80GB HBM3)",
        "profile": "gate",
        "seed": 0,
        "results": tuple(
            CheckResult(c.name, "equivalent", least_cases(c, "gate", 4), 1.0, 0.25, CASE, "output") for c in APPLYING
        ),
        "dtypes": DTYPES,
        "sensitivity": Sensitivity(("mask-off-by-one",), (), {}),
        "complete": True,
        "seconds": 41.2,
        "created": "2026-01-31T11:00:00+00:00",
        "environment": {"torch": str(torch.__version__)},
        "files": files,
        "sources": digests(files),
        "sealed": True,
    }
    return Report(**{**facts, **changes})  # type: ignore[arg-type]


def told(tree: Path, *reports: Report, against: Report | None = None, **demands: object) -> list[str]:
    options = {"root": tree, "package": tree / "equivcheck", "now": NOW, **demands}
    named = {f"report{number}": report for number, report in enumerate(reports)}
    old = None if against is None else ("old", against)
    return list(violations(named, GatePolicy(**options), old))  # type: ignore[arg-type]


def noted(tree: Path, *reports: Report, **demands: object) -> list[str]:
    options = {"root": tree, "package": tree / "equivcheck", "now": NOW, **demands}
    named = {f"report{number}": report for number, report in enumerate(reports)}
    return list(notes(named, GatePolicy(**options)))  # type: ignore[arg-type]


def the_reason(tree: Path, *reports: Report, **demands: object) -> str:
    (reason,) = told(tree, *reports, **demands)  # type: ignore[arg-type]
    assert "\n" not in reason
    assert "; " in reason, "no way out"
    return reason


def changed(report: Report, name: str, **changes: object) -> Report:
    results = tuple(replace(r, **changes) if r.name == name else r for r in report.results)  # type: ignore[arg-type]
    return replace(report, results=results)


def without(report: Report, name: str) -> Report:
    return replace(report, results=tuple(r for r in report.results if r.name != name))


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "\nCHANGED = True\n")


# the refusals by name ------------------------------------------------------------------------------------------------


def test_the_source_that_it_was_made_from_is_green(tree: Path) -> None:
    assert told(tree, green(tree), devices=("cuda", "H100"), max_age=timedelta(days=1), pair=SHIPPED) == []


def test_a_changed_line_in_the_flash_module_is_named(tree: Path) -> None:
    report = green(tree)
    edit(tree / "equivcheck/attention.py")
    reasons = told(tree, report)
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
    assert told(tree, report) == [reason]
    assert told(tree, report, deviations={"errors": replace(declared, expires="2026-01-31")}) == []  # its last day
    unlimited = replace(report, deviations=(replace(declared, expires=None),))
    assert told(tree, unlimited, deviations={"errors": declared}) == [reason]  # the config has been changed since


def test_a_deviation_that_is_no_longer_observed_is_named(tree: Path) -> None:
    report = green(tree, deviations=(Deviation("errors", "it runs past its block"),))
    assert "deviation errors is declared and no longer observed" in the_reason(tree, report)
    assert "deviation purity is declared" in the_reason(tree, green(tree), deviations={"purity": "it counts"})
    observed = changed(report, "errors", outcome="deviation")
    assert told(tree, observed, report, deviations={"errors": "it runs"}) == []  # on one device of the two


def test_an_old_file_is_named(tree: Path) -> None:
    old = green(tree, created="2026-01-29T11:59:00+00:00")
    assert "too old: 2.0 days where --max-age allows 24.0 hours" in the_reason(tree, old, max_age=timedelta(days=1))
    ahead = green(tree, created="2026-02-01T00:00:00+00:00")
    assert "later than this machine's clock" in the_reason(tree, ahead, max_age=timedelta(days=1))
    assert "is none" in the_reason(tree, green(tree, created="yesterday"), max_age=timedelta(days=1))


def test_another_device_is_named(tree: Path) -> None:
    cpu = green(tree, device="cpu")
    reason = the_reason(tree, cpu, devices=("cuda",))
    assert reason == "device cuda is required, and the reports are from cpu; run verify on it, and give that file too"
    assert told(tree, cpu, green(tree), devices=("cuda", "cpu")) == []  # several files are judged together
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
    assert told(tree, changed(green(tree), "output", outcome="unsupported")) == []


def test_an_undeclared_deviation_is_refused(tree: Path) -> None:
    report = changed(green(tree), "errors", outcome="deviation")
    assert "deviation errors has no reason" in the_reason(tree, report)


def test_every_file_has_to_hold_by_itself(tree: Path) -> None:
    reasons = told(tree, green(tree), without(green(tree, device="cpu", complete=False), "output"))
    assert len(reasons) == 2
    assert all(reason.startswith("report1: ") for reason in reasons)


def test_a_check_that_the_project_excludes_is_not_required(tree: Path) -> None:
    assert told(tree, without(green(tree), "long"), exclude=("long",)) == []
    assert told(tree, without(green(tree), "long"), checks=("output", "gradients")) == []
    assert "check long is required" in the_reason(tree, without(green(tree), "long"), checks=("long",))
    with pytest.raises(UsageError, match="unknown check 'lung'"):
        told(tree, green(tree), checks=("lung",))


def test_a_report_of_another_pair_is_no_evidence(tree: Path) -> None:
    report = green(tree, candidate="equivcheck.attention:CausalSelfAttention")
    assert "no report is of equivcheck.attention:Flash" in the_reason(tree, report, pair=SHIPPED)
    assert told(tree, report, green(tree), pair=SHIPPED) == []


def test_a_file_of_the_pair_that_is_gone_is_named(tree: Path) -> None:
    files = {**green(tree).files, "candidate": {"nowhere/fast.py": "0" * 64}}
    report = green(tree, files=files, sources=digests(files))
    assert "nowhere/fast.py (candidate) is not here" in the_reason(tree, report)
    files["candidate"] = {}
    assert "the candidate has no file" in the_reason(tree, green(tree, files=files, sources=digests(files)))


# against an older report ----------------------------------------------------------------------------------------------


def test_what_fell_behind_an_older_report_is_named(tree: Path) -> None:
    old = green(tree, kernels={"bfloat16, head size 64": "cudnn", "float32": "efficient"})
    assert told(tree, old, against=old) == []
    new = replace(old, kernels={"bfloat16, head size 64": "math"})
    assert "kernel of bfloat16, head size 64 was cudnn and is math" in the_reason(tree, new, against=old)
    new = changed(old, "output", worst_ratio=0.376)
    assert "the worst ratio grew from 0.25 to 0.376, by more than half" in the_reason(tree, new, against=old)
    assert told(tree, changed(old, "output", worst_ratio=0.375), against=old) == []
    new = changed(old, "output", outcome="unsupported")
    assert "check output was equivalent and is unsupported" in the_reason(tree, new, against=old)
    assert told(tree, old, against=new) == []  # it has become better
    assert "check long was equivalent and is gone" in the_reason(
        tree, without(old, "long"), against=old, exclude=("long",)
    )


def test_an_older_report_of_something_else_is_an_error(tree: Path) -> None:
    with pytest.raises(UsageError, match="--against old: it is of"):
        told(tree, green(tree), against=green(tree, device="cpu"))


# what was judged -------------------------------------------------------------------------------------------------------


def test_a_run_of_a_smaller_profile_than_is_wanted_is_named(tree: Path) -> None:
    quick = green(tree, profile="quick")
    reason = "profile quick where gate is required; run with --profile gate, or allow it with --min-profile quick"
    assert the_reason(tree, quick) == f"report0: {reason}"
    assert told(tree, quick, min_profile="quick") == []
    assert told(tree, green(tree), min_profile="quick") == []
    assert "profile gate where thorough is required" in the_reason(tree, green(tree), min_profile="thorough")
    assert "profile gut where gate is required" in the_reason(tree, green(tree, profile="gut"))


def test_a_run_with_one_dtype_is_named_by_each_that_is_missing(tree: Path) -> None:
    narrow = green(tree, dtypes=("float32",))
    reasons = told(tree, narrow)
    assert len(reasons) == 3
    for dtype, reason in zip(DTYPES[1:], reasons, strict=True):
        assert reason == (
            f"report0: dtype {dtype} is required and was not judged; run equivcheck verify again with it, "
            "or allow it with --require-dtypes float32"
        )
    assert told(tree, narrow, dtypes=("float32",)) == []


def test_a_dtype_that_cannot_run_is_required_only_where_it_is_named(tree: Path) -> None:
    refused = green(tree, dtypes=DTYPES[:3], dtypes_not_run={"float16": "RuntimeError: no half"})
    assert told(tree, refused) == []
    assert "dtype float16 is required and was not judged (RuntimeError: no half)" in the_reason(
        tree, refused, dtypes=("float16", "float32")
    )


def test_a_check_of_no_or_few_cases_is_named(tree: Path) -> None:
    for check in APPLYING:
        least = max(1, least_cases(check, "gate", 4) // 2)
        assert told(tree, changed(green(tree), check.name, cases=least)) == []
        reason = the_reason(tree, changed(green(tree), check.name, cases=least - 1))
        assert f"check {check.name} ran on {least - 1} case" in reason
        assert f"where {least} is the least" in reason
        none = changed(green(tree), check.name, cases=0, outcome="unsupported", detail="no dtype is left")
        assert f"check {check.name} ran on 0 cases" in the_reason(tree, none)


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
    assert told(tree, none) == []
    assert "report0: check autocast judged nothing: no dtype is left" in noted(tree, none)
    narrowed = replace(none, dtypes_not_run={})
    assert any("check autocast ran on 0 cases" in reason for reason in told(tree, narrowed))
    assert told(tree, narrowed, dtypes=wide) == []  # nobody asks for the dtypes of autocast


def test_a_check_that_judged_nothing_is_a_note(tree: Path) -> None:
    report = changed(green(tree), "long", detail="nothing was judged: the check has nothing to say on this pair")
    assert told(tree, report) == []
    assert noted(tree, report) == [f"report0: check long: {report.results[-3].detail}"]


# with what it was judged -----------------------------------------------------------------------------------------------


def test_another_torch_is_a_note_and_refused_where_that_is_asked_for(tree: Path) -> None:
    here = torch.__version__.partition("+")[0]
    assert noted(tree, green(tree, environment={"torch": f"{here}+cu999"})) == []  # it was built for another device
    other = green(tree, environment={"torch": "2.1.10+cu121"})
    words = f"the run was made with torch 2.1.10+cu121, and here is {version_of('torch')}"
    assert told(tree, other) == []
    assert noted(tree, other) == [f"report0: {words}"]
    assert words in the_reason(tree, other, strict_environment=True)
    assert noted(tree, other, strict_environment=True) == []
    for fitting in ("2", "2.1", "2.1.10", "2.1.10+cu121"):
        assert told(tree, other, torch=fitting) == []
    for wanted in ("2.11", "2.1.1", "2.1.10+cpu", "3"):
        assert f"torch {wanted} is required, and the run was made with 2.1.10+cu121" in the_reason(
            tree, other, torch=wanted
        )


def test_another_version_of_a_package_is_a_note_and_refused_where_that_is_asked_for(tree: Path) -> None:
    report = green(tree, packages={"click": Package("0.1", "0" * 64), "no-such-package": Package("1.2")})
    words = [
        f"the run was made with the package click 0.1, and here is {version('click')}",
        "the run was made with the package no-such-package 1.2, and here is none",
    ]
    assert told(tree, report) == []
    assert noted(tree, report) == [f"report0: {text}" for text in words]
    reasons = told(tree, report, strict_environment=True)
    assert [reason.partition(";")[0] for reason in reasons] == [f"report0: {text}" for text in words]


def test_a_package_that_was_edited_is_refused(tree: Path) -> None:
    sha, _ = content_of("click")
    assert told(tree, green(tree, packages={"click": Package(version("click"), sha)})) == []
    edited = green(tree, packages={"click": Package(version("click"), "0" * 64)})
    assert f"stale: the package click {version('click')} has other files here than in the run" in the_reason(
        tree, edited
    )


def test_what_is_not_covered_is_a_note(tree: Path) -> None:
    report = green(tree, not_covered=("what the network answered: 10.0.0.1",))
    assert told(tree, report) == []
    assert noted(tree, report) == ["report0: not covered: what the network answered: 10.0.0.1"]


def test_a_module_or_a_data_file_that_was_used_is_compared_too(tree: Path) -> None:
    (tree / "kernel.cu").write_text("__global__ void f() {}")
    for part, words in (("loaded", "loaded by the pair"), ("read", "read by the pair")):
        files = {**green(tree).files, part: {"kernel.cu": hash_of(tree / "kernel.cu")}}
        report = green(tree, files=files, sources=digests(files))
        assert told(tree, report) == []
        files[part] = {"kernel.cu": CHANGED}
        reason = the_reason(tree, green(tree, files=files, sources=digests(files)))
        assert f"stale: kernel.cu ({words}) was changed while the pair ran" in reason
        files[part] = {"nowhere.cu": "0" * 64}
        assert "nowhere.cu" in the_reason(tree, green(tree, files=files, sources=digests(files)))
        files[part] = {"nowhere.so": "0" * 64}
        compiled = green(tree, files=files, sources=digests(files))
        assert told(tree, compiled) == []
        assert noted(tree, compiled) == [f"report0: not covered: nowhere.so ({words}), which is compiled and not here"]


def test_a_report_of_an_older_equivcheck_is_one_line(tree: Path) -> None:
    old = green(tree, schema_version=2, dtypes=())
    assert "stale: an older equivcheck wrote it (schema version 2)" in the_reason(tree, old)


# the command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def committed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report of the tree that the tests run from, in a folder of its own, with that tree's package."""
    monkeypatch.chdir(tree)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    codec.write(green(tree, created=datetime.now(UTC).isoformat(timespec="seconds")), tree / "report.json")
    return tree / "report.json"


def test_green_is_0_and_a_refusal_1_with_its_reason_on_a_line(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "report.json", "--require-device", "cuda", "--max-age", "1d"]) == 0
    *_, evidence, last = capsys.readouterr().out.splitlines()
    assert last == "gate: green"
    cases = sum(least_cases(check, "gate", 4) for check in APPLYING)
    assert evidence == (
        f"report.json: evidence: profile gate, dtypes {' '.join(DTYPES)}, {cases} cases, torch {torch.__version__}, "
        "1 file and 0 packages of the pair"
    )
    assert main(["gate", "report.json", "--require-device", "cpu"]) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("refused: device cpu is required")
    assert last == "gate: refused, 1 reason"


def test_the_config_says_what_is_wanted(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text(
        "[tool.equivcheck]\nreference = 'a:A'\ncandidate = 'b:B'\n"
        "deviations = {errors = {reason = 'it runs', expires = 2020-01-01}}\n"
    )
    assert main(["gate", "report.json"]) == 1
    out = capsys.readouterr().out
    assert "refused: no report is of b:B against a:A" in out
    assert "refused: deviation errors expired on 2020-01-01 (it runs)" in out
    assert "refused: deviation errors is declared and no longer observed" in out


def test_on_github_every_refusal_is_an_annotation(
    committed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["gate", "report.json", "--require-device", "cpu"]) == 1
    assert "::error title=equivcheck gate::device cpu is required, and" in capsys.readouterr().out


def test_the_options_and_the_config_say_what_must_have_been_judged(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec.write(replace(Report.load(committed), profile="quick", dtypes=("float32", "bfloat16")), committed)
    assert main(["gate", "report.json"]) == 1
    assert capsys.readouterr().out.count("refused: ") == 3
    assert main(["gate", "report.json", "--min-profile", "quick", "--require-dtypes", "float32,bfloat16"]) == 0
    Path("pyproject.toml").write_text(
        "[tool.equivcheck]\nmin_profile = 'quick'\nrequire_dtypes = ['float32', 'bfloat16']\n"
    )
    assert main(["gate", "report.json"]) == 0
    assert main(["gate", "report.json", "--min-profile", "gate"]) == 1
    assert main(["gate", "report.json", "--require-torch", "2.12"]) == 1
    assert f"torch 2.12 is required, and the run was made with {torch.__version__}" in capsys.readouterr().out
    for wrong in (
        ["--require-dtypes", "float8"],
        ["--require-dtypes", ""],
        ["--min-profile", "slow"],
        ["--require-torch", "two"],
        ["--tripwire", "25"],
    ):
        assert main(["gate", "report.json", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def edited(text: str) -> str:
    return text.replace('"outcome": "equivalent"', '"outcome": "unsupported"', 1)


def newer(text: str) -> str:
    return text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99', 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (edited, "changed by hand"),
        (lambda text: text[: len(text) // 2], "truncated, or not JSON"),
        (newer, "upgrade equivcheck"),
        (lambda text: '{"results": []}', "not a report of equivcheck"),
        (lambda text: "", "truncated, or not JSON"),
    ],
    ids=["an edited outcome", "a truncated file", "a newer schema", "a foreign file", "an empty file"],
)
def test_a_file_that_cannot_be_trusted_is_2_and_one_line(
    committed: Path, capsys: pytest.CaptureFixture[str], spoil: object, words: str
) -> None:
    text = committed.read_text()
    committed.write_text(spoil(text))  # type: ignore[operator]
    assert committed.read_text() != text
    assert main(["gate", "report.json"]) == 2
    streams = capsys.readouterr()
    assert words in streams.err
    assert len(streams.err.splitlines()) == 1
    assert streams.out == ""


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero here")
@pytest.mark.parametrize("command", [["gate"], ["report"], ["gate", "report.json", "--against"]])
def test_a_file_without_an_end_is_2_and_one_line(
    committed: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "/dev/zero"]) == 2
    assert capsys.readouterr().err == (
        "equivcheck: /dev/zero: cannot be read (it is no regular file); give a file written by --json\n"
    )


@pytest.mark.parametrize("spoiled", [None, "equivcheck/attention.py", "equivcheck/report/table.py"])
def test_end_to_end_in_a_process_of_its_own(tree: Path, spoiled: str | None) -> None:
    codec.write(green(tree), tree / "report.json")
    if spoiled:
        edit(tree / spoiled)
    done = subprocess.run(
        [sys.executable, "-m", "equivcheck", "gate", "report.json"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "GITHUB_ACTIONS": ""},
        capture_output=True,
        text=True,
    )
    status = 1 if spoiled == "equivcheck/attention.py" else 0  # what only draws a table does not make evidence stale
    assert done.returncode == status, done.stdout + done.stderr
    assert ("stale: equivcheck/attention.py (candidate)" in done.stdout) is bool(status)


def test_a_message_of_a_report_is_told_without_what_drives_a_terminal(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = changed(
        Report.load(committed), "output", outcome="different", counterexample=Counterexample(CASE, "m", "replay")
    )
    report = replace(report, candidate="b:\x1b[31mB\n::error::x", device="\u202ecpu")
    codec.write(report, committed)
    assert main(["gate", "report.json"]) == 1
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e"} & set(out)
    assert not any(line.startswith("::") for line in out.splitlines())
    assert stdlib_json.loads(committed.read_text())["verdict"] == "different"


def test_evidence_of_a_run_that_was_not_sealed_or_that_found_something_is_refused(tree: Path) -> None:
    assert "unsealed: the pair ran in the process that made the verdict" in the_reason(tree, green(tree, sealed=False))
    replaced = "the candidate replaced slow.Attention.forward: its output is not what it is alone"
    assert f"{replaced}; mend the candidate" in told(tree, green(tree, findings=(replaced,)))[0]
