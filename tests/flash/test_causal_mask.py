"""A mask is obeyed however it came there, and a causal one is looked at once."""

import copy
import pickle

import pytest
import torch
from drop_in import Change, inputs, pair, results, same
from mask_edits import EDITS, no_keys

from equivcheck.flash.causal_mask import is_causal


@pytest.mark.parametrize("edit", EDITS)
def test_a_mask_is_obeyed_however_it_came_there_and_back(edit: Change) -> None:
    original, flash = pair()
    state = copy.deepcopy(original.state_dict())
    flash(inputs())  # it has looked at the causal one
    for module in (original, flash):
        edit(module)
    same(results(flash, inputs()), results(original, inputs()))
    same(copy.deepcopy(flash)(inputs()), original(inputs()))
    same(pickle.loads(pickle.dumps(flash))(inputs()), original(inputs()))
    assert list(flash.state_dict()) == list(state)
    if original.mask.shape == state["mask"].shape:
        for module in (original, flash):
            module.load_state_dict(state)
        same(flash(inputs()), original(inputs()))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_mask_of_bytes_takes_a_quarter_and_loads_either_way(dtype: torch.dtype) -> None:
    original, flash = pair()
    float_state = copy.deepcopy(original.state_dict())
    flash.mask = flash.mask.to(dtype)
    assert flash.mask.nbytes * 8 == original.mask.nbytes  # float64 here
    flash.load_state_dict(float_state, strict=True)
    original.load_state_dict(flash.state_dict(), strict=True)
    assert torch.equal(original.mask, float_state["mask"])
    for other in (flash, copy.deepcopy(flash), pickle.loads(pickle.dumps(flash)), flash.bfloat16().double()):
        assert other.mask.dtype is dtype
        assert is_causal(other.mask)
    original.bfloat16().double()  # the weights are rounded in both
    same(results(flash, inputs()), results(original, inputs()))
    for module in (original, flash):
        module.mask[..., :3, :3] = 1
    assert not is_causal(flash.mask)
    same(results(flash, inputs()), results(original, inputs()))


def test_every_query_without_a_key_is_nan_as_in_the_original() -> None:
    _, flash = pair(no_keys)
    assert flash(inputs()).isnan().any(-1).any(0).tolist() == [False, False, True, False, False, False]


def test_a_causal_mask_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = torch.equal
    monkeypatch.setattr(torch, "equal", lambda *pair: looks.append(True) or look(*pair))
    _, flash = pair()
    for _ in range(3):
        flash(inputs())
    assert len(looks) == 1
    flash.float()
    for _ in range(3):
        flash(inputs(dtype=torch.float32))
    assert len(looks) == 2
    flash.load_state_dict(flash.state_dict())
    for _ in range(3):
        flash(inputs(dtype=torch.float32))
    assert len(looks) == 3


def test_a_mask_where_another_one_lay_is_another_one() -> None:
    for fill in (0, 1, 0, 1):
        mask = torch.ones(1, 1, 64, 64).tril()  # often at the address of the last, and as often written to
        mask.clamp_(min=fill)
        assert is_causal(mask) is (fill == 0)
        del mask


def test_what_is_written_to_an_inference_tensor_is_seen() -> None:
    with torch.inference_mode():
        original, flash = pair()
        same(flash(inputs()), original(inputs()))
        for module in (original, flash):
            module.mask[..., 0, 3] = 1
        same(flash(inputs()), original(inputs()))


def test_a_mask_on_another_device_is_refused_as_the_original_refuses_it() -> None:
    for module in pair():
        module.mask = module.mask.to("meta")
        with pytest.raises((RuntimeError, NotImplementedError)):
            module(inputs())


def test_a_mask_of_one_place_broadcasts_as_in_the_original() -> None:
    original, flash = pair(block_size=1)
    same(flash(inputs()), original(inputs()))


def test_a_module_on_the_meta_device_has_the_shapes_of_the_original() -> None:
    its, ours = (module.to("meta")(inputs().to("meta")) for module in pair())
    assert ours.shape == its.shape
    assert ours.is_meta
