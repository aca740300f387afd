"""A repository for the gate to look at."""

import shutil
from pathlib import Path

import pytest
from green_reports import PACKAGE


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that holds a copy of the package, to be changed."""
    shutil.copytree(PACKAGE, tmp_path / "equivcheck", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path
