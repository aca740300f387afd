"""Levels on the command line and in pyproject.toml: what is wrong is one line and exit status 2."""

from pathlib import Path

import pytest

from equivcheck.cli.main import main


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--require", "numbers"],
            "--require: unknown level 'numbers': allowed are values, training, transforms, drop-in",
        ),
        (["--require", ""], "--require names no level: allowed are values, training, transforms, drop-in"),
        (["--require", ","], "--require names no level"),
        (["--deviation", "interface.colour=why"], "unknown deviation 'interface.colour'"),
        (["--deviation", "interfaces=why"], "unknown deviation 'interfaces'"),
    ],
)
def test_a_wrong_level_or_finding_is_one_line_and_status_2(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_wrong_level_of_the_gate_is_refused_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    assert main(["gate", str(tmp_path / "report.json"), "--require", "numbers"]) == 2
    assert "unknown level 'numbers'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('require = ["numbers"]', "a list of values, training, transforms, drop-in is allowed"),
        ("require = []", "a list of values, training, transforms, drop-in is allowed"),
        ('[tool.equivcheck.deviations]\n"interface.colour" = "why"', "unknown deviation 'interface.colour'"),
        ("[tool.equivcheck.deviations.interface]\nhooks = {}", "deviations.interface.hooks"),
    ],
)
def test_the_same_in_pyproject_toml(
    lines: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(f"[tool.equivcheck]\n{lines}\n")
    assert main(["verify"]) == 2
    assert words in capsys.readouterr().err


def test_a_nested_table_declares_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from equivcheck.cli.config import load

    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(
        '[tool.equivcheck.deviations]\n"interface.hooks" = "nobody hooks"\n'
        '[tool.equivcheck.deviations.interface]\nadapters = {reason = "none", expires = 2030-01-01}\n'
    )
    declared = load(Path("pyproject.toml")).deviations
    assert declared["interface.hooks"] == "nobody hooks"
    assert getattr(declared["interface.adapters"], "expires", None) == "2030-01-01"
