"""docs/checks.md has a row for each check of the registry, and for nothing else."""

import re
from pathlib import Path

from equivcheck.report.catalogue import CATALOGUE, KINDS

PAGE = Path(__file__).parents[1] / "docs" / "checks.md"
ROW = re.compile(r"^\| `([\w.]+)` \| ([\w, ]+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_each_check_has_one_row_with_its_kinds() -> None:
    rows = [(name, kinds) for name, kinds, _, _ in ROW.findall(PAGE.read_text())]
    words = {check.name: "all" if set(check.kinds) == set(KINDS) else ", ".join(check.kinds) for check in CATALOGUE}
    assert sorted(rows) == sorted(words.items())
