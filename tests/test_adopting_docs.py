"""docs/adopting.md: every block is written to the file that it names, and run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parent.parent / "docs" / "adopting.md"
BLOCKS = {
    name: text
    for name, text in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
}
ELSEWHERE = {"test_huggingface.py"}  # tests/peers runs it: it needs transformers
TESTS = sorted(name for name in BLOCKS if name.startswith("test_") and name not in ELSEWHERE)


def written(folder: Path) -> Path:
    for name, text in BLOCKS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=400)


def test_every_block_of_python_names_its_file() -> None:
    assert len(BLOCKS) == DOCUMENT.read_text(encoding="utf-8").count("```python\n")


@pytest.mark.parametrize("test", TESTS)
def test_the_tests_of_the_document_are_green(test: str, tmp_path: Path) -> None:
    chosen = "float32 and (output or checkpoint or causality)"  # the checks themselves have tests of their own
    done = run(
        written(tmp_path), "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "--rootdir", ".", "-k", chosen, test
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_the_script_of_the_document_says_equivalent(tmp_path: Path) -> None:
    done = run(written(tmp_path), "check.py")
    assert re.fullmatch(r"equivalent \d+ faults caught\n", done.stdout), done.stderr


def test_the_plugin_of_the_document_imports_no_torch(tmp_path: Path) -> None:
    program = "import sys, equivcheck, equivcheck.pytest_plugin; print('torch' in sys.modules)"
    assert run(tmp_path, "-c", program).stdout == "False\n"
