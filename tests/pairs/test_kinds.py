"""Kinds of pairs are rows of one table, and those without torch know them by the same names."""

import pytest
import torch

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.gpt import GPT
from equivcheck.pairs.kinds import KINDS, SAMPLE, Kind, replacement_of
from equivcheck.pairs.resolve import resolve
from equivcheck.report import catalogue


def test_the_table_has_the_kinds_of_the_catalogue() -> None:
    assert tuple(KINDS) == catalogue.KINDS
    assert {name for name, kind in KINDS.items() if kind.whole_model} == set(catalogue.MODELS)
    assert {name for name, kind in KINDS.items() if not kind.whole_model} == set(catalogue.PARTS)
    assert all(kind.original in KINDS for kind in KINDS.values())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_sample_of_a_kind_has_its_inputs_and_results(kind: Kind) -> None:
    inputs, names, shapes = kind.inputs(kind.sample.but(dtype="float64"), lambda: False)
    assert {x.dtype for x in inputs} == {torch.float64 if names else torch.int64}
    assert len(names) in (0, len(inputs))
    assert list(shapes) == [kind.result]
    assert bool(kind.sample.n_layer) is kind.whole_model
    fine = next(check for check in catalogue.CATALOGUE if check.name == catalogue.main_check(kind.name))
    assert kind.name in fine.kinds


def test_an_original_is_tried_as_the_kinds_that_say_how() -> None:
    tried = {kind.name: kind.tried_with(SAMPLE) for kind in KINDS.values() if kind.tried_with is not None}
    assert {name: tuple(x.shape) for name, x in tried.items()} == {"module": (2, 3, SAMPLE.n_embd), "model": (2, 3)}
    assert replacement_of(KINDS["model"]) is KINDS["replacement"]
    assert replacement_of(KINDS["module"]) is None


def test_only_attentions_are_put_into_a_gpt() -> None:
    attentions = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu")
    models = resolve(GPT, GPT, kind="auto", device="cpu")
    assert attentions.within_gpt().kind == "model"
    assert models.within_gpt() is models
