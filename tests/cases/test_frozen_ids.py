"""Case ids that reports of earlier versions hold mean the same case: the forms of an id do not change."""

import pytest

from equivcheck.cases.case import Case

IDS = {
    "B1-T1-H1-D1-K1-float32-eval-a0-r0-sharpened-contiguous-s0": Case(),
    "B1-T16-H1-D8-K17-float32-eval-a0.5-r0.1-ties-contiguous-s261-L1-V2-text": Case(
        seq_len=16,
        head_size=8,
        block_size=17,
        attn_pdrop=0.5,
        resid_pdrop=0.1,
        regime="ties",
        seed=261,
        n_layer=1,
        vocab_size=2,
        tokens="text",
    ),
    "B2-T14-H2-D14-K14-float16-train-a0.5-r0.5-sharpened-transposed-s151-L1-V73-text-after-sdcdcorfw": Case(
        batch_size=2,
        seq_len=14,
        n_head=2,
        head_size=14,
        block_size=14,
        dtype="float16",
        training=True,
        attn_pdrop=0.5,
        resid_pdrop=0.5,
        layout="transposed",
        seed=151,
        n_layer=1,
        vocab_size=73,
        tokens="text",
        steps="sdcdcorfw",
    ),
    "B3-T30-H7-D1-K94-float64-train-a0-r0-same_sign_v-strided-s173-S32-E24-c0.25-full": Case(
        batch_size=3,
        seq_len=30,
        n_head=7,
        block_size=94,
        dtype="float64",
        training=True,
        regime="same_sign_v",
        layout="strided",
        seed=173,
        kv_len=32,
        value_size=24,
        scale=0.25,
        is_causal=False,
    ),
    "B1-T5-H4-D8-K5-bfloat16-eval-a0-r0-near_limit-offset-s9-G2-mbias": Case(
        seq_len=5,
        n_head=4,
        head_size=8,
        block_size=5,
        dtype="bfloat16",
        regime="near_limit",
        layout="offset",
        seed=9,
        kv_heads=2,
        mask="bias",
    ),
}


@pytest.mark.parametrize("text", IDS)
def test_an_id_of_an_earlier_report_means_the_same_case(text: str) -> None:
    assert Case.parse(text) == IDS[text]
    assert IDS[text].id == text
