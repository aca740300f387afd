"""Every plant shows around any factory, and nowhere that it does not say so."""

import copy
import inspect
import io
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from differing import TOWARD_ZERO, Differs, Sees, bf16, config_with, f16, f32, ids, transposed, with_offset
from symptoms import accepts, after, calls_another, changes, draws_in_eval, is_random, reseeds
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults import PLANTS, Fault
from equivcheck.faults.base import Factory, name_of
from equivcheck.faults.inside.decomposed import Parted


class Plain(nn.Module):
    """An attention that knows none of the original's names."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head, self.rate = config.n_head, config.attn_pdrop

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))  # type: ignore[no-any-return]


PLANTS_SHOW: dict[str, tuple[Sees, *tuple[Sees, ...]]] = {
    "outputs-scaled-by-64-units-in-the-last-place": (Differs(dtype=f32), Differs(dtype=bf16)),
    "outputs-scaled-by-one-in-65536": (Differs(dtype=f32), Differs()),
    "outputs-through-float32": (Differs(),),
    "outputs-one-unit-toward-zero": (TOWARD_ZERO, replace(TOWARD_ZERO, dtype=f16)),
    "outputs-with-noise": (Differs(), is_random(False)),
    "half-precision-wrong": (Differs(dtype=f16), Differs(dtype=bf16, gain=0.3)),
    "last-token-two-percent-off": (Differs(),),
    "tokens-past-64-off": (Differs(T=65),),
    "last-two-tokens-swapped": (Differs(),),
    "leak-from-the-next-token": (Differs(),),
    "quarter-of-the-channels-negated": (Differs(),),
    "outputs-negated": (Differs(),),
    "first-sample-for-all": (Differs(),),
    "input-gradient-one-percent-off": (Differs(grads=True),),
    "input-gradient-lost": (Differs(grads=True),),
    "first-weight-gradient-halved": (Differs(grads=True),),
    "last-weight-gradient-lost": (Differs(grads=True),),
    "upstream-gradient-taken-for-contiguous": (Differs(grads=True, g=transposed),),
    "input-taken-for-contiguous": (Differs(x=transposed),),
    "input-modified-in-place": (changes(lambda m, x: [x]),),
    "dropout-left-on": (is_random(False), is_random(True, rate=0.0)),
    "training-mode-ignored": (lambda a: not is_random(True)(a),),
    "eval-mode-ignored": (is_random(False),),
    "generator-drawn-from-in-eval": (draws_in_eval,),
    "generator-reseeded": (reseeds,),
    "state-kept-between-calls": (after(calls_another),),
    "refusals-swallowed": (accepts(1, 33, 16), accepts(4, 16), accepts(1, 4, 17)),
}


SPARED_BY: dict[str, tuple[Sees, ...]] = {
    "outputs-through-float32": (Differs(dtype=f32), Differs(dtype=bf16)),
    "outputs-scaled-by-one-in-65536": (Differs(dtype=bf16), Differs(dtype=f16)),
    "outputs-one-unit-toward-zero": (Differs(dtype=f32), Differs(dtype=bf16)),
    "half-precision-wrong": (Differs(), Differs(dtype=f32)),
    "tokens-past-64-off": (Differs(T=64),),
    "last-two-tokens-swapped": (Differs(T=1),),
    "first-sample-for-all": (Differs(B=1),),
    "input-gradient-one-percent-off": (Differs(),),
    "input-gradient-lost": (Differs(),),
    "first-weight-gradient-halved": (Differs(),),
    "last-weight-gradient-lost": (Differs(),),
    "upstream-gradient-taken-for-contiguous": (Differs(grads=True), Differs(x=transposed)),
    "input-taken-for-contiguous": (Differs(x=with_offset), Differs(grads=True, g=transposed)),
    "input-modified-in-place": (Differs(),),
    "training-mode-ignored": (Differs(),),
    "eval-mode-ignored": (Differs(),),
    "generator-drawn-from-in-eval": (Differs(), reseeds),
    "generator-reseeded": (Differs(), draws_in_eval),
    "state-kept-between-calls": (Differs(),),
    "refusals-swallowed": (Differs(),),
}


def test_every_plant_has_a_row_that_says_where_it_shows() -> None:
    assert set(PLANTS_SHOW) == {plant.name for plant in PLANTS}


@pytest.mark.parametrize("plant", **ids(PLANTS))
@pytest.mark.parametrize("around", [CausalSelfAttention, Parted], ids=name_of)
def test_a_plant_shows_around_any_factory_and_only_where_it_says_so(plant: Fault, around: Factory) -> None:
    for shows in PLANTS_SHOW[plant.name]:
        assert shows(plant.put_around(around, "module"))
        assert not shows(around), "it shows without the plant too: this demonstrates nothing"
    for sees in SPARED_BY.get(plant.name, ()):
        assert not sees(plant.put_around(around, "module")), "it shows where it should not"


@pytest.mark.parametrize("plant", **ids(PLANTS))
@pytest.mark.parametrize("around", [CausalSelfAttention, Plain], ids=name_of)
def test_a_plant_leaves_everything_but_the_numbers_alone(plant: Fault, around: Factory) -> None:
    torch.manual_seed(0)
    module, original = plant.put_around(around, "module")(config_with(0.1)), around(config_with(0.1))
    assert type(module) is around
    assert [(k, t.shape) for k, t in module.state_dict().items()] == [
        (k, t.shape) for k, t in original.state_dict().items()
    ]
    assert inspect.signature(module.forward) == inspect.signature(original.forward)
    module.load_state_dict(original.state_dict())
    parameters = {name: parameter.clone() for name, parameter in module.named_parameters()}
    modes = [m.training for m in module.modules()]
    x = torch.randn(2, 4, 16, requires_grad=True)
    module(x).sum().backward()
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in module.named_parameters())
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert modes == [m.training for m in module.modules()]


@pytest.mark.parametrize("plant", **ids(PLANTS))
def test_a_planted_module_can_be_copied_and_saved(plant: Fault) -> None:
    module = plant.put_around(CausalSelfAttention, "module")(config_with())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for copied in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        torch.manual_seed(0)
        before = module(torch.ones(1, 2, 16)).detach()
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        # the copy runs on its own weights: its result is what zeros make, whatever the plant adds to it
        torch.manual_seed(0)
        assert not torch.equal(copied(torch.ones(1, 2, 16)), before)
        torch.manual_seed(0)
        if plant.name not in ("outputs-with-noise", "state-kept-between-calls"):
            assert torch.equal(module(torch.ones(1, 2, 16)), before)
    assert pickle.loads(pickle.dumps(plant)).name == plant.name
