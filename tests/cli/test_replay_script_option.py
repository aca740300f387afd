"""`replay` says the fields of its case in words, and `--script` writes a difference as a script, or says why not."""

from pathlib import Path

import pytest
from judged_reports import CASE, OUTPUT, Judge, the_line

from equivcheck.cases.fields import FIELDS
from equivcheck.cases.ids import in_words
from equivcheck.cli.main import main

pytestmark = pytest.mark.usefixtures("judge")


def test_each_part_of_an_id_is_in_words() -> None:
    rows = in_words("B2-T3-H4-D8-K4-bfloat16-train-a0.1-r0-ties-contiguous-s7-S5-G2-msome-c0.5-full")
    assert ("B2", "batch_size", "sequences in the batch") in rows
    assert ("msome", "mask", "what the mask hides or adds") in rows
    assert ("full", "is_causal", "every query sees every key") in rows
    assert [name for _, name, _ in rows] == [field.name for field in FIELDS if field.name in dict(r[1:] for r in rows)]
    assert in_words("B2-T3") == []


def test_the_legend_stands_above_the_results(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    judge.answer = (OUTPUT,)
    assert main(["replay", CASE, "a:A", "b:B"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "B1          batch_size   sequences in the batch",
        "T3          seq_len      positions of a sequence",
    ]
    assert lines[lines.index("") + 1].startswith("output: equivalent")


def test_no_script_is_written_where_nothing_differs(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    judge.answer = (OUTPUT,)
    assert main(["replay", CASE, "a:A", "b:B", "--script", "s.py"]) == 2
    assert "no check shows a difference of values" in the_line(capsys)
    assert not Path("s.py").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--script", "no/such/s.py"], "--script no/such/s.py: cannot be written"),
        (["--script", "s.py", "--in-process"], "--script with --in-process"),
    ],
)
def test_a_script_that_cannot_be_is_refused_before_the_run(
    judge: Judge, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["replay", CASE, "a:A", "b:B", *words]) == 2
    assert line in the_line(capsys)
    assert not judge.calls
