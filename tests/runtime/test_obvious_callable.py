"""The callable that a file is about, read from its source."""

from pathlib import Path

import pytest

from equivcheck.errors import UsageError
from equivcheck.runtime.obvious_callable import obvious_callable


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("class Fast: ...", "Fast"),
        ("import torch\ndef fast(q): ...\nclass _Helper: ...", "fast"),
        ("__all__ = ['B']\nclass A: ...\nB = A", "B"),
        ("class Fast: ...\nclass Slow: ...", "Slow"),
        ("def helper(x): ...\ndef fast(q): return helper(q)", "fast"),
    ],
)
def test_the_obvious_callable_of_a_file(tmp_path: Path, source: str, name: str) -> None:
    file = tmp_path / "c.py"
    file.write_text(source)
    assert obvious_callable(file, "Slow") == name


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class A: ...\nclass B: ...", "it is not clear which of A, B is meant; give --name"),
        ("x = 1", "no public class or function is defined there"),
        ("class A(:", "no Python source (line 1: invalid syntax)"),
        ("x = '\0'", "no Python source"),
        ("(" * 5000, "no Python source"),
    ],
)
def test_a_file_that_leaves_doubt_is_refused_in_one_line(tmp_path: Path, source: str, words: str) -> None:
    file = tmp_path / "c.py"
    file.write_text(source)
    with pytest.raises(UsageError) as refused:
        obvious_callable(file)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
