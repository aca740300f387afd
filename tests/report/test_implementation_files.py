"""Which files an implementation is made of: what can change what it does, under names that are found again elsewhere."""

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from torch import nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.gpt import GPT
from equivcheck.report.implementation_files import defined_at, files_of
from equivcheck.runtime.source_files import MOST_BYTES, digest_of, find, hash_of

SOURCES = {
    "pkg/__init__.py": "",
    "pkg/fast.py": "from pkg import kernel\nfrom .base import Base\nimport click\n\n\nclass Fast(Base):\n    pass\n\n\n"
    "def make(config):\n    import pkg.late\n\n    return Fast()\n",
    "pkg/base.py": "from torch import nn\n\n\nclass Base(nn.Module):\n    def run(self):\n        pass\n",
    "pkg/kernel.py": "import equivcheck.report.table\nfrom . import deep\n",
    "pkg/deep.py": "from pkg import fast  # and round in a circle\n",
    "pkg/late.py": "",
    "pkg/other.py": "x = 1\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name == "pkg" or name.startswith("pkg.")]:
        del sys.modules[name]


def test_what_defines_it_and_what_that_imports_is_found_and_nothing_else(tree: Path) -> None:
    fast = importlib.import_module("pkg.fast")
    importlib.import_module("pkg.other")
    names = ["pkg/__init__.py", "pkg/base.py", "pkg/deep.py", "pkg/fast.py", "pkg/kernel.py"]
    assert sorted(files_of(fast.Fast)) == names
    importlib.import_module("pkg.late")
    for given in (fast.make, functools.partial(fast.make, None), fast.Fast(), fast.Fast().run):
        assert sorted(files_of(given)) == sorted([*names, "pkg/late.py"])


def test_what_is_bound_into_a_factory_is_part_of_it(tree: Path) -> None:
    fast = importlib.import_module("pkg.fast")

    def factory(config: object) -> object:
        return fast_class()

    fast_class = fast.Fast
    for given in (factory, functools.partial(GPT, attention=fast.Fast), lambda config: factory(config)):
        assert {"pkg/fast.py", "pkg/base.py"} <= set(files_of(given))


def test_names_are_found_again_and_hashes_are_of_the_content(tree: Path) -> None:
    fast = importlib.import_module("pkg.fast")
    before = files_of(fast.Fast)
    assert {"pkg/fast.py", "pkg/base.py", "pkg/kernel.py"} <= set(before)
    for name, sha in before.items():
        file = find(name, tree)
        assert file is not None
        assert hash_of(file) == sha
    (tree / "pkg/base.py").write_bytes(SOURCES["pkg/base.py"].replace("\n", "\r\n").encode())
    assert files_of(fast.Fast) == before  # a checkout on another system
    (tree / "pkg/base.py").write_text(SOURCES["pkg/base.py"] + "\n")
    after = files_of(fast.Fast)
    assert {name for name in before if before[name] != after[name]} == {"pkg/base.py"}
    assert find("pkg/nowhere.py", tree) is None


def test_a_file_outside_of_the_folder_has_the_name_that_python_finds_it_by(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = importlib.import_module("pkg.fast")
    (tree / "elsewhere").mkdir()
    assert "pkg/fast.py" in files_of(fast.Fast, tree / "elsewhere")
    monkeypatch.setattr(sys, "path", [])
    assert "../pkg/fast.py" in files_of(fast.Fast, tree / "elsewhere")


def test_what_is_installed_counts_itself_and_not_what_it_imports() -> None:
    assert list(files_of(click.Command)) == ["click/core.py"]
    assert list(files_of(nn.Linear)) == ["torch/nn/modules/linear.py"]
    assert list(files_of(CausalSelfAttention, Path("/nowhere"))) == ["equivcheck/attention.py"]


def test_what_is_imported_by_a_name_or_stands_in_a_namespace_is_part_of_it(tree: Path) -> None:
    (tree / "pkg/spelled.py").write_text("import importlib\n\nimportlib.import_module('.plain', 'pkg')\n")
    (tree / "pkg/plain.py").write_text("")
    (tree / "pkg/chosen.py").write_text("def run():\n    pass\n")
    (tree / "pkg/chooser.py").write_text(
        "import importlib\n\nchosen = importlib.import_module('.'.join(('pkg', 'chosen'))).run\n\n\ndef make():\n    pass\n"
    )
    chooser, spelled = importlib.import_module("pkg.chooser"), importlib.import_module("pkg.spelled")
    assert {"pkg/chooser.py", "pkg/chosen.py"} <= set(files_of(chooser.make))
    spelled.make = lambda: None
    spelled.make.__module__ = "pkg.spelled"
    assert "pkg/plain.py" in files_of(spelled.make)


def test_of_a_file_too_large_only_the_beginning_is_hashed(tmp_path: Path) -> None:
    for name, size in (("whole", MOST_BYTES), ("larger", MOST_BYTES + 1), ("largest", MOST_BYTES * 64)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    assert hash_of(tmp_path / "whole") != hash_of(tmp_path / "larger") == hash_of(tmp_path / "largest")


def test_what_has_no_file_has_no_files() -> None:
    made = {}
    exec("def made(): pass", {"__name__": "nowhere"}, made)
    assert files_of(made["made"]) == {}
    assert defined_at(made["made"]) is None
    assert files_of(len) == {}


def test_the_place_is_the_line_that_defines_it(tree: Path) -> None:
    fast = importlib.import_module("pkg.fast")
    assert defined_at(fast.Fast) == ("pkg/fast.py", 6)
    assert defined_at(functools.partial(fast.make, None)) == ("pkg/fast.py", 10)


def test_one_digest_depends_on_every_name_and_hash_and_not_on_the_order() -> None:
    assert digest_of([("a", "1"), ("b", "2")]) == digest_of([("b", "2"), ("a", "1")])
    assert len({digest_of(x) for x in ([], [("a", "1")], [("a", "2")], [("b", "1")], [("a1", "")])}) == 5
