"""`[tool.equivcheck]`: every key is understood, and whatever else stands there is refused in one line."""

from pathlib import Path

import pytest

from equivcheck.cli.config import Config, deviation, load
from equivcheck.errors import UsageError
from equivcheck.report.model import Deviation


def written(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [tool.equivcheck]
        reference = "pkg.slow:Attention"
        candidate = "pkg.fast:Attention"
        kind = "module"
        device = "cuda:1"
        profile = "quick"
        exclude = ["checkpoint"]
        seed = 0
        max_seconds = 60
        remembered = false
        max_memory_ratio = 2
        min_profile = "quick"
        require_dtypes = ["float32", "bfloat16"]
        require_domain = "head_size in (64, 128)"
        min_coverage = {pairs = 1, triples = 0.5}
        [tool.equivcheck.deviations]
        interface = " it keeps no weights "
        purity = {reason = "a counter", expires = 2027-01-31}
        errors = {reason = "it runs"}
        """,
    )
    assert load(path) == Config(
        reference="pkg.slow:Attention",
        candidate="pkg.fast:Attention",
        kind="module",
        device="cuda:1",
        profile="quick",
        exclude=("checkpoint",),
        deviations={
            "interface": "it keeps no weights",
            "purity": Deviation("purity", "a counter", "2027-01-31"),
            "errors": "it runs",
        },
        seed=0,
        max_seconds=60.0,
        remembered=False,
        max_memory_ratio=2.0,
        min_profile="quick",
        require_dtypes=("float32", "bfloat16"),
        require_domain="head_size in (64, 128)",
        min_coverage={"pairs": 1.0, "triples": 0.5},
    )


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'", "tool = 1", "[tool.ruff]", "[tool.equivcheck]"])
def test_a_project_that_says_nothing_has_an_empty_config(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Config()


def test_no_project_is_an_empty_config(tmp_path: Path) -> None:
    assert load(tmp_path / "pyproject.toml") == Config()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("profil = 'quick'", "unknown key 'profil'; the valid ones are reference, candidate, kind"),
        ("checks = ['output']", "unknown key 'checks'"),
        (
            "kind = 'modul'",
            "kind = 'modul' was given, and one of auto, module, function, model, replacement is allowed",
        ),
        ("min_coverage = {pair = 1}", "{pairs = 1.0, triples = 0.5}, numbers above 0 and up to 1, is allowed"),
        ("min_coverage = {pairs = true}", "numbers above 0 and up to 1, is allowed"),
        ("min_coverage = 1.0", "min_coverage = 1.0 was given"),
        ("profile = 3", "one of screen, quick, gate, thorough is allowed"),
        ("device = ''", "a text that is not empty is allowed"),
        ("exclude = 'output'", "a list of names of checks is allowed"),
        ("exclude = [1]", "a list of names of checks is allowed"),
        ("seed = -1", "a whole number from 0"),
        ("seed = true", "a whole number from 0"),
        ("seed = 9223372036854775808", "a whole number from 0"),
        ("remembered = 'no'", "remembered = 'no' was given, and true or false is allowed"),
        ("max_seconds = 0", "a number of seconds above 0 is allowed"),
        ("max_seconds = inf", "a number of seconds above 0 is allowed"),
        ("max_seconds = nan", "a number of seconds above 0 is allowed"),
        ("deviations = ['interface']", "no reason is empty"),
        ("deviations = {interface = {expires = 2027-01-31}}", "deviations.interface = {"),
        ("deviations = {interface = {reason = ' ', expires = 2027-01-31}}", "no reason is empty"),
        ("deviations = {interface = {reason = 'x', expires = 'soon'}}", "expires = 2027-01-31}, in which"),
        ("deviations = {interface = {reason = 'x', expires = 2027-01-31T00:00:00}}", "expires = 2027-01-31}"),
        ("deviations = {interface = {reason = 'x', expiry = 2027-01-31}}", "name = {reason"),
        ("deviations = {interface = ' '}", "no reason is empty"),
        ("reference = 'a:A'", "reference without candidate"),
        ("candidate = 'a:A'", "candidate without reference"),
    ],
)
def test_a_wrong_line_is_refused_with_what_is_allowed(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path, f"[tool.equivcheck]\n{line}\n")
    with pytest.raises(UsageError) as caught:
        load(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"[tool.equivcheck] in {path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"[tool.equivcheck", b"name = '\xff'"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not TOML"):
        load(path)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a table is allowed"):
        load(written(tmp_path, "[tool]\nequivcheck = 'quick'"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "pyproject.toml")


def test_a_deviation_is_a_name_and_a_reason() -> None:
    assert deviation("interface = kept = nowhere ") == ("interface", "kept = nowhere")


@pytest.mark.parametrize("text", ["interface", "interface=", "interface= ", "=because", "="])
def test_a_deviation_without_a_reason_or_a_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=REASON is allowed"):
        deviation(text)
