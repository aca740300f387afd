"""`equivcheck gate`: exit statuses, reasons, the config, and files that cannot be trusted."""

import json as stdlib_json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from green_reports import APPLYING, CASE, DTYPES, PACKAGE, changed, edit, green

from equivcheck.cli.main import main
from equivcheck.report import codec
from equivcheck.report.catalogue import least_cases
from equivcheck.report.model import SCHEMA_VERSION, Combinations, Counterexample, Report


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that holds a copy of the package, to be changed."""
    shutil.copytree(PACKAGE, tmp_path / "equivcheck", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


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
        ["--min-coverage", "pairs=2"],
    ):
        assert main(["gate", "report.json", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_least_share_of_pairs_is_an_option_and_a_key(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "report.json", "--min-coverage", "pairs=1.0"]) == 1
    assert "refused: report.json: no pairs of classes are counted" in capsys.readouterr().out
    coverage = {"output": {"pairs": Combinations(900, 948, {"not judged": 48})}}
    codec.write(replace(Report.load(committed), coverage=coverage), committed)
    assert main(["gate", "report.json"]) == 0
    assert main(["gate", "report.json", "--min-coverage", "pairs=0.949"]) == 0
    assert main(["gate", "report.json", "--min-coverage", "pairs=1.0"]) == 1
    Path("pyproject.toml").write_text("[tool.equivcheck]\nmin_coverage = {pairs = 0.95}\n")
    assert main(["gate", "report.json"]) == 1
    assert capsys.readouterr().out.count("refused: report.json: pairs of classes: 900 of 948 are met in output") == 2


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


def test_a_message_of_a_report_drives_no_terminal(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
