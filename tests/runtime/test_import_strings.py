"""Typing mistakes in import strings: refused without an import where they are certain, and left alone elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from equivcheck.errors import UsageError
from equivcheck.pairs.loading import load
from equivcheck.runtime.import_strings import parts_of, refuse_misspelt

SOURCE = """
raise SystemExit("imported")

import math as numbers
from os import path

def attention(q, k, v): ...

class Module:
    inner = None

if True:
    chosen = Module

def _hidden(): ...

for each in range(3):
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sides.py").write_text(SOURCE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "package" / "sides.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", ["sides.py", "sides", "package.sides", "package/sides.py"])
@pytest.mark.parametrize(
    "name", ["attention", "Module", "Module.inner", "Module.other", "chosen", "path", "numbers", "each"]
)
@pytest.mark.usefixtures("here")
def test_a_name_that_the_source_binds_is_left_to_the_import(place: str, name: str) -> None:
    refuse_misspelt(f"{place}:{name}")


@pytest.mark.parametrize("place", ["sides.py", "sides", "package.sides"])
@pytest.mark.usefixtures("here")
def test_a_name_that_the_source_does_not_bind_is_refused_without_an_import(place: str) -> None:
    with pytest.raises(UsageError, match=rf"^'{place}' has no 'atention': it has Module, attention$"):
        refuse_misspelt(f"{place}:atention")


@pytest.mark.parametrize(
    "line",
    [
        "from os import *",
        "globals()['x'] = 1",
        "def __getattr__(name): ...",
        "import sys; sys.modules[__name__] = 1",
        "((((",
    ],
)
def test_a_source_with_names_of_another_origin_is_left_to_the_import(here: Path, line: str) -> None:
    (here / "other.py").write_text(f"{line}\n")
    refuse_misspelt("other.py:anything", "other:anything")


@pytest.mark.parametrize("spec", ["nosuch_package:X", "nosuch_package.module:X"])
def test_a_package_that_is_not_there_is_refused_as_by_its_import(spec: str) -> None:
    with pytest.raises(UsageError) as early:
        refuse_misspelt(spec)
    with pytest.raises(UsageError) as late:
        load(spec)
    assert str(early.value) == str(late.value)


@pytest.mark.usefixtures("here")
def test_a_file_that_is_not_there_is_refused_as_by_its_import() -> None:
    with pytest.raises(UsageError, match="there is no file") as early:
        refuse_misspelt("side.py:Module")
    with pytest.raises(UsageError) as late:
        load("side.py:Module")
    assert str(early.value) == str(late.value)


@pytest.mark.parametrize("spec", ["package.nosuch:X", "math:nosuch", "sys:nosuch", "package.sides.deeper:X"])
@pytest.mark.usefixtures("here")
def test_what_only_an_import_can_say_is_left_to_it(spec: str) -> None:
    refuse_misspelt(spec)


@pytest.mark.parametrize("spec", ["sides", ":x", "sides:", ""])
def test_another_form_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="is no import string"):
        parts_of(spec)


@pytest.mark.usefixtures("here")
def test_the_command_answers_a_typing_mistake_without_torch() -> None:
    code = (
        "import sys; from equivcheck.cli.main import main; status = main(sys.argv[1:]); "
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", "sides.py:atention", "sides.py:Module", "--kind", "module"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines() == ["equivcheck: 'sides.py' has no 'atention': it has Module, attention"]
    assert done.stdout.splitlines()[-1:] == ["2 False"]
