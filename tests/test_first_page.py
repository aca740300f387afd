"""README.md and docs/getting-started.md: their files are written down, their commands are run, their output is real."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from equivcheck.cli.main import cli

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "docs/getting-started.md", "docs/diagnosis.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
FILES = {name: dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, re.DOTALL)) for name, text in TEXTS.items()}
COMMANDS = {
    (name, line)
    for name, text in TEXTS.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("equivcheck ")
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of getting-started."""
    for name, text in FILES["docs/getting-started.md"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=400)


def test_the_first_page_has_the_files_of_getting_started() -> None:
    first = FILES["README.md"]
    assert {"pair.py", "right.py", "test_fast.py"} <= first.keys()
    assert FILES["docs/getting-started.md"].items() >= first.items()


@pytest.mark.parametrize(("page", "line"), sorted(COMMANDS))
def test_every_command_of_the_first_pages_is_one(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    cli.commands[name].make_context(name, arguments)


def test_the_case_of_the_first_page_fails_as_it_says(folder: Path) -> None:
    (line,) = (line for page, line in COMMANDS if page == "docs/diagnosis.md")
    shown = re.findall(r"```text\n(.*?)```", TEXTS["docs/diagnosis.md"], re.DOTALL)
    done = run(folder, *shlex.split(line.replace("--check lengths", "--check output")))  # a quarter of the time
    assert done.returncode == 1, done.stderr
    for block in shown[-2:]:  # the legend of the case, and the end of the replay
        assert [
            row for row in block.splitlines() if row != "…" and row.replace("lengths", "output") not in done.stdout
        ] == []
    case = shlex.split(line)[2]
    assert all(f"equivcheck replay {case} pair.py:slow pair.py:fast" in text for text in TEXTS.values())
    assert all("each query sees a window of 256 keys" in text for text in (*TEXTS.values(), done.stdout))


def test_the_right_pair_of_the_first_page_is_equivalent(folder: Path) -> None:
    command = "equivcheck verify pair.py:slow right.py:fast --profile quick"
    assert ("README.md", command) in COMMANDS
    done = run(folder, *command.split(), "--device", "cpu", "--check", "output", "--no-remembered")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^equivalent: \d+ cases, 1 check, cpu .+ planted faults caught", done.stdout, re.MULTILINE)


def test_the_suite_of_the_first_page_is_green(folder: Path) -> None:
    chosen = "float32 and output and cpu"
    done = run(folder, "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-k", chosen, "test_fast.py")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)
