"""The option `--domain`: what arrives at a run, and one line with exit status 2 for each that is wrong."""

from pathlib import Path
from typing import Any

import pytest
from judged_reports import CASE, Judge, python, the_line

from equivcheck.cli.main import main
from equivcheck.report.model import Report
from equivcheck.supervisor import api
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair

pytestmark = pytest.mark.usefixtures("judge")

PICKY = """
def original(q, k, v):
    assert q.shape[-1] in (16, 32), f"head size {q.shape[-1]}"
    return (q @ k.mT * q.size(-1) ** -0.5).softmax(-1) @ v

def inside(case):
    return case.head_size in (16, 32)

number = 3
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head_siz == 64", "at column 1, 'head_siz': unknown name; did you mean 'head_size'?"),
        ("'bfloat16' < 3", "3 is a number, and 'bfloat16' is a text"),
        ("head_size in 64", "a list such as (64, 128) is allowed here"),
        ("seq_len % 0 == 0", "it divides by zero"),
        ("head_size ==", "at column"),
        ("print(1)", "Call is not allowed"),
        (" ", "it is empty"),
        ("pkg.mod:inside and depth == 1", "'depth': unknown name"),
    ],
)
@pytest.mark.parametrize("command", [["verify"], ["replay", CASE]], ids=["verify", "replay"])
def test_a_wrong_domain_is_one_line_and_nothing_is_run(
    judge: Judge, capsys: pytest.CaptureFixture[str], command: list[str], text: str, message: str
) -> None:
    assert main([*command, "--domain", text]) == 2
    assert message in the_line(capsys)
    assert judge.calls == []


def test_a_wrong_domain_of_the_project_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text('[tool.equivcheck]\ndomain = "depth == 1"\n')
    assert main(["verify"]) == 2
    assert "'depth': unknown name" in the_line(capsys)


def test_a_domain_arrives_at_the_run_and_wins_over_the_project(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[NamedPair, Request]] = []
    answer = api.verify

    def verify(pair: NamedPair, request: Request, **rest: Any) -> Report:
        seen.append((pair, request))
        return answer(pair, request, **rest)

    monkeypatch.setattr(api, "verify", verify)
    Path("pyproject.toml").write_text('[tool.equivcheck]\ndomain = "seq_len > 1"\n')
    main(["verify"])
    main(["verify", "--domain", "head_size == 64"])
    assert [(pair.domain, request.domain) for pair, request in seen] == [("seq_len > 1",) * 2, ("head_size == 64",) * 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head_size < 16 and head_size > 64", "is empty: no case meets it; 'head_size"),
        (
            "head_size == 5",
            "refuses every case that was tried in the domain 'head_size == 5', first with AssertionError",
        ),
        ("picky:nothing", "'picky' has no 'nothing'"),
        ("picky:number", "which cannot be called: give a function of a case"),
    ],
)
def test_a_domain_in_which_nothing_can_be_judged_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "picky.py").write_text(PICKY)
    pair = ["picky:original", "picky:original", "--device", "cpu", "--profile", "quick", "--domain", text]
    done = python("-m", "equivcheck", "verify", *pair, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_import_string_of_a_function_is_a_domain_and_stands_in_the(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(PICKY)
    pair = ["picky:original", "picky:original", "--device", "cpu", "--profile", "quick", "--check", "interface"]
    done = python("-m", "equivcheck", "verify", *pair, "--domain", "picky:inside and seq_len <= 32", cwd=tmp_path)
    assert "domain: picky:inside and seq_len <= 32" in done.stdout.splitlines(), done.stdout + done.stderr
    assert "itself raises" not in done.stdout
