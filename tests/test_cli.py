"""The command line: exit statuses, one line for everything that goes wrong, and files that are whole or not there."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from equivcheck.cli.main import main
from equivcheck.cli.options import SHIPPED, import_from_here
from equivcheck.errors import UsageError
from equivcheck.report.model import CheckResult, Counterexample, Report, Sensitivity
from equivcheck.report.outputs import FORMATS
from equivcheck.supervisor import api, nurseries
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair

CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"
OUTPUT = CheckResult("output", "equivalent", 60, 1.5, 0.412, CASE, "y[0, 2, 1]")
BROKEN = replace(
    OUTPUT,
    outcome="different",
    counterexample=Counterexample(CASE, "3 of 12 values differ", f"equivcheck replay {CASE}"),
)
EQUIVALENT = Report(
    reference="a:A",
    candidate="b:B",
    kind="module",
    device="cpu",
    profile="gate",
    seed=0,
    results=(OUTPUT,),
    sensitivity=Sensitivity(("mask_off_by_one",)),
    complete=True,
    seconds=41.23,
    created="2026-01-02T03:04:05+00:00",
)
DIFFERENT = replace(EQUIVALENT, results=(BROKEN,))
INSENSITIVE = replace(EQUIVALENT, sensitivity=Sensitivity(("mask_off_by_one",), ("mask_off_by_one",)))
PARTIAL = replace(EQUIVALENT, complete=False)


class Judge:
    """Stands where the supervisor does: answers with a report, or raises, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = EQUIVALENT
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def verify(self, pair: NamedPair, request: Request, **options: Any) -> Any:
        return self.replay(pair, **vars(request), **options)

    def replay(self, pair: NamedPair, *case: str, **options: Any) -> Any:
        options |= {"kind": pair.kind, "device": pair.device, "setup": pair.setup, **pair.adaptation}
        listener = options.pop("listener", None)
        for name in ("keep", "signals", "dtypes", "shared"):
            options.pop(name, None)
        self.calls.append(((pair.reference, pair.candidate, *case), options))
        if isinstance(self.answer, BaseException):
            raise self.answer
        if listener is not None:
            for result in self.answer.results:
                listener.progress(result.name, 0, result.cases)
                listener.progress(result.name, result.cases, result.cases)
                listener.finished(result)
            listener.progress("sensitivity", 1, 1)
        return self.answer


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """No test judges a real pair unless it starts a process; and none writes outside its own folder."""
    judge = Judge()
    for name in ("verify", "replay"):
        monkeypatch.setattr(api, name, getattr(judge, name))
    monkeypatch.setattr(nurseries, "start", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQUIVCHECK_DEBUG", raising=False)
    return judge


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, without what it begins with."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("equivcheck: ")
    return lines[0].removeprefix("equivcheck: ")


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (EQUIVALENT, 0),
        (DIFFERENT, 1),
        (INSENSITIVE, 1),
        (PARTIAL, 2),
        (replace(DIFFERENT, complete=False), 1),
        (replace(EQUIVALENT, results=()), 2),
    ],
)
def test_the_exit_status_is_the_verdict_and_the_verdict_is_last(
    judge: Judge, capsys: pytest.CaptureFixture[str], report: Report, status: int
) -> None:
    judge.answer = report
    assert main(["verify"]) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{report.verdict}: ")


def test_a_run_says_one_line_per_finished_check_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify"])
    assert capsys.readouterr().err.splitlines() == [
        "output: equivalent, 60 cases, worst ratio 0.412, 1.5 s",
        "sensitivity: 1 planted fault tried",
    ]


def test_with_no_arguments_the_pair_that_ships_is_verified_with_the_defaults(judge: Judge) -> None:
    main(["verify"])
    ((pair, options),) = judge.calls
    assert pair == SHIPPED
    assert options == {
        "kind": "auto",
        "device": "auto",
        "profile": "gate",
        "checks": None,
        "exclude": (),
        "seed": 0,
        "max_seconds": None,
        "jobs": None,
        "deviations": {},
        "require_backend": (),
        "strict": False,
        "case_seconds": None,
        "worker_memory": None,
        "setup": None,
    }


def test_every_option_arrives(judge: Judge) -> None:
    line = (
        "verify a:A b:B --kind module --device cuda:1 --profile quick --check output --check logits --exclude causality"
    )
    more = ["--deviation", "logits=on purpose", "--require-backend", "bfloat16=flash", "--strict"]
    more += ["--case-seconds", "7", "--worker-memory", "2 GiB", "--setup", "s:S"]
    main([*line.split(), "--seed", "3", "--max-seconds", "9.5", *more])
    ((pair, options),) = judge.calls
    assert pair == ("a:A", "b:B")
    assert options == {
        "kind": "module",
        "device": "cuda:1",
        "profile": "quick",
        "checks": ("output", "logits"),
        "exclude": ("causality",),
        "seed": 3,
        "max_seconds": 9.5,
        "jobs": None,
        "deviations": {"logits": "on purpose"},
        "require_backend": ("bfloat16=flash",),
        "strict": True,
        "case_seconds": 7.0,
        "worker_memory": 2.0**31,
        "setup": "s:S",
    }


@pytest.mark.parametrize(
    ("options", "device"), [([], "auto"), (["--gpu"], "cuda"), (["--gpu", "--device", "cuda:1"], "cuda:1")]
)
def test_gpu_is_a_device(judge: Judge, options: list[str], device: str) -> None:
    main(["verify", *options])
    main(["replay", CASE, *options])
    assert [call[1]["device"] for call in judge.calls] == [device, device]


def test_the_command_line_wins_over_the_config(judge: Judge) -> None:
    Path("pyproject.toml").write_text(
        "[tool.equivcheck]\nreference = 'c:C'\ncandidate = 'd:D'\nprofile = 'thorough'\nseed = 5\n"
        "exclude = ['x', 'y']\ndeviations = {x = 'said before', y = 'too'}\n"
    )
    main(["verify"])
    main(["verify", "a:A", "b:B", "--seed", "0", "--exclude", "z", "--deviation", "x=said now"])
    (defaults, d), (given, g) = judge.calls
    assert (defaults, given) == (("c:C", "d:D"), ("a:A", "b:B"))
    assert (d["seed"], d["profile"], d["exclude"], d["deviations"]["x"]) == (5, "thorough", ("x", "y"), "said before")
    assert (g["seed"], g["profile"], g["exclude"], g["deviations"]) == (
        0,
        "thorough",
        ("z",),
        {"x": "said now", "y": "too"},
    )


def test_the_current_folder_can_be_imported_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    import_from_here()
    import_from_here()
    assert sys.path == [str(tmp_path), "/elsewhere"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("verify a:A", "'a:A' without a candidate: REFERENCE CANDIDATE is allowed"),
        ("verify a:A b:B c:C", "'a:A', 'b:B', 'c:C': REFERENCE CANDIDATE is allowed"),
        ("verify --kind modul", "'modul' is not one of 'auto', 'module', 'function', 'model', 'replacement'"),
        ("verify --profile fast", "'fast' is not one of 'quick', 'gate', 'thorough'"),
        ("verify --seed -1", "-1 is not in the range 0<=x"),
        ("verify --seed x", "'x' is not a valid whole number from 0 to 9223372036854775807"),
        ("verify --jobs many", "'many' is not a valid whole number from 1 to 64"),
        ("verify --max-seconds soon", "'soon' is not a valid number of seconds"),
        ("verify --device=", "--device '': auto, cpu, cuda and cuda:N are allowed"),
        ("bench --device=", "--device '': auto, cpu, cuda and cuda:N are allowed"),
        ("verify --max-seconds 0", "Invalid value for '--max-seconds': 0.0 is not in the range x>0"),
        ("verify --max-seconds nan", "Invalid value for '--max-seconds': nan is not a finite number of seconds"),
        ("verify --case-seconds inf", "Invalid value for '--case-seconds': inf is not a finite number of seconds"),
        ("bench --tripwire -inf", "Invalid value for '--tripwire': -inf is not in the range x>0"),
        ("verify --deviation output", "--deviation 'output': NAME=REASON is allowed"),
        ("verify --deviation output=", "give the reason too"),
        ("verify --gpu --device cpu", "--gpu and --device cpu contradict each other"),
        ("verify --json", "--json' requires an argument"),
        ("verify --jsn x", "No such option"),
        ("replay", "Missing argument 'CASE_ID'"),
        ("replay x a:A", "'a:A' without a candidate"),
        ("report nowhere.json", "nowhere.json: there is no such file"),
        ("report nowhere.json --format pdf", "'pdf' is not one of 'table', 'markdown', 'html', 'junit'"),
        ("report nowhere.json --bench x.json", "--bench with --format table: only a page shows speed"),
        ("report nowhere.json --format html --bench x.json", "nowhere.json: there is no such file"),
        ("gate", "Missing argument 'FILE...'"),
        ("gate nowhere.json", "nowhere.json: there is no such file"),
        ("gate x.json --max-age soon", "--max-age 'soon': a number with h, d or w is allowed"),
        ("gate x.json --tripwire 25", "o such option"),
        (
            "gate x.json --require-dtypes half",
            "--require-dtypes 'half': one or more of float32, float64, bfloat16, float16",
        ),
        ("gate x.json --min-profile slow", "'slow' is not one of 'quick', 'gate', 'thorough'"),
        ("gate x.json --require-device=", "--require-device '': a device such as cuda, or a part of a GPU's name"),
        ("gate .", ".: cannot be read (Is a directory); give a file written by --json"),
        ("gate x.json --root nowhere", "--root nowhere: there is no such folder"),
        ("verfy", "No such command 'verfy'"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(
    judge: Judge, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    assert main(line.split()) == 2
    assert words in the_line(capsys)
    assert not judge.calls


def test_a_wrong_config_is_told_in_one_line(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text("[tool.equivcheck]\nprofil = 'quick'\n")
    assert main(["verify"]) == main(["replay", CASE]) == 2
    assert all("unknown key 'profil'" in line for line in capsys.readouterr().err.splitlines())
    assert not judge.calls


def no_folder(option: str) -> list[str]:
    return [option, "nowhere/report"]


def a_folder(option: str) -> list[str]:
    Path("taken").mkdir()
    return [option, "taken"]


def through_a_file(option: str) -> list[str]:
    Path("file").write_text("")
    return [option, "file/report"]


def too_long(option: str) -> list[str]:
    return [option, "n" * 300]


def unwritable(option: str) -> list[str]:
    return [option, "/proc/equivcheck"]  # nobody may make anything there, not even root


def read_only(option: str) -> list[str]:
    if os.geteuid() == 0:
        return unwritable(option)  # nothing is read-only to root
    Path("locked").mkdir(mode=0o500)
    return [option, "locked/report"]


@pytest.mark.skipif(sys.platform != "linux", reason="the unwritable place is Linux's /proc")
@pytest.mark.parametrize(
    ("option", "place"),
    [
        *product(["--json", "--junit"], [no_folder, a_folder, through_a_file, too_long, unwritable, read_only]),
        *product(["--report"], [through_a_file, too_long, unwritable, read_only]),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_run(
    judge: Judge, capsys: pytest.CaptureFixture[str], option: str, place: Callable[[str], list[str]]
) -> None:
    options = place(option)
    before = sorted(Path().rglob("*"))
    assert main(["verify", *options]) == 2
    line = the_line(capsys)
    assert line.startswith(f"{option} {options[1]}: cannot be written (")
    assert not judge.calls
    assert sorted(Path().rglob("*")) == before


def test_two_outputs_in_one_place_are_told_before_the_run(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", "x", "--junit", "./x"]) == 2
    assert "--junit: --json writes to x too" in the_line(capsys)
    assert main(["verify", "--report", "d", "--json", "d/report.json"]) == 2
    assert "--json writes to d/report.json too" in the_line(capsys)
    assert not judge.calls


def test_a_run_that_could_not_judge_leaves_no_file(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    judge.answer = UsageError("cannot import 'a': ModuleNotFoundError:\nNo module named 'a'")
    assert main(["verify", "a:A", "b:B", "--json", "x.json", "--report", "deep/er", "--junit", "x.xml"]) == 2
    assert the_line(capsys) == "cannot import 'a': ModuleNotFoundError: No module named 'a'"
    assert list(Path().rglob("*")) == []
    Path("x.json").write_bytes(b"of an earlier run \xff")
    assert main(["verify", "a:A", "b:B", "--json", "x.json"]) == 2
    assert Path("x.json").read_bytes() == b"of an earlier run \xff"


@pytest.mark.parametrize("report", [EQUIVALENT, DIFFERENT, PARTIAL])
def test_all_files_are_written_whatever_the_verdict(judge: Judge, report: Report) -> None:
    judge.answer = report
    main(["verify", "--json", "x.json", "--junit", "x.xml", "--report", "deep/er"])
    in_folder = {f"deep/er/{form.file}" for form in FORMATS if form.file}
    assert {"deep/er/junit.xml", "deep/er/report.html", "deep/er/report.json", "deep/er/report.md"} <= in_folder
    assert set(map(str, Path().rglob("*.*"))) == {*in_folder, "x.json", "x.xml"}
    assert Report.load("x.json") == Report.load("deep/er/report.json") == report
    assert Path("x.xml").read_text() == Path("deep/er/junit.xml").read_text()


def test_a_disk_that_fills_up_costs_the_file_and_not_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["verify", "--json", "x.json"]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith("equivalent: ")
    assert "--json x.json: cannot be written (No space left on device)" in told.err
    assert list(Path().iterdir()) == []


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
    told = capsys.readouterr()
    assert told.err.strip() == f"equivcheck: {words}"
    assert told.out == ""


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


@pytest.mark.parametrize(
    ("results", "status", "verdict"),
    [
        ((OUTPUT,), 0, "equivalent: 1 check"),
        ((OUTPUT, BROKEN), 1, "different: output"),
        ((replace(OUTPUT, outcome="unsupported"),), 2, "unsupported: nothing could be judged"),
        ((), 2, "unsupported: nothing could be judged"),
    ],
)
def test_a_replay_shows_the_detail_and_ends_in_the_verdict_on_the_case(
    judge: Judge, capsys: pytest.CaptureFixture[str], results: tuple[CheckResult, ...], status: int, verdict: str
) -> None:
    judge.answer = tuple(replace(result, detail="error 1e-7, budget 2e-7") for result in results)
    assert main(["replay", CASE, "a:A", "b:B", "--check", "output", "--kind", "module"]) == status
    options = {"kind": "module", "device": "auto", "checks": ("output",), "require_backend": ()}
    options |= {"case_seconds": None, "setup": None}
    assert judge.calls == [(("a:A", "b:B", CASE), options)]
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(verdict)
    assert out.count("  error 1e-7, budget 2e-7\n") == len(results)


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("table", "b:B against a:A"),
        ("markdown", "# equivcheck: different"),
        ("html", "<!doctype html>"),
        ("junit", "<?xml"),
    ],
)
def test_a_saved_report_is_rendered_again(capsys: pytest.CaptureFixture[str], form: str, first: str) -> None:
    DIFFERENT.save("x.json")
    assert main(["report", "x.json", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(first)
    assert main(["report", "x.json", "--format", form, "--out", "rendered"]) == 0
    assert Path("rendered").read_text() == shown
    assert capsys.readouterr().out == ""


def test_a_report_is_not_rendered_where_it_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    DIFFERENT.save("x.json")
    assert main(["report", "x.json", "--out", "nowhere/x"]) == 2
    assert the_line(capsys).startswith("--out nowhere/x: cannot be written (there is no folder nowhere)")


def test_the_bare_command_helps_and_does_not_pass_for_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["verify", "--help"], ["--version"]])
def test_what_only_informs_ends_in_0(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_bar_goes_away_and_the_table_stays(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    judge.answer = replace(EQUIVALENT, results=(replace(OUTPUT, name="[red]output"),))
    assert main(["verify"]) == 0
    assert "[red]output: equivalent" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # the last thing that happens to the bar's lines: they are erased
    assert capsys.readouterr().out.splitlines()[-1].startswith("equivalent: ")


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300, **options
    )


def test_the_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys; from equivcheck.cli.main import main; main(['verify', 'a:A']); main(['--help']); "
        "sys.exit(', '.join({'torch', 'hypothesis', 'pytest', 'rich', 'jinja2', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = python("-c", code)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr


def test_the_module_is_the_command() -> None:
    done = python("-m", "equivcheck", "verify", "a:A")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("equivcheck: 'a:A' without a candidate")


def test_a_reader_that_leaves_early_does_not_change_the_exit_status() -> None:
    DIFFERENT.save("x.json")
    command = f"set -o pipefail; {sys.executable} -m equivcheck report x.json --format junit | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


MINE = """
from equivcheck.attention import FlashCausalSelfAttention

class Wrong(FlashCausalSelfAttention):
    def _heads(self, x):
        q, k, v = super()._heads(x)
        return 1.1 * q, k, v

class Telling(FlashCausalSelfAttention):
    def forward(self, x):
        open("under_way", "w").close()
        return super().forward(x)
"""


def test_the_pair_that_ships_is_equivalent() -> None:
    done = python("-m", "equivcheck", "verify", "--profile", "quick", "--check", "output", "--json", "x.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("equivalent: ")
    assert done.stderr.startswith("output: equivalent, ")
    assert Report.load("x.json").equivalent


def test_a_wrong_candidate_of_the_current_folder_is_different_and_its_replay_shows_it_again() -> None:
    Path("mine.py").write_text(MINE)
    pair = ["equivcheck.attention:CausalSelfAttention", "mine:Wrong"]
    done = python("-m", "equivcheck", "verify", *pair, "--profile", "quick", "--check", "output", "--json", "x.json")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("different: output")
    found = Report.load("x.json").results[0].counterexample
    assert found is not None
    assert f"    replay: {found.replay}\n" in done.stdout
    command = found.replay.split()
    assert command[0] == "equivcheck"
    again = python("-m", *command)
    assert again.returncode == 1, again.stderr
    assert all(f"  {line}".rstrip() in again.stdout for line in found.message.splitlines())
    assert again.stdout.splitlines()[-1].startswith("different: output")


def test_what_cannot_be_imported_is_told_with_the_reason_of_the_import() -> None:
    Path("broken.py").write_text("import nothing_of_this_name")
    done = python("-m", "equivcheck", "verify", "broken:A", "broken:B")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "No module named 'nothing_of_this_name'" in done.stderr


def test_ctrl_c_ends_in_a_partial_report_that_says_so() -> None:
    Path("mine.py").write_text(MINE)
    pair = ["equivcheck.attention:CausalSelfAttention", "mine:Telling"]
    command = [sys.executable, "-m", "equivcheck", "verify", *pair, "--profile", "thorough", "--json", "x.json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as run:
        while run.poll() is None and not Path("under_way").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert out.splitlines()[-1].startswith("partial: the run was cut short and proves nothing")
    report = Report.load("x.json")
    assert (report.complete, report.verdict) == (False, "partial")
