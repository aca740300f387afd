"""A shell completes commands, options and their values: through click's script in bash, and without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from equivcheck.report.catalogue import CATALOGUE, KINDS, PROFILES
from equivcheck.report.levels import LEVELS

PROGRAM = """
import sys
from equivcheck.cli.main import main

status = main()
assert "torch" not in sys.modules
sys.exit(status)
"""
FUNCTION_CHECKS = [check.name for check in CATALOGUE if "function" in check.kinds]
LINES = {
    "equivcheck ver": ["plain,verify"],
    "equivcheck che": ["plain,checks"],
    "equivcheck verify --max-s": ["plain,--max-seconds"],
    "equivcheck verify --check caus": ["plain,causality"],
    "equivcheck verify --check=caus": ["plain,causality"],
    "equivcheck replay x --check grad": ["plain,gradients"],
    "equivcheck judge a:A --exclude dro": ["plain,dropout"],
    "equivcheck gate x.json --check replacement.h": ["plain,replacement.hooks"],
    "equivcheck faults --check auto": ["plain,autocast"],
    "equivcheck verify --check replacement": [
        *(f"plain,{c.name}" for c in CATALOGUE if c.name.startswith("replacement.")),
        "plain,replacement",
    ],
    "equivcheck verify --kind function --check c": [f"plain,{n}" for n in FUNCTION_CHECKS if n.startswith("c")],
    "equivcheck verify --profile ": [f"plain,{name}" for name in PROFILES],
    "equivcheck gate x.json --min-profile th": ["plain,thorough"],
    "equivcheck checks --kind ": [f"plain,{name}" for name in KINDS],
    "equivcheck checks --level ": [f"plain,{name}" for name in LEVELS],
    "equivcheck verify --require ": [f"plain,{name}" for name in LEVELS],
    "equivcheck verify --require values,tra": ["plain,values,training", "plain,values,transforms"],
    "equivcheck gate x.json --require-dtypes float32,fl": ["plain,float32,float64", "plain,float32,float16"],
    "equivcheck verify --device c": ["plain,cpu", "plain,cuda"],
    "equivcheck verify --require-backend fl": ["plain,flash"],
    "equivcheck report rep": ["file,rep"],
    "equivcheck report x.json --out rep": ["file,rep"],
    "equivcheck verify --json rep": ["file,rep"],
    "equivcheck verify --report bui": ["dir,bui"],
    "equivcheck bench --plots bui": ["dir,bui"],
    "equivcheck verify slow": ["file,slow"],
    "equivcheck judge slow.py:A fa": ["file,fa"],
}


@pytest.fixture
def command(tmp_path: Path) -> dict[str, str]:
    """An environment in which `equivcheck` is the command of this checkout, which fails where torch is loaded."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/program.py").write_text(PROGRAM)
    program = tmp_path / "bin/equivcheck"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/bin/program.py" "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("line", LINES)
def test_the_command_answers_a_shell_without_torch(command: dict[str, str], line: str) -> None:
    place = len(line.split()) - (not line.endswith(" "))
    asked = {"_EQUIVCHECK_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(place)}
    done = subprocess.run(["equivcheck"], env=command | asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, LINES[line], "")


SESSION = """
eval "$(_EQUIVCHECK_COMPLETE=bash_source equivcheck)"
complete -p equivcheck
compopt() { printf 'compopt %s %s\\n' "$@"; }
COMP_WORDS=($LINE)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_equivcheck_completion equivcheck
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("equivcheck verify --check caus", ["causality"]),
        ("equivcheck verify --profile th", ["thorough"]),
        ("equivcheck checks --level tra", ["training transforms"]),
        ("equivcheck report rep", ["compopt -o default", ""]),
        ("equivcheck verify --report bui", ["compopt -o dirnames", ""]),
    ],
)
def test_bash_completes_by_the_script_of_the_command(command: dict[str, str], line: str, answers: list[str]) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", SESSION], env=command | {"LINE": line}, capture_output=True, text=True, check=False
    )
    registered, *said = done.stdout.splitlines()
    assert "-F _equivcheck_completion equivcheck" in registered, done.stderr
    assert (said, done.stderr) == (answers, "")
