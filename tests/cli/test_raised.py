"""Whatever is raised during a run ends in one line, and never in a verdict."""

import pytest
from judged_reports import Judge

from equivcheck.cli.main import main
from equivcheck.errors import UsageError

pytestmark = pytest.mark.usefixtures("judge")


class Odd(BaseException):
    """Somebody's own, which `except Exception` lets through."""


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            Odd("two\nlines"),
            "the code under test raised Odd, which is no Exception: two lines; raise an Exception there, and it is judged",
        ),
        (KeyboardInterrupt(), "interrupted before there was anything to report"),
        (SystemExit(0), "the code under test called sys.exit(0): remove that from it, or guard it"),
        (SystemExit("bye"), "the code under test called sys.exit('bye'): remove that from it, or guard it"),
        (
            ValueError("two\nlines"),
            "internal error: ValueError: two lines; nothing is said of the pair, please report this line; "
            "EQUIVCHECK_DEBUG=1 shows the traceback",
        ),
        (UsageError("\x1b[2Jcleared"), "\\x1b[2Jcleared"),
    ],
)
def test_whatever_is_raised_ends_in_one_line_and_never_in_a_verdict(
    judge: Judge, capsys: pytest.CaptureFixture[str], raised: BaseException, words: str
) -> None:
    judge.answer = raised
    assert main(["verify"]) == 2
    streams = capsys.readouterr()
    assert streams.err.strip() == f"equivcheck: {words}"
    assert streams.out == ""


def test_an_internal_error_shows_its_traceback_where_it_is_asked_for(
    judge: Judge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIVCHECK_DEBUG", "1")
    judge.answer = ValueError("why")
    assert main(["verify"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert (
        lines[-1] == "equivcheck: internal error: ValueError: why; nothing is said of the pair, please report this line"
    )
