"""The declared dependencies are all that is needed: nothing runs on numpy, and every dependency has a lowest version."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import equivcheck
from equivcheck.report.model import Report

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "equivcheck").rglob("*.py"))
NEEDS_NUMPY = {"numpy", "from_numpy", "__array__"}  # of a tensor, or of torch


def uses_of_numpy(source: str) -> Iterator[int]:
    """The lines that import numpy, or make an array of a tensor or a tensor of an array."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Attribute):
            modules = ["numpy"] if node.attr in NEEDS_NUMPY else []
        else:
            continue
        if any(module.split(".")[0] == "numpy" for module in modules):
            yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "import numpy as np",
        "from numpy.linalg import norm",
        "t.numpy().tobytes()",
        "torch.from_numpy(a)",
        "torch.numpy",
    ],
)
def test_a_use_of_numpy_is_seen(line: str) -> None:
    assert list(uses_of_numpy(line)) == [1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_uses_numpy(path: Path) -> None:
    assert list(uses_of_numpy(path.read_text())) == []


HIDES_NUMPY = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "numpy" else find_spec(name, *rest)
"""


@pytest.fixture
def without_numpy(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody finds numpy, in child processes either: it is as if it were not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(HIDES_NUMPY)
    # the package under test, wherever it is installed, goes before another that the interpreter may have
    path = [str(tmp_path / "hidden"), str(Path(equivcheck.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def test_the_pair_that_ships_is_equivalent_where_numpy_cannot_be_imported(
    tmp_path: Path, without_numpy: dict[str, str]
) -> None:
    probe = subprocess.run([sys.executable, "-c", "import numpy"], env=without_numpy, capture_output=True, text=True)
    assert "No module named 'numpy'" in probe.stderr, "numpy is there: this demonstrates nothing"
    report = tmp_path / "report.json"
    checks = [f"--check={name}" for name in ("purity", "checkpoint", "compile")]
    command = [sys.executable, "-m", "equivcheck", "verify", "--profile", "quick", *checks, "--json", str(report)]
    done = subprocess.run(command, cwd=tmp_path, env=without_numpy, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Report.load(report).equivalent


def test_the_lowest_versions_are_those_of_the_project(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    command = [sys.executable, str(ROOT / ".ci/lowest.py"), "--but", "torch"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    pins = [re.sub(">=", "==", line) for line in declared if not line.startswith("torch>")]
    assert done.stdout.splitlines() == pins
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)
