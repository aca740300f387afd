"""The options of the command line: what arrives at a run, what wins, and one line for each that is wrong."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from judged_reports import CASE, DIFFERENT, EQUIVALENT, INSENSITIVE, OUTPUT, PARTIAL, Judge, the_line

from equivcheck.cli.main import main
from equivcheck.cli.options import SHIPPED, import_from_here
from equivcheck.report.model import Report

pytestmark = pytest.mark.usefixtures("judge")


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
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith((f"{report.verdict}: ", f"{report.verdict} at values: "))


def test_a_run_says_one_line_per_finished_check_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify"])
    assert capsys.readouterr().err.splitlines() == [
        "output: equivalent, 60 cases, worst ratio 0.412, 1.5 s",
        "sensitivity: 1 planted fault tried",
    ]


def test_no_arguments_mean_the_shipped_pair_with_the_defaults(judge: Judge) -> None:
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
        "max_memory_ratio": None,
        "strict": False,
        "all_cases": False,
        "fail_fast": False,
        "profile_run": False,
        "remembered": True,
        "shard": None,
        "case_seconds": None,
        "worker_memory": None,
        "setup": None,
        "require": None,
        "domain": None,
    }


def test_every_option_arrives(judge: Judge) -> None:
    line = (
        "verify a:A b:B --kind module --device cuda:1 --profile quick --check output --check logits --exclude causality"
    )
    more = [
        "--deviation",
        "logits=on purpose",
        "--require-backend",
        "bfloat16=flash",
        "--strict",
        "--all",
        "--fail-fast",
        "--profile-run",
        "--no-remembered",
    ]
    more += ["--max-memory-ratio", "1.5", "--case-seconds", "7", "--worker-memory", "2 GiB", "--setup", "s:S"]
    more += ["--require", "drop-in,values", "--domain", "head_size == 64"]
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
        "max_memory_ratio": 1.5,
        "strict": True,
        "all_cases": True,
        "fail_fast": True,
        "profile_run": True,
        "remembered": False,
        "shard": None,
        "case_seconds": 7.0,
        "worker_memory": 2.0**31,
        "setup": "s:S",
        "require": ("values", "drop-in"),
        "domain": "head_size == 64",
    }


@pytest.mark.parametrize(
    "options", [["--no-remembered"], ["--json", "x"], ["--junit", "x"], ["--sarif", "x"], ["--report", "x"]]
)
def test_evidence_begins_without_remembered_cases(judge: Judge, options: list[str]) -> None:
    main(["verify", *options])
    ((_, given),) = judge.calls
    assert given["remembered"] is False


def test_a_shard_runs_all_of_its_cases_and_no_remembered_ones(judge: Judge) -> None:
    assert main(["verify", "--shard", "2/7"]) == 0
    ((_, given),) = judge.calls
    assert (given["shard"], given["all_cases"], given["remembered"]) == ((2, 7), True, False)


def test_a_project_can_do_without_remembered_cases(judge: Judge) -> None:
    for value in ("false", "true"):
        Path("pyproject.toml").write_text(f"[tool.equivcheck]\nremembered = {value}\n")
        main(["verify"])
    assert [given["remembered"] for _, given in judge.calls] == [False, True]


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
        "exclude = ['bias', 'long']\ndeviations = {output = 'said before', logits = 'too'}\n"
    )
    main(["verify"])
    main(["verify", "a:A", "b:B", "--seed", "0", "--exclude", "purity", "--deviation", "output=said now"])
    (defaults, d), (given, g) = judge.calls
    assert (defaults, given) == (("c:C", "d:D"), ("a:A", "b:B"))
    assert (d["seed"], d["profile"], d["exclude"], d["deviations"]["output"]) == (
        5,
        "thorough",
        ("bias", "long"),
        "said before",
    )
    assert (g["seed"], g["profile"], g["exclude"], g["deviations"]) == (
        0,
        "thorough",
        ("purity",),
        {"output": "said now", "logits": "too"},
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
        ("verify --profile fast", "'fast' is not one of 'screen', 'quick', 'gate', 'thorough'"),
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
        ("gate x.json --min-profile slow", "'slow' is not one of 'screen', 'quick', 'gate', 'thorough'"),
        ("gate x.json --require-device=", "--require-device '': a device such as cuda, or a part of a GPU's name"),
        ("gate .", ".: cannot be read (Is a directory); give a file written by --json"),
        ("gate x.json --root nowhere", "--root nowhere: there is no such folder"),
        ("verfy", "No such command 'verfy'"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(
    judge: Judge, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    assert main(line.split()) == 2
    assert words in the_line(capsys)
    assert not judge.calls


def test_a_wrong_config_is_refused_in_one_line(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text("[tool.equivcheck]\nprofil = 'quick'\n")
    assert main(["verify"]) == main(["replay", CASE]) == 2
    assert all("unknown key 'profil'" in line for line in capsys.readouterr().err.splitlines())
    assert not judge.calls


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
