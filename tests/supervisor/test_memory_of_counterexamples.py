"""The file of counterexamples: bounded, and no failure of a run whatever is in its place."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from equivcheck.report.model import CheckResult, Counterexample, Finding
from equivcheck.supervisor.memory import (
    FILE,
    FOLDER,
    MOST_CASES,
    MOST_PAIRS,
    Entry,
    Memory,
    PairKey,
    entries_of,
    memory_here,
)

PAIR = PairKey("a:A", "b:B", "module", "cpu")
ENTRY = Entry("output", "B1-T3", "values")
RECORD = {"reference": "a:A", "candidate": "b:B", "kind": "module", "device": "cpu"}


def memory_in(folder: Path) -> Memory:
    return Memory(folder / FOLDER)


def written(folder: Path, content: bytes) -> Memory:
    (folder / FOLDER).mkdir()
    (folder / FOLDER / FILE).write_bytes(content)
    return memory_in(folder)


def test_what_is_kept_is_there_for_the_next_run_of_the_same_pair(tmp_path: Path) -> None:
    memory_in(tmp_path).keep(PAIR, [ENTRY])
    assert memory_in(tmp_path).entries(PAIR) == [ENTRY]
    for other in (
        replace(PAIR, candidate="c:C"),
        replace(PAIR, reference="c:C"),
        replace(PAIR, kind="model"),
        replace(PAIR, device="cuda"),
    ):
        assert memory_in(tmp_path).entries(other) == []


def test_the_folder_is_one_that_git_ignores(tmp_path: Path) -> None:
    memory_in(tmp_path).keep(PAIR, [ENTRY])
    assert (tmp_path / FOLDER / ".gitignore").read_text() == "*\n"
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [".gitignore", FILE]


def test_no_folder_is_made_where_there_is_nothing_to_remember(tmp_path: Path) -> None:
    memory_in(tmp_path).keep(PAIR, [])
    assert list(tmp_path.iterdir()) == []


def test_the_last_counterexamples_of_the_last_pairs_are_kept(tmp_path: Path) -> None:
    memory = memory_in(tmp_path)
    entries = [Entry("output", f"B{n}", "values") for n in range(MOST_CASES + 3)]
    pairs = [replace(PAIR, candidate=f"c:C{n}") for n in range(MOST_PAIRS + 2)]
    for pair in pairs:
        memory.keep(pair, [entries[0], *entries])
    assert memory.entries(pairs[-1]) == entries[:MOST_CASES]
    assert [memory.entries(pair) for pair in pairs[:2]] == [[], []]
    assert all(memory.entries(pair) for pair in pairs[2:])


def test_a_pair_without_counterexamples_is_forgotten(tmp_path: Path) -> None:
    memory = memory_in(tmp_path)
    memory.keep(PAIR, [ENTRY])
    memory.keep(PAIR, [])
    assert json.loads((tmp_path / FOLDER / FILE).read_text())["pairs"] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"version": 99, "pairs": [{}]}',
        b'{"version": 1}',
        b'{"version": 1, "pairs": {"a": 1}}',
        b'{"version": 1, "pairs": [1, null, {"reference": 3}]}',
        json.dumps({"version": 1, "pairs": [RECORD | {"counterexamples": 7}]}).encode(),
        json.dumps({"version": 1, "pairs": [RECORD | {"counterexamples": [{"check": "output"}, 1]}]}).encode(),
        b" " * (2**20 + 1),
    ],
)
def test_garbage_is_an_empty_memory_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    memory = written(tmp_path, content)
    assert memory.entries(PAIR) == []
    memory.keep(PAIR, [ENTRY])
    assert memory.entries(PAIR) == [ENTRY]


@pytest.mark.parametrize("check", ["outptu", "interface~nothing", "output~hooks", "", "~"])
def test_an_unknown_check_is_dropped_alone(tmp_path: Path, check: str) -> None:
    entries = [{"check": name, "case": "B1", "level": "values"} for name in (check, "interface~hooks")]
    memory = written(tmp_path, json.dumps({"version": 1, "pairs": [RECORD | {"counterexamples": entries}]}).encode())
    assert memory.entries(PAIR) == [Entry("interface~hooks", "B1", "values")]


def a_file(folder: Path) -> None:
    (folder / FOLDER).write_text("")


def a_folder_in_the_place_of_the_file(folder: Path) -> None:
    (folder / FOLDER / FILE).mkdir(parents=True)


def a_pipe(folder: Path) -> None:
    (folder / FOLDER).mkdir()
    os.mkfifo(folder / FOLDER / FILE)


def a_link_to_nowhere(folder: Path) -> None:
    (folder / FOLDER).symlink_to("/proc/equivcheck")


@pytest.mark.skipif(os.name != "posix", reason="pipes and links in folders are those of POSIX")
@pytest.mark.parametrize("make", [a_file, a_folder_in_the_place_of_the_file, a_pipe, a_link_to_nowhere])
def test_a_place_that_cannot_be_used_is_an_empty_memory(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    memory = memory_in(tmp_path)
    memory.keep(PAIR, [ENTRY])
    assert memory.entries(PAIR) == []


def test_a_full_disk_costs_the_memory_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    memory = memory_in(tmp_path)
    memory.keep(PAIR, [ENTRY])
    monkeypatch.setattr(os, "fsync", full)
    memory.keep(PAIR, [replace(ENTRY, case="B2")])
    assert memory.entries(PAIR) == [ENTRY]


def test_there_is_no_memory_in_continuous_integration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert memory_here({"CI": "true"}) is None
    assert memory_here({"CI": ""}) is not None
    assert memory_here({}) is not None


def test_there_is_no_memory_in_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert memory_here({}) is None


def test_a_later_finding_is_remembered_with_those_that_it_is_behind() -> None:
    def finding(name: str, case: str, outcome: str = "different") -> Finding:
        return Finding(name, "drop-in", outcome, Counterexample(case, "", ""))  # type: ignore[arg-type]

    findings = (finding("form", "B1", "deviation"), finding("attributes", "B2"), finding("hooks", "B2"))
    findings += (finding("adapters", "B3"),)
    result = CheckResult("interface", "different", 4, findings=findings)
    first = CheckResult("output", "different", 2, counterexample=Counterexample("B4", "", ""), shortened=True)
    declared = CheckResult("errors", "deviation", 4, counterexample=Counterexample("B5", "", ""))
    assert entries_of([first, result, declared]) == [
        Entry("interface~form", "B2", "drop-in"),
        Entry("interface~form~attributes~hooks", "B3", "drop-in"),
        Entry("output", "B4", "values"),
    ]
