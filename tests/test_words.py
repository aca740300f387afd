"""Words that the package does not use: the list of docs/architecture.md, and names that say nothing of the thing."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import equivcheck

PACKAGE = Path(equivcheck.__file__).parent
BANNED = ("told", "mine", "crew", "ahead", "unfelt", "held_back", "golden", "fuzz")
"""In code, comments, docstrings and messages."""

BANNED_NAMES = ("held", "found", "got", "own", "its", "room")
"""As a name, or as one of the words that it is made of."""

FILES = sorted(PACKAGE.rglob("*.py"))


def banned(file: Path) -> Iterator[str]:
    """Each place where a word stands that is not used."""
    with tokenize.open(file) as source:
        for token in tokenize.generate_tokens(source.readline):
            where = f"line {token.start[0]}"
            if token.type == tokenize.NAME:
                parts = token.string.strip("_").split("_")
                yield from (f"{where}: {token.string}" for word in BANNED_NAMES if word in parts)
            yield from (
                f"{where}: {word}" for word in BANNED if re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", token.string)
            )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_file_uses_none_of_the_banned_words(file: Path) -> None:
    assert list(banned(file)) == []


@pytest.mark.parametrize(
    "line", ["told = 1", "x = 1  # as was told", '"""Nobody is told."""', "own_error = 2", "def _found(): pass"]
)
def test_a_banned_word_is_seen(tmp_path: Path, line: str) -> None:
    file = tmp_path / "planted.py"
    file.write_text(f"{line}\n")
    assert list(banned(file))


@pytest.mark.parametrize("line", ["holder = 1", "unfolded = 2", "x = 'an owner'", "bounds = 1"])
def test_a_word_that_only_looks_like_one_is_allowed(tmp_path: Path, line: str) -> None:
    file = tmp_path / "plain.py"
    file.write_text(f"{line}\n")
    assert list(banned(file)) == []
