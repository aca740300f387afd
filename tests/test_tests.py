"""The tests themselves: files that can be read, and names that fit a line."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
MOST_LINES, MOST_LETTERS = 400, 70


def test_no_file_of_tests_is_long() -> None:
    lines = {file.relative_to(TESTS).as_posix(): len(file.read_text().splitlines()) for file in TESTS.rglob("*.py")}
    assert len(lines) > 100
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_name_of_a_test_is_long() -> None:
    names = [
        node.name
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 900
    assert [name for name in names if len(name) > MOST_LETTERS] == []
