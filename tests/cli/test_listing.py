"""`equivcheck checks` and `equivcheck faults` list what there is, in columns and as JSON."""

import json
import subprocess
import sys

import pytest

from equivcheck.cli.main import main
from equivcheck.faults import AROUND, FAULTS
from equivcheck.report.catalogue import CATALOGUE
from equivcheck.report.check_summaries import LOOKS_AT


def listed(capsys: pytest.CaptureFixture[str], *line: str) -> list[dict[str, object]]:
    assert main([*line, "--format", "json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_each_check_has_a_summary_of_one_line_in_the_order_of_a_run() -> None:
    assert list(LOOKS_AT) == [check.name for check in CATALOGUE]
    assert [text for text in LOOKS_AT.values() if len(text) > 100 or "\n" in text or text.endswith(".")] == []


def test_all_checks_are_listed_in_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks"]) == 0
    heading, *rows, empty, count = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "levels", "kinds", "looks", "at"]
    assert [row.split()[0] for row in rows] == [check.name for check in CATALOGUE]
    place = heading.index("looks at")
    assert [row[place:] for row in rows] == list(LOOKS_AT.values())
    assert (empty, count) == ("", f"{len(CATALOGUE)} of {len(CATALOGUE)}")


def test_checks_are_chosen_by_kind_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "checks", "--kind", "function", "--level", "training")
    expected = [c.name for c in CATALOGUE if "function" in c.kinds and "training" in c.levels]
    assert [row["name"] for row in rows] == expected
    assert expected
    assert rows[0] == {
        "name": "purity",
        "levels": ["values", "drop-in", "training", "transforms"],
        "kinds": ["module", "function", "model", "replacement"],
        "looks_at": LOOKS_AT["purity"],
    }


def test_every_planted_fault_is_listed_with_all_its_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "faults")
    kinds = {(row["name"], row["where"], kind) for row in rows for kind in row["kinds"]}  # type: ignore[attr-defined]
    around = {(fault.name, "around", kind) for fault in AROUND for kind in fault.around}
    assert kinds == around | {(fault.name, "inside", "module") for fault in FAULTS}
    assert [row["name"] for row in rows] == sorted(str(row["name"]) for row in rows)


def test_faults_are_chosen_by_check_kind_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "faults", "--check", "causality", "--kind", "function", "--level", "values")
    assert "leak-from-the-next-token" in [row["name"] for row in rows]
    assert all("causality" in row["seen_by"] and row["level"] == "values" for row in rows)  # type: ignore[operator]
    of_the_family = listed(capsys, "faults", "--check", "replacement")
    assert {"replacement"} == {kind for row in of_the_family for kind in row["kinds"]}  # type: ignore[attr-defined]


def test_an_empty_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks", "--kind", "function", "--level", "drop-in"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"3 of {len(CATALOGUE)}"
    assert main(["faults", "--check", "memory", "--level", "training"]) == 0
    assert capsys.readouterr().out.startswith("none of ")
    assert listed(capsys, "faults", "--check", "memory", "--level", "training") == []


def test_the_checks_are_listed_without_torch() -> None:
    code = "import sys; from equivcheck.cli.main import main; main(['checks']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "causality" in done.stdout
