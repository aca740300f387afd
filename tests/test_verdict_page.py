"""docs/verdict.md: its examples are what a run says, and its table has every check at its level."""

import re
from pathlib import Path

import pytest

from equivcheck.api import verify
from equivcheck.report.catalogue import CATALOGUE
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.levels import LEVELS
from equivcheck.report.table import plain

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "verdict.md").read_text()
EXAMPLES = re.findall(r"^`([\w-]+)`, with NAME `(\w+)` and CHECK `(\w+)`.*?```text\n(.*?)```", PAGE, re.S | re.M)


@pytest.mark.parametrize(("level", "name", "check", "text"), EXAMPLES)
def test_each_example_is_what_the_run_says(level: str, name: str, check: str, text: str) -> None:
    report = verify(
        "equivcheck.attention:CausalSelfAttention",
        f"{DOCS / 'verdict_examples.py'}:{name}",
        device="cpu",
        profile="quick",
        checks=["output", check],
    )
    *lines, last = text.splitlines()
    assert verdict_line(report).startswith(f"{last},")
    assert [line for line in lines if line not in plain(report)] == []
    assert [at for at, outcome in report.levels.items() if outcome == "different"] == [level]


def test_there_is_an_example_for_each_level() -> None:
    assert [level for level, *_ in EXAMPLES] == list(LEVELS)


def test_each_check_stands_at_its_level() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.M))
    for check in CATALOGUE:
        name = "replacement.*" if check.name.startswith("replacement.") else check.name
        assert [level for level in LEVELS if f"`{name}`" in rows[level].partition(", and ")[0]] == list(
            filter(None, [check.level])
        )
