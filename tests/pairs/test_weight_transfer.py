"""Weights that are carried over by a transfer: each check holds such a pair under the original's names, and sees what is wrong."""

from typing import Any

import pytest
import torch
from one_projection import OneProjection, OneProjectionFused, spelled_out
from torch import Tensor, nn

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.faults.around.transforms import CHANGES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.weight_transfer import names_holding, original_shapes

BY_NAME = {check.name: check for check in CHECKS}


CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6)


OTHERS = ("output", "causality", "interface", "checkpoint", "purity", "layouts", "batching", "derivatives", "compile")


class ThreeProjections(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.q_proj, self.k_proj, self.v_proj, self.out = (nn.Linear(config.n_embd, config.n_embd) for _ in range(4))
        self.drop = nn.Dropout(config.attn_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (f(x).view(B, T, self.n_head, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        rate = self.drop.p if self.drop.training else 0.0
        y = spelled_out(q, k, v, is_causal=True, dropout_p=rate, scale=q.size(-1) ** -0.5)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


def pair(candidate: Any = OneProjectionFused) -> Pair:
    return resolve(ThreeProjections, candidate, kind="module", device="cpu", adaptation={"transfer": "auto"})


def test_the_parts_of_a_weight_are_known_by_the_candidates_names() -> None:
    candidate = pair().problem(CASE).candidate
    assert names_holding(candidate, ["k_proj.weight"]) == {"c_attn.weight"}
    assert names_holding(candidate, ["q_proj.bias", "out.weight"]) == {"c_attn.bias", "c_proj.weight"}
    assert names_holding(candidate, []) == set()
    assert original_shapes(candidate)["k_proj.weight"] == (8, 8)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_all_and_of_a_few_are_the_originals(seed: int) -> None:
    for case in (CASE.but(seed=seed), CASE.but(seed=seed, n_layer=1, vocab_size=17)):
        BY_NAME["logits" if case.n_layer else "gradients"].run(pair(), case)


@pytest.mark.parametrize("check", OTHERS)
def test_the_right_candidate_holds(check: str) -> None:
    held = BY_NAME[check].run(pair(), CASE)
    # torch's own kernel is differentiated once on the CPU
    refused = ["second derivatives", "torch.func.jvp"] if check == "derivatives" else []
    assert [what.partition(":")[0] for what in held.unsupported] == refused
    assert held.judged is (check != "interface")  # whose parts have other names


@pytest.mark.parametrize("name", ["second-derivative-lost", "tangent-one-percent-off", "mapped-one-percent-off"])
def test_what_is_wrong_under_a_transform_is_seen(name: str) -> None:
    (edit,) = (fault.wrong for fault in CHANGES if fault.name == name)

    class Changed(OneProjection):
        def forward(self, x: Tensor) -> Tensor:
            return edit(super().forward(x))

    with pytest.raises(Mismatch):
        BY_NAME["derivatives"].run(pair(Changed), CASE)


def test_a_weight_that_gets_no_gradient_where_it_alone_is_trained_is_seen() -> None:
    class Frozen(OneProjectionFused):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if x.requires_grad or not torch.is_grad_enabled() else y.detach() + 0 * self.c_attn.weight.sum()

    with pytest.raises(Mismatch, match="alone need a gradient"):
        BY_NAME["gradients"].run(pair(Frozen), CASE.but(seed=1))


class WithTable(CausalSelfAttention):
    """With a buffer that no result depends on."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("table", torch.arange(4.0))


class FlashWithTable(FlashCausalSelfAttention, WithTable):
    """The same in the candidate."""


@pytest.mark.parametrize(
    ("original", "candidate"), [(WithTable, FlashCausalSelfAttention), (CausalSelfAttention, FlashWithTable)]
)
def test_a_buffer_that_one_side_has_does_not_hinder_the_weights(original: Any, candidate: Any) -> None:
    options: dict[str, Any] = {"kind": "module", "device": "cpu", "profile": "quick"}
    report = equivcheck.verify(original, candidate, checks=["output", "checkpoint"], **options)
    assert report.levels["values"] == "equivalent"
    assert report.levels["drop-in"] == "different"
