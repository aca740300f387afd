"""Imports point down: every package of equivcheck imports from those below it alone, in the order of docs/architecture.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import equivcheck

PACKAGE = Path(equivcheck.__file__).parent
FLOORS = (
    ("__main__",),
    ("cli",),
    ("pytest_plugin",),
    ("api",),
    ("worker",),
    ("supervisor",),
    ("engine",),
    ("checks", "bench"),
    ("pairs", "faults", "adapters"),
    ("cases",),
    ("gpt",),
    ("attention",),
    ("report",),
    ("runtime",),
    ("flash", "numerics"),
    ("errors",),
)
"""From the top down; what stands on one floor does not import each other."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
OF_THE_SUPERVISOR = {"report", "errors", "runtime.beacon"}
WITHOUT_TORCH = (
    "equivcheck",
    "equivcheck.api",
    "equivcheck.pytest_plugin",
    "equivcheck.pytest_plugin.suite",
    "equivcheck.bench.presets",
    "equivcheck.cli.main",
    "equivcheck.cli.gate",
    "equivcheck.cli.report",
    "equivcheck.engine.gate.verdict",
    "equivcheck.report.codec",
    "equivcheck.report.html",
    "equivcheck.report.junit",
    "equivcheck.report.sarif",
    "equivcheck.report.table",
    "equivcheck.supervisor.api",
    "equivcheck.supervisor.merging",
)
"""What must answer at once, or must not share a process with what it judges."""


def modules(package: Path) -> dict[str, Path]:
    """The modules by their names below the package."""
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return {name: file for name, file in found.items() if name}


def imported(file: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, bool]]:
    """What a module imports of the package, anywhere in it, and whether that is inside of a function."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("equivcheck"):
                base = (child.module or "").removeprefix("equivcheck").removeprefix(".")
                for alias in child.names:
                    name = f"{base}.{alias.name}".removeprefix(".")
                    yield (name if name in known else base), inside
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.startswith("equivcheck."):
                        yield alias.name.removeprefix("equivcheck."), inside
            yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from walk(ast.parse(file.read_text()), False)


def violations(package: Path) -> list[str]:
    """Every import that the order does not allow."""
    known, found = modules(package), []
    for name, file in known.items():
        room = name.partition(".")[0]
        for target, _ in imported(file, known):
            below = target.partition(".")[0]
            if not below or below == room:
                continue
            if FLOOR[below] <= FLOOR[room]:
                found.append(f"{name} imports {target}, which is not below it")
            elif room == "supervisor" and not {below, target} & OF_THE_SUPERVISOR:
                found.append(
                    f"{name} imports {target}, and a supervisor knows {', '.join(sorted(OF_THE_SUPERVISOR))} alone"
                )
    return found


def test_every_import_points_down() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("numerics", "from equivcheck.pairs.pair import Pair"),
        ("cases", "def late():\n    from equivcheck.engine import search"),
        ("pairs", "import equivcheck.faults.base"),
        ("supervisor", "from equivcheck.engine.plan import choose_checks"),
    ],
)
def test_an_import_that_points_up_is_seen(tmp_path: Path, room: str, line: str) -> None:
    (tmp_path / room).mkdir()
    (tmp_path / room / "planted.py").write_text(f"{line}\n")
    assert len(violations(tmp_path)) == 1


def test_every_thing_in_the_package_has_a_floor_and_there_are_few() -> None:
    there = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and p.name != "__pycache__")}
    assert there - {"__init__"} == set(FLOOR)
    assert len([p for p in PACKAGE.iterdir() if p.name != "__pycache__"]) <= 22


def test_the_longest_way_down_has_at_most_twelve_floors() -> None:
    known = modules(PACKAGE)
    below: dict[str, set[str]] = {}
    for name, file in known.items():
        rooms = {target.partition(".")[0] for target, _ in imported(file, known)} - {"", name.partition(".")[0]}
        below.setdefault(name.partition(".")[0], set()).update(rooms)

    @cache
    def depth(room: str) -> int:
        return 1 + max((depth(other) for other in below.get(room, ())), default=0)

    assert max(map(depth, FLOOR)) <= 12


def test_what_is_called_first_imports_the_engine_late() -> None:
    known = modules(PACKAGE)
    called_first = [name for name in known if name == "cli" or name.startswith("cli.")]
    of_the_engine = [
        (name, target, late)
        for name in called_first
        for target, late in imported(known[name], known)
        if target.startswith("engine")
    ]
    assert ("cli.gate", "engine.gate.verdict", True) in of_the_engine
    assert [(name, target) for name, target, late in of_the_engine if not late] == []


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_what_must_answer_at_once_loads_no_torch(name: str) -> None:
    code = f"import sys, {name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
