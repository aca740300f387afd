"""What is built: the wheel has the package with its types and data, the sdist what is needed to test and to build it."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = PROJECT["tool"]["hatch"]["build"]["targets"]
PACKAGE = {
    file.relative_to(ROOT).as_posix()
    for file in (ROOT / "equivcheck").rglob("*")
    if file.is_file() and "__pycache__" not in file.parts
}
DATA = {
    "equivcheck/py.typed",
    "equivcheck/report/schema.json",
    "equivcheck/report/templates/report.css",
    "equivcheck/report/templates/report.html",
}


def test_the_wheel_is_the_whole_package_and_nothing_else() -> None:
    assert TARGETS["wheel"] == {"packages": ["equivcheck"]}
    assert {name for name in PACKAGE if not name.endswith(".py")} == DATA


def test_everything_in_the_sdist_is_there_and_nothing_is_left_out() -> None:
    included = {name.removeprefix("/") for name in TARGETS["sdist"]["include"]}
    assert {name for name in included if not (ROOT / name).exists()} == set()
    by_itself = {"README.md", "LICENSE", "pyproject.toml", ".gitignore"}  # hatchling adds them
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert {line.partition("/")[0] for line in tracked.splitlines()} <= included | by_itself


def test_the_package_says_what_it_is() -> None:
    project = PROJECT["project"]
    assert project["scripts"] == {"equivcheck": "equivcheck.cli.main:main"}
    assert project["keywords"] == sorted(project["keywords"])
    assert project["classifiers"] == sorted(project["classifiers"])
    assert "Typing :: Typed" in project["classifiers"]
    assert not [name for name in project["classifiers"] if name.startswith("License ::")]  # `license` says it


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")
def test_what_hatchling_builds_has_these_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as built:
        names = set(built.namelist())
        metadata = built.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert {name for name in names if ".dist-info/" not in name} == PACKAGE
    assert {name.rpartition("/")[2] for name in names - PACKAGE} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "LICENSE",
    }
    assert "License-Expression: MIT\n" in metadata
    assert "\nClassifier: Typing :: Typed\n" in metadata
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert files >= PACKAGE | {"pyproject.toml", "README.md", "LICENSE", "RELEASING.md", "tests/test_packaging.py"}
