"""A case: what is allowed, its id, and tensors that come from its seed and nothing else."""

import dataclasses
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivcheck.cases.case import Case, arrange, generator, tiny_factor
from equivcheck.cases.fields import FIELDS, visited
from equivcheck.cases.ids import legend
from equivcheck.cases.strategies import cases
from equivcheck.cases.words import LAYOUTS
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report import outcomes


@given(
    cases(
        train_rates=(0.0, 0.1, 0.25, 0.5, 0.8, 1.0),
        n_layers=(0, 1, 4),
        is_causal=(True, False),
        scales=(None, 0.25, 1.0, 0.125),
        steps="etfz",
    )
)
def test_an_id_is_turned_back_into_its_case(case: Case) -> None:
    assert Case.parse(case.id) == case


@given(cases(n_layers=(0, 2)))
def test_an_id_is_one_word(case: Case) -> None:
    assert case.id.split() == [case.id]


def test_the_id_of_a_case_looks_as_it_does_in_a_report() -> None:
    case = Case(seq_len=3, head_size=4, block_size=5, dtype="bfloat16", training=True, attn_pdrop=0.1, seed=7)
    assert case.id == "B1-T3-H1-D4-K5-bfloat16-train-a0.1-r0-sharpened-contiguous-s7"
    assert case.but(scale=0.5, is_causal=False).id == case.id + "-c0.5-full"
    assert case.but(n_layer=2, vocab_size=17, tokens="text").id == case.id + "-L2-V17-text"
    assert case.but(steps="tef").id == case.id + "-after-tef"
    assert case.but(n_layer=2, vocab_size=17, scale=0.5, steps="full", is_causal=False).id == (
        case.id + "-L2-V17-random-c0.5-after-full-full"
    )


@given(st.text("abcdefghijklmnopqrstuvwxyz", max_size=14), st.booleans(), st.sampled_from((None, 0.5)), st.booleans())
def test_any_steps_are_kept_in_an_id(steps: str, causal: bool, scale: float | None, model: bool) -> None:
    case = Case(steps=steps, is_causal=causal, scale=scale, n_layer=int(model), vocab_size=5 if model else 1)
    assert Case.parse(case.id) == case


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"seq_len": 0}, "seq_len=0"),
        ({"n_head": -1}, "n_head=-1"),
        ({"head_size": 0}, "head_size=0"),
        ({"block_size": 0}, "block_size=0"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"seq_len": 5, "block_size": 4}, "past block_size=4"),
        ({"dtype": "float8"}, "bfloat16"),
        ({"regime": "flat"}, "sharpened"),
        ({"layout": "sparse"}, "contiguous"),
        ({"attn_pdrop": -0.1}, "attn_pdrop=-0.1"),
        ({"resid_pdrop": 1.5}, "resid_pdrop=1.5"),
        ({"attn_pdrop": float("nan")}, "attn_pdrop=nan"),
        ({"n_layer": -1}, "n_layer=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"tokens": "emoji"}, "text"),
        ({"steps": "tE"}, "steps='tE'"),
        ({"steps": "t e"}, "lower-case letters"),
        ({"steps": "t-e"}, "steps='t-e'"),
        ({"steps": "te\n"}, "lower-case letters"),
    ],
)
def test_a_case_that_is_not_allowed_is_refused_in_one_line(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as refused:
        Case(**wrong)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "B1-T3",
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous",  # no seed
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0-more",
        "B1-T3-H1-D4-K4-float32-eval-a1.2.3-r0-sharpened-contiguous-s0",
        "B1-T3-H1-D4-K4-float32-eval-a7-r0-sharpened-contiguous-s0",
        "B1-T3-H1-D4-K2-float32-eval-a0-r0-sharpened-contiguous-s0",
        "B0-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0",
        "B1-T3-H1-D4-K4-float31-eval-a0-r0-sharpened-contiguous-s0",
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-flat-contiguous-s0",
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0-after-",
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0-after-tE",
        "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0-after-t1",
    ],
)
def test_an_id_that_does_not_parse_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Case.parse(text)
    assert "\n" not in str(refused.value)


@given(st.text("BTHDKLV-0123456789.aerstfloc", max_size=40))
def test_no_text_does_more_than_not_to_parse(text: str) -> None:
    with pytest.raises(UsageError):
        Case.parse(text)


def test_a_case_is_a_value_that_does_not_change() -> None:
    case = Case(seq_len=3, block_size=3)
    with pytest.raises(FrozenInstanceError):
        case.seq_len = 4  # type: ignore[misc]
    assert case.but(seq_len=2) == Case(seq_len=2, block_size=3)
    assert case == Case(seq_len=3, block_size=3)
    assert len({case, Case(seq_len=3, block_size=3)}) == 1


def test_the_config_of_a_case_has_its_sizes_and_rates() -> None:
    case = Case(
        seq_len=3, n_head=2, head_size=4, block_size=9, attn_pdrop=0.1, resid_pdrop=0.2, n_layer=3, vocab_size=17
    )
    config = case.config()
    assert (config.n_embd, config.n_head, config.block_size) == (8, 2, 9)
    assert (config.n_layer, config.vocab_size) == (3, 17)
    assert (config.attn_pdrop, config.resid_pdrop, config.embd_pdrop) == (0.1, 0.2, 0.2)
    assert case.config() is not config


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_square_of_the_tiny_factor_is_subnormal_and_the_factor_is_not(dtype: str) -> None:
    normal = torch.finfo(getattr(torch, dtype)).smallest_normal
    factor = tiny_factor(getattr(torch, dtype))
    assert factor * factor < normal <= factor


@given(st.integers(0, 2**16), st.sampled_from(["x", "key.weight"]))
def test_what_is_drawn_depends_on_the_seed_and_the_purpose_only(seed: int, purpose: str) -> None:
    small, large = Case(seed=seed), Case(seed=seed, seq_len=7, block_size=9, n_head=2, dtype="float64", training=True)

    def drawn(case: Case, purpose: str) -> torch.Tensor:
        return torch.rand(5, generator=generator(case, purpose))

    assert torch.equal(drawn(small, purpose), drawn(large, purpose))
    assert not torch.equal(drawn(small, purpose), drawn(small, "other"))
    assert not torch.equal(drawn(small, purpose), drawn(small.but(seed=seed + 1), purpose))


@given(st.sampled_from(LAYOUTS), st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_a_layout_keeps_shape_and_values(layout: str, shape: list[int]) -> None:
    x = torch.randn(shape)
    y = arrange(x, layout)
    assert y.shape == x.shape
    assert torch.equal(y, x[:1].expand(x.shape) if layout == "expanded" else x)


def test_each_layout_is_the_one_that_it_says() -> None:
    x = torch.randn(3, 4, 5)
    assert arrange(x, "contiguous").is_contiguous()
    assert arrange(x, "transposed").transpose(-3, -2).is_contiguous()
    assert not arrange(x, "transposed").is_contiguous()
    assert arrange(x, "strided").stride(-1) == 2
    assert arrange(x, "offset").storage_offset() > 0
    assert arrange(x, "expanded").stride(0) == 0


def test_the_gaps_of_a_strided_tensor_are_poison() -> None:
    y = arrange(torch.ones(2, 3), "strided")
    assert y.untyped_storage().nbytes() == 2 * 6 * 4
    assert int(torch.as_strided(y, (12,), (1,)).isnan().sum()) == 6


def test_token_ids_can_be_laid_out_too() -> None:
    ids = torch.arange(6).view(2, 3)
    for layout in ("transposed", "offset", "strided"):
        assert torch.equal(arrange(ids, layout), ids)


def test_a_row_of_fields_stands_for_each_attribute_of_a_case() -> None:
    assert {field.name for field in FIELDS} == {field.name for field in dataclasses.fields(Case)}


def test_the_legend_explains_every_field_once() -> None:
    rows = dict(legend())
    assert len(rows) == len(FIELDS)
    assert rows["TN"] == "positions of a sequence"
    assert all(meaning for meaning in rows.values())


def test_a_case_has_a_class_in_each_dimension_that_reports_count() -> None:
    assert set(visited(Case())) == set(outcomes._DIMENSIONS)
    assert [visited(Case(seq_len=t, block_size=t))["length"] for t in (1, 2, 16, 17, 256, 257)] == [
        "up to 1",
        "up to 16",
        "up to 16",
        "up to 64",
        "up to 256",
        "longer",
    ]
