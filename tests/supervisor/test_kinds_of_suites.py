"""The kinds of pairs of import strings: found in one process beside this one, once for each pair."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from equivcheck.errors import UsageError
from equivcheck.supervisor import kinds
from equivcheck.supervisor.nursery import Nursery
from equivcheck.supervisor.sealed import NamedPair

MODULE = NamedPair("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")
MODEL = NamedPair("equivcheck.gpt:GPT", "equivcheck.gpt:GPT")
FUNCTION = """
from torch.nn.functional import scaled_dot_product_attention

def attention(q, k, v, *, is_causal=False):
    return scaled_dot_product_attention(q, k, v, is_causal=is_causal)
"""


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """The workers that a test has started; modules of its folder can be imported in them."""
    started: list[Any] = []
    start = Nursery.start

    def counted(self: Nursery, *given: Any) -> Any:
        started.append(start(self, *given))
        return started[-1]

    monkeypatch.setattr(Nursery, "start", counted)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield started
    kinds.end()


def function(name: str, folder: Path, before: str = "") -> NamedPair:
    (folder / f"{name}.py").write_text(before + FUNCTION)
    return NamedPair(f"{name}:attention", f"{name}:attention")


def test_all_pairs_share_one_process_and_each_is_asked_about_once(workers: list[Any], tmp_path: Path) -> None:
    pairs = MODULE, MODEL, function("plain", tmp_path)
    for _ in range(2):
        assert [kinds.kind_of(pair) for pair in pairs] == ["module", "model", "function"]
    assert len(workers) == 1
    assert "plain" not in sys.modules


def test_a_pair_that_fails_after_others_is_tried_alone(workers: list[Any], tmp_path: Path) -> None:
    first = function("first", tmp_path)
    alone = function("alone", tmp_path, "import sys\nassert 'first' not in sys.modules\n")
    assert [kinds.kind_of(pair) for pair in (first, alone)] == ["function", "function"]
    assert len(workers) == 2


def test_a_pair_that_ends_the_process_is_an_error_of_this_pair_alone(workers: list[Any], tmp_path: Path) -> None:
    deadly = function("deadly", tmp_path, "import os\nos._exit(3)\n")
    assert kinds.kind_of(MODULE) == "module"
    with pytest.raises(
        UsageError, match=r"^'deadly:attention', the reference, ended its process with status 3, .* impo"
    ):
        kinds.kind_of(deadly)
    assert kinds.kind_of(function("plain", tmp_path)) == "function"
    assert len(workers) == 3


def test_a_side_that_cannot_be_imported_is_an_error_each_time(workers: list[Any], tmp_path: Path) -> None:
    raising = function("raising", tmp_path, "raise ValueError('no GPU')\n")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"^cannot import 'raising': ValueError: no GPU$"):
            kinds.kind_of(raising)
    assert len(workers) == 1


def test_another_search_path_is_another_process(
    workers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = function("same", tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "same.py").write_text("from equivcheck.attention import CausalSelfAttention as attention\n")
    assert kinds.kind_of(pair) == "function"
    monkeypatch.setattr(sys, "path", [str(other), *sys.path])
    assert kinds.kind_of(pair) == "module"
    assert len(workers) == 2
