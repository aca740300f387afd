"""Colours where they should be: on a terminal that can, or where they are forced, and never with NO_COLOR."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest
from judged_reports import BROKEN, DIFFERENT, EQUIVALENT, OUTPUT

from equivcheck.cli.colours import moves
from equivcheck.cli.main import main
from equivcheck.cli.progress import follow, follow_rows
from equivcheck.report.model import CheckResult

ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[[\d;]*\b(3[0-7]|9[0-7]|38;[25])[\d;]*m")
RED, YELLOW = "1;31m", "33m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)


def shown(monkeypatch: pytest.MonkeyPatch, screen: TextIO) -> str:
    """What `equivcheck report` writes on this standard output."""
    DIFFERENT.save("x.json")
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["report", "x.json"]) == 0
    assert isinstance(screen, io.StringIO)
    return screen.getvalue()


def test_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COLOUR.search(shown(monkeypatch, Terminal()))


def test_what_is_no_terminal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE not in shown(monkeypatch, io.StringIO())


@pytest.mark.parametrize("screen", [Terminal, io.StringIO])
def test_no_color_wins_over_a_terminal_and_over_force(
    monkeypatch: pytest.MonkeyPatch, screen: type[io.StringIO]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not COLOUR.search(shown(monkeypatch, screen()))


def test_a_dumb_terminal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert ESCAPE not in shown(monkeypatch, Terminal())


@pytest.mark.parametrize(("value", "coloured"), [("1", True), ("", False), ("0", False)])
def test_colours_can_be_forced_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", value)
    assert bool(COLOUR.search(shown(monkeypatch, io.StringIO()))) == coloured


def test_forced_colours_do_not_reach_a_form_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    EQUIVALENT.save("x.json")
    for form in ("markdown", "junit", "sarif", "html"):
        assert main(["report", "x.json", "--format", form]) == 0
    assert main(["checks", "--format", "json"]) == main(["verify", "--help"]) == 0
    assert ESCAPE not in capsys.readouterr().out


def followed(result: CheckResult) -> str:
    screen = Terminal()
    with follow(screen) as listener:
        listener.progress(result.name, 1, 2)
        listener.finished(result)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("result", "colour"),
    [(OUTPUT, "green"), (BROKEN, RED), (replace(OUTPUT, outcome="not judged"), YELLOW)],
)
def test_a_full_bar_has_the_colour_of_its_outcome(result: CheckResult, colour: str) -> None:
    bar = [text for text in re.findall(r"\x1b\[([\d;]+m)[━╸]+", followed(result)) if text != "38;5;237m"]
    assert {RED: RED, YELLOW: YELLOW}.get(bar[-1], "green") == colour


def test_a_dumb_terminal_gets_lines_and_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    assert not moves(screen)
    assert followed(OUTPUT) == "output: equivalent, 60 cases, worst ratio 0.412, 1.5 s\n"
    with follow_rows(screen) as listener:
        listener("row", 0, 2)
    assert screen.getvalue() == "1 of 2: row\n"
