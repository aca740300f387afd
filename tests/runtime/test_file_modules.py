"""A file that is given by its path is one module, whoever imports it, by whatever name and in whatever order."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.errors import UsageError
from equivcheck.pairs.loading import load
from equivcheck.report.implementation_files import files_of
from equivcheck.runtime import folder_imports
from equivcheck.runtime.file_modules import imported_as
from equivcheck.runtime.module_files import made_twice

MODEL = "class Attention:\n    pass\n"
BESIDE = "def replace():\n    from {name} import Attention\n\n    return Attention\n"


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(folder_imports, "_folders", {})
    monkeypatch.chdir(tmp_path)
    yield
    for name in {name for name in set(sys.modules) - before if _lies_in(sys.modules[name], tmp_path.resolve())}:
        del sys.modules[name]
    importlib.invalidate_caches()


def _lies_in(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".py").with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def package(folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "__init__.py").write_text("")


@pytest.mark.parametrize("stem", ["model", "attention", "test", "random", "types", "torch", "json", "click"])
@pytest.mark.parametrize("here", [True, False])
def test_the_file_and_the_import_beside_it_are_one_module(
    stem: str, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(**{f"at__{stem}": MODEL, "at__replace": BESIDE.format(name=stem)})
    before = sys.modules.get(stem)
    if here:
        monkeypatch.chdir("at")
        sys.path.insert(0, str(Path.cwd()))
    folder = "" if here else "at/"
    attention, replace = load(f"{folder}{stem}.py:Attention"), load(f"{folder}replace.py:replace")
    assert replace() is attention
    assert before is None or sys.modules[stem] is before  # nobody else's import is shadowed


@pytest.mark.parametrize("orders", [("model.py", "./model.py"), ("link.py", "model.py"), ("model.py", "link.py")])
def test_every_spelling_of_a_path_is_one_module(orders: tuple[str, str], tmp_path: Path) -> None:
    write(model=MODEL, elsewhere__empty="")
    os.symlink("model.py", "link.py")
    spellings = [*orders, str(tmp_path / "model.py"), "elsewhere/../model.py"]
    classes = {load(f"{spelling}:Attention") for spelling in spellings}
    sys.path.insert(0, str(tmp_path))
    classes |= {importlib.import_module(name).Attention for name in ("model", "link")}
    assert len(classes) == 1


@pytest.mark.parametrize("first", ["path", "import"])
@pytest.mark.parametrize("init", [True, False])
def test_a_path_and_an_import_string_are_one_module_in_either_order(first: str, init: bool, tmp_path: Path) -> None:
    write(pack__sub__model=MODEL)
    if init:
        package("pack")
        package("pack/sub")
    sys.path.insert(0, str(tmp_path))
    specs = ["pack/sub/model.py:Attention", "pack.sub.model:Attention"]
    one, other = (load(spec) for spec in (specs if first == "path" else specs[::-1]))
    assert one is other
    assert not [sentence for sentence in made_twice() if "model" in sentence]


def test_a_file_of_a_package_has_the_dotted_name_and_its_relative_imports() -> None:
    package("pack")
    write(
        pack__base=MODEL,
        pack__fast="from .base import Attention\nfrom pack import base\n\n\nclass Fast(Attention): ...\n",
    )
    fast = load("pack/fast.py:Fast")
    assert fast.__module__ == "pack.fast"
    assert issubclass(fast, load("pack/base.py:Attention"))


def test_scripts_in_a_folder_with_an_init_file_import_each_other_by_stem() -> None:
    package("pack")
    write(pack__model=MODEL, pack__replace=BESIDE.format(name="model"))
    assert load("pack/replace.py:replace")() is load("pack/model.py:Attention")
    assert load("pack/model.py:Attention").__module__ in ("model", "pack.model")


def test_a_package_of_the_same_name_elsewhere_does_not_take_its_place(tmp_path: Path) -> None:
    package("old/pack")
    package("new/pack")
    write(old__pack__base="class Attention: old = True\n", new__pack__base="class Attention: old = False\n")
    write(new__pack__fast="from pack.base import Attention\nimport pack.base\nfrom pack import base\n")
    sys.path.insert(0, str(tmp_path / "old"))
    old = load("pack.base:Attention")
    assert load("new/pack/fast.py:Attention").old is load("new/pack/fast.py:base.Attention").old is False
    assert load("new/pack/fast.py:Attention") is load("new/pack/base.py:Attention")
    assert load("pack.base:Attention") is old
    assert old.old


def test_two_folders_with_the_same_names_stay_apart(tmp_path: Path) -> None:
    for side in "ab":
        write(**{
            f"{side}__model": f"from layers import where\nfrom helper import late\n\n\nclass Attention:\n    side = '{side}'\n",
            f"{side}__layers": f"where = '{side}'\n",
            f"{side}__helper": "def late():\n    from model import Attention\n    import layers\n    return Attention, layers\n",
        })  # fmt: skip
    write(helper="raise RuntimeError('of the current folder')\n")
    sys.path.insert(0, str(tmp_path))  # as the command line has it
    sides = {side: (load(f"{side}/model.py:Attention"), load(f"{side}/model.py:where")) for side in "ab"}
    for side, (attention, where) in sides.items():
        assert (attention.side, where) == (side, side)
        late, layers = load(f"{side}/model.py:late")()
        assert late is attention
        assert layers.where == side
        assert layers.__file__ == str(tmp_path.resolve() / side / "layers.py")
        names = [name for name in files_of(load(f"{side}/model.py:late")) if "helper" in name or "layers" in name]
        assert names == [f"{side}/helper.py", f"{side}/layers.py"]


def test_an_import_beside_a_file_of_its_name_means_the_library() -> None:
    write(
        torch="import torch\n\n\ndef attend(): return torch.ones(1), torch\n",
        other="import torch\nfrom torch import nn\n",
    )
    ones, library = load("torch.py:attend")()
    assert ones.sum() == 1
    assert library is load("other.py:torch") is sys.modules["torch"]


def test_what_no_import_can_name_is_loaded_all_the_same() -> None:
    write(**{"my-model": MODEL, "my-repo__model": MODEL})
    package("my-repo")
    Path("model.v2.py").write_text(MODEL)
    classes = {load(f"{path}:Attention") for path in ("my-model.py", "model.v2.py", "my-repo/model.py")}
    assert len(classes) == 3
    assert load("model.v2.py:Attention") in classes


def test_a_file_that_is_two_modules_already_is_refused_and_the_run_says_it(tmp_path: Path) -> None:
    write(pack__model=MODEL)
    sys.path[:0] = [str(tmp_path), str(tmp_path / "pack")]
    importlib.import_module("model")
    importlib.import_module("pack.model")
    with pytest.raises(UsageError, match=r"is loaded twice, as model and as pack.model: import it everywhere by one"):
        load("pack/model.py:Attention")
    (sentence,) = [sentence for sentence in made_twice() if "pack.model" in sentence]
    assert sentence.startswith("model and pack.model are two modules of one file, model.py: ")


def test_a_module_of_a_folder_without_trouble_is_left_as_python_makes_it() -> None:
    write(model=MODEL + "import replace\n", replace="")
    module = sys.modules[load("model.py:Attention").__module__]
    assert module.__name__ == "model"
    assert vars(module)["__builtins__"] is vars(sys.modules["builtins"])
    assert imported_as("replace", module) is sys.modules["replace"]
    importlib.reload(module)


def test_a_file_that_fails_can_be_mended() -> None:
    write(random="raise ValueError('first')\n")
    for _ in range(2):
        with pytest.raises(UsageError, match="ValueError: first"):
            load("random.py:Attention")
    write(random=MODEL)
    assert load("random.py:Attention").__name__ == "Attention"


def test_the_folder_may_change_between_one_file_and_the_next(tmp_path: Path) -> None:
    write(slow="import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n" + MODEL, fast=MODEL)
    assert load("slow.py:Attention", tmp_path) is not load("fast.py:Attention", tmp_path)


# --- a pair ----------------------------------------------------------------------------------------------------------

GPT = """
from equivcheck import attention, gpt

class Attention(attention.CausalSelfAttention):
    pass

def GPT(config):
    return gpt.GPT(config, Attention)
"""
REPLACE = """
from equivcheck.attention import FlashCausalSelfAttention

def replace(network):
    from {name} import Attention

    for name, module in list(network.named_modules()):
        if type(module) is Attention:
            fast = FlashCausalSelfAttention(network.config)  # its rates are the config's: what was set later is lost
            fast.load_state_dict(module.state_dict())
            network.set_submodule(name, fast)
    return network
"""


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (("model.py:GPT", "replace.py:replace"), "model"),
        (("model:GPT", "replace:replace"), "model"),
        (("model.py:GPT", "replace:replace"), "model"),
        (("attention.py:GPT", "./replace.py:replace"), "attention"),
        (("random.py:GPT", "replace.py:replace"), "random"),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_replacement_beside_its_model_replaces_something(
    pair: tuple[str, str], name: str, jobs: int, tmp_path: Path
) -> None:
    write(**{name: GPT, "replace": REPLACE.format(name=name)})
    sys.path.insert(0, str(tmp_path))
    options: dict[str, Any] = {"kind": "replacement", "profile": "quick", "device": "cpu", "jobs": jobs}
    report = verify(*pair, checks=["replacement.rates"], dtypes=["float32"], **options)
    (result,) = report.results
    assert result.outcome == "different", report
    assert result.counterexample is not None
    assert not [note for note in result.notes if "nothing was replaced" in note]


def test_what_ships_is_found_by_its_path_too() -> None:
    file = sys.modules[CausalSelfAttention.__module__].__file__
    assert load(f"{file}:CausalSelfAttention") is CausalSelfAttention
    assert load(f"{file}:replace_attention_with_flash_attention") is replace_attention_with_flash_attention


def test_the_main_program_is_the_module_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(script=MODEL)
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    main.Attention = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert load("script.py:Attention") is main.Attention  # type: ignore[attr-defined]
