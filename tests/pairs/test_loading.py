"""Import strings: what they name is found, and what cannot be imported is refused with its own error."""

from pathlib import Path

import pytest
from given_pairs import refusal

from equivcheck.attention import CausalSelfAttention
from equivcheck.pairs.loading import load, name_of


def test_an_object_is_found_in_a_module_and_in_a_file(tmp_path: Path) -> None:
    assert load("equivcheck.attention:CausalSelfAttention") is CausalSelfAttention
    assert load("equivcheck.attention:CausalSelfAttention.forward") is CausalSelfAttention.forward
    file = tmp_path / "mine.py"
    file.write_text("from equivcheck.attention import CausalSelfAttention as Mine\nimport neighbour_of_mine\n")
    (tmp_path / "neighbour_of_mine.py").write_text("")
    assert load(f"{file}:Mine") is CausalSelfAttention
    neighbour = load(f"{file}:neighbour_of_mine")
    assert (neighbour.__name__, Path(neighbour.__file__).parent) == ("neighbour_of_mine", tmp_path.resolve())


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("equivcheck.attention", "with a colon before the name"),
        (":Attention", "with a colon before the name"),
        ("equivcheck.attention:", "with a colon before the name"),
        ("no_such_package:Attention", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("equivcheck.no_such_module:Attention", "ModuleNotFoundError"),
        ("equivcheck.attention:NoSuch", "CausalSelfAttention, FlashCausalSelfAttention"),
        ("no/such/file.py:Attention", "there is no file"),
    ],
)
def test_an_import_that_fails_is_refused_with_its_own_error(spec: str, named: str) -> None:
    assert named in refusal(spec)
    assert named in refusal(CausalSelfAttention, spec)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("def f(:\n", "SyntaxError"),
        ("raise ValueError('on\\ntwo lines')\n", "ValueError: on two lines"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("import no_such_neighbour\n", "no_such_neighbour"),
        ("x = 1\n", "it has nothing to call"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_its_error(tmp_path: Path, source: str, named: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    assert named in refusal(f"{file}:Attention")
    assert named in refusal(f"{file}:Attention")  # the second time as the first: nothing half-made is kept


def test_control_c_during_an_import_is_no_bad_input(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(f"{tmp_path / 'slow.py'}:Attention")


def test_names_are_import_strings_where_there_are_any() -> None:
    assert name_of(CausalSelfAttention) == "equivcheck.attention:CausalSelfAttention"
    assert name_of("pkg.slow:Attention") == "pkg.slow:Attention"
    assert "lambda" in name_of(lambda config: config)
