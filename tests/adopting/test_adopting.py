"""Other people's repositories: the right variant of each is green under plain pytest, the wrong one red with a counterexample."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORIES = ("function", "projection", "replacement")


def run(repository: str, test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    copied = shutil.copytree(HERE / repository, folder / repository)
    command = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "--rootdir", ".", test]
    return subprocess.run(command, cwd=copied, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_the_right_variant_is_green(repository: str, tmp_path: Path) -> None:
    done = run(repository, "test_right.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_the_wrong_variant_is_red_with_a_counterexample_and_its_replay(repository: str, tmp_path: Path) -> None:
    done = run(repository, "test_wrong.py", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "further from the oracle than rounding in float32 explains" in done.stdout
    assert re.search(r"^case B\d+-T\d+-H\d+", done.stdout, re.MULTILINE)
    assert re.search(
        r"^equivcheck replay B\S+ \S+ \S+_wrong|^equivcheck replay B\S+ \S+ \S+Wrong", done.stdout, re.MULTILINE
    )


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_no_repository_needs_more_than_ten_lines_of_its_own(repository: str) -> None:
    lines = [
        line
        for name in ("conftest.py", "test_right.py")
        for line in (HERE / repository / name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    assert len(lines) <= 10
