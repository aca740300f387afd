"""The last counterexamples of each pair, in a file of the current folder: a run begins with them."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equivcheck.report.catalogue import is_listed, level_at, listed, passing_over, round_of
from equivcheck.report.files import read_bounded, write_whole
from equivcheck.report.model import CheckResult

__all__ = ["FILE", "FOLDER", "MOST_CASES", "MOST_PAIRS", "Entry", "Memory", "PairKey", "entries_of", "memory_here"]

FOLDER, FILE = ".equivcheck", "counterexamples.json"
MOST_CASES, MOST_PAIRS = 8, 64
"""The greatest number of counterexamples of one pair, and of pairs: older ones are forgotten."""

_VERSION = 1
_MOST_BYTES = 2**20
_MOST_LETTERS = 512  # of a text in the file


@dataclass(frozen=True)
class PairKey:
    """The names of a pair, its kind, and the type of its device."""

    reference: str
    candidate: str
    kind: str
    device: str


@dataclass(frozen=True)
class Entry:
    """A counterexample: the check, or the round of it that passes over its earlier findings, the case and the level."""

    check: str
    case: str
    level: str


class Memory:
    """The file with the counterexamples. A file or folder that cannot be used is an empty memory, and no error."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet.

        Args:
            folder: The folder of the file; it is made when there is something to remember.
        """
        self._folder, self._file = folder, folder / FILE

    def entries(self, key: PairKey) -> list[Entry]:
        """The counterexamples of a pair, the last one first."""
        return self._read().get(key, [])

    def keep(self, key: PairKey, entries: Iterable[Entry]) -> None:
        """Remember the first of these counterexamples in the place of those of the pair."""
        pairs = self._read()
        first: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            first.setdefault((entry.check, entry.case), entry)
        kept = list(first.values())[:MOST_CASES]
        if kept == pairs.pop(key, []):
            return
        if kept:
            pairs[key] = kept
        newest = list(pairs.items())[-MOST_PAIRS:]
        content = {
            "version": _VERSION,
            "pairs": [{**asdict(pair), "counterexamples": [asdict(entry) for entry in of]} for pair, of in newest],
        }
        with suppress(OSError, ValueError):
            self._folder.mkdir(exist_ok=True)
            ignored = self._folder / ".gitignore"
            if not os.path.lexists(ignored):
                write_whole(ignored, "*\n")
            if not self._file.exists() or self._file.is_file():  # a pipe would be waited for
                write_whole(self._file, json.dumps(content, indent=1) + "\n")

    def _read(self) -> dict[PairKey, list[Entry]]:
        """The pairs, the oldest first; those that the file has in another form are left out."""
        try:
            if not self._file.is_file():
                return {}
            content = json.loads(read_bounded(self._file, _MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            return {}
        pairs: dict[PairKey, list[Entry]] = {}
        for one in _mappings(content.get("pairs")):
            if texts := _texts(one, PairKey.__dataclass_fields__):
                entries = [
                    Entry(**fields)
                    for of_case in _mappings(one.get("counterexamples"))
                    if (fields := _texts(of_case, Entry.__dataclass_fields__)) and _is_round(fields["check"])
                ]
                pairs[PairKey(**texts)] = entries[:MOST_CASES]
        return pairs


def memory_here(environment: Mapping[str, str] = os.environ) -> Memory | None:
    """The memory of the current folder; None where the variable `CI` is set: there every run is as the first one."""
    if environment.get("CI"):
        return None
    try:
        return Memory(Path(os.getcwd()) / FOLDER)  # code under test may change the folder
    except OSError:
        return None


def entries_of(results: Sequence[CheckResult]) -> list[Entry]:
    """The counterexamples of results that are different, those that were made small first.

    Of several findings on one case at one level the first stands for all: it shows whether the case passes.
    """
    entries: dict[tuple[str, str, str], Entry] = {}
    for result in sorted(results, key=lambda result: result.shortened):
        over: list[str] = []
        for finding in result.shown:
            if finding.outcome == "different" and is_listed(result.name):
                level, case = finding.level or level_at(result.name, finding.name), finding.counterexample.case
                entries.setdefault((result.name, case, level), Entry(passing_over(result.name, over), case, level))
            over.append(finding.name)
    return list(entries.values())


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _texts(of: Mapping[str, Any], names: Iterable[str]) -> dict[str, str] | None:
    """The texts of these names; None if one is missing or no text."""
    texts = {name: of.get(name) for name in names}
    if all(isinstance(text, str) and len(text) <= _MOST_LETTERS for text in texts.values()):
        return {name: str(text) for name, text in texts.items()}
    return None


def _is_round(name: str) -> bool:
    """Whether there is such a check, with the findings that this round of it passes over."""
    check, over = round_of(name)
    return is_listed(check) and all(finding in listed(check).findings for finding in over)
