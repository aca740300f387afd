"""Masks: random ones pass whatever their rate, and each way of not being random is seen and told in words."""

import re
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from equivcheck.checks.dropout.statistics import GRANULARITY, OUTPUTS, PROBABILITIES, check_mask
from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import FALSE_ALARM

SHAPE = (2, 16, 4, 64, 64)  # calls, B, H, T, T: what the check of dropout looks at
SMALL = (2, 4, 4, 32, 32)
CAUSAL = torch.ones(64, 64, dtype=torch.bool).tril()
ALL = torch.ones(64, 64, dtype=torch.bool)


def drawn(shape: Sequence[int], rate: float, seed: int = 0) -> Tensor:
    """A mask whose places are independent."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed)) >= rate


def held(kept: Tensor, rate: float, *, axes: Sequence[str] = PROBABILITIES, visible: Tensor | None = None) -> str:
    if visible is None:
        visible = CAUSAL[: kept.shape[-2], : kept.shape[-1]]
    return check_mask(kept, visible, rate, tail=FALSE_ALARM, axes=axes)


def seen(kept: Tensor, rate: float, *, axes: Sequence[str] = PROBABILITIES, visible: Tensor | None = None) -> Mismatch:
    with pytest.raises(Mismatch) as found:
        held(kept, rate, axes=axes, visible=visible)
    assert found.value.ratio > 1
    assert "\n" not in str(found.value)
    return found.value


# --- what is random --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.5, 0.8, 0.99])
def test_masks_whose_places_are_independent_pass(rate: float) -> None:
    for seed in range(12):
        assert held(drawn(SMALL, rate, seed), rate) == ""


def test_masks_of_the_size_that_is_judged_pass() -> None:
    assert held(drawn(SHAPE, 0.1), 0.1) == ""
    assert held(drawn(SHAPE, 0.1, 1), 0.1, visible=ALL) == ""


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 1, 1, 1, 1), (1, 1, 1, 2, 2), (1, 3, 1, 5, 5)])
def test_so_few_places_tell_nothing(shape: tuple[int, ...]) -> None:
    for kept in (torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool), drawn(shape, 0.5)):
        assert held(kept, 0.5) == ""


def test_what_is_not_visible_is_not_judged() -> None:
    kept = drawn(SMALL, 0.1)
    hidden = torch.ones(32, 32, dtype=torch.bool).triu(1)
    for rate, mask in ((0.1, kept), (0.0, torch.ones_like(kept)), (1.0, torch.zeros_like(kept))):
        for filled in (True, False):
            assert held(mask.masked_fill(hidden, filled), rate) == ""


def test_visible_places_are_distinguished_where_there_are_as_many() -> None:
    keys = torch.arange(32).expand(32, 32)
    for visible in (keys < 8, keys % 4 == 0, keys < 8):
        assert held(drawn(SMALL, 0.25).masked_fill(~visible, False), 0.25, visible=visible) == ""
        assert "heads apart" in str(seen(drawn((2, 4, 1, 32, 32), 0.25).expand(SMALL), 0.25, visible=visible))


def test_masks_of_outputs_have_no_heads_and_another_last_dimension() -> None:
    shape = (2, 16, 1, 64, 40)
    everything = torch.ones(64, 40, dtype=torch.bool)
    for seed in range(2):
        assert held(drawn(shape, 0.1, seed), 0.1, axes=OUTPUTS, visible=everything) == ""
    shared = drawn((2, 16, 1, 64, 1), 0.1).expand(shape)
    assert "channels apart" in str(seen(shared, 0.1, axes=OUTPUTS, visible=everything))


def test_a_rate_in_steps_of_a_two_hundred_and_fifty_sixth_is_right() -> None:
    """As flash kernels draw: eight random bits are compared with the rate."""
    for rate in (0.1, 0.7):
        bits = torch.randint(256, SMALL, generator=torch.Generator().manual_seed(3))
        kept = bits <= int(255 * (1 - rate))
        assert abs(float((~kept).float().mean()) - rate) <= GRANULARITY + 5e-3
        assert held(kept, rate) == ""


# --- the rate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "other"), [(0.1, 0.09), (0.1, 0.11), (0.25, 0.225), (0.5, 0.45), (0.8, 0.72)])
def test_a_rate_that_is_off_by_a_tenth_of_itself_is_seen(rate: float, other: float) -> None:
    found = seen(drawn(SHAPE, other), rate)
    assert found.where == "rate"
    share = float(re.match(r"[\d.]+", str(found))[0])  # type: ignore[index]  # it starts with the share
    assert share == pytest.approx(other, abs=3e-3)
    assert f" of what is seen is dropped at a rate of {rate:g} (everywhere, of {2 * 16 * 4 * 64 * 65 // 2}); " in str(
        found
    )
    assert "chance and eight random bits allow " in str(found)


@pytest.mark.parametrize(("rate", "message"), [(0.0, "dropped"), (1.0, "kept")])
def test_rates_of_0_and_1_are_exact(rate: float, message: str) -> None:
    right = torch.full(SMALL, rate == 0.0)
    assert held(right, rate) == ""
    wrong = right.clone()
    wrong[1, 2, 1, 9, 9] = rate != 0.0
    found = seen(wrong, rate)
    assert str(found) == f"1 of {2 * 4 * 4 * 32 * 33 // 2} keys are {message} at a rate of {rate:g}"
    assert found.where == "rate"


def test_a_column_that_is_never_dropped_is_seen() -> None:
    kept = drawn(SMALL, 0.5)
    kept[..., 7] = True
    assert "(by keys number 7, of " in str(seen(kept, 0.5))


def test_a_diagonal_that_is_never_dropped_is_seen() -> None:
    kept = drawn(SMALL, 0.5) | torch.eye(32, dtype=torch.bool)
    assert "(by distance of query and key number 0, of " in str(seen(kept, 0.5))


def test_a_tile_of_another_rate_is_seen() -> None:
    kept = drawn(SHAPE, 0.1)
    kept[..., 48:, :16] = drawn((*SHAPE[:3], 16, 16), 0.3, 1)
    assert "(by tiles of 16 number 12, of " in str(seen(kept, 0.1))


# --- independence ----------------------------------------------------------------------------------------------------


def shared(axis: int) -> Callable[[float], Tensor]:
    return lambda rate: drawn([1 if a == axis else n for a, n in enumerate(SMALL)], rate).expand(SMALL)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize(("axis", "what"), list(enumerate(PROBABILITIES)))
def test_a_mask_that_is_shared_is_named_by_what_it_is_shared_over(axis: int, what: str, rate: float) -> None:
    found = seen(shared(axis)(rate), rate)
    assert found.where == "independence"
    message = re.fullmatch(
        r"dropped places are not independent: those that lie (.+) apart have a correlation of (.+) over (\d+) pairs",
        str(found),
    )
    assert message is not None
    steps = message[1].split(", ")
    assert [step.split()[1] for step in steps] == [what]
    # the head after the last is the next sample's, and so with samples and calls: such pairs are independent
    assert 0.7 < float(message[2]) < 1.1


def test_one_head_that_repeats_another_is_seen() -> None:
    kept = drawn(SMALL, 0.1)
    kept[:, :, 3] = kept[:, :, 1]
    assert "those that lie 2 heads apart" in str(seen(kept, 0.1))


def test_a_mask_that_comes_again_some_places_further_is_seen() -> None:
    kept = drawn(SMALL, 0.1)
    kept[..., 1:, 5:] = kept[..., :-1, :-5].clone()
    message = str(seen(kept, 0.1))
    assert re.search(r"those that lie -?1 queries, -?5 keys apart", message)


def test_places_that_repel_each_other_are_seen() -> None:
    kept = drawn(SMALL, 0.5)
    kept[..., 1::2] = ~kept[..., ::2]
    message = str(seen(kept, 0.5, visible=ALL[:32, :32]))
    assert re.search(r"1 keys apart have a correlation of -0\.5", message)


def test_what_torch_does_no_better_is_a_note_and_no_mismatch() -> None:
    wrong = shared(2)(0.1)
    note = check_mask(wrong, CAUSAL[:32, :32], 0.1, tail=FALSE_ALARM, peers=lambda: [drawn(SMALL, 0.1), wrong])
    assert "neither are torch's own on this device" in note
    assert "heads apart" in note
    with pytest.raises(Mismatch, match="heads apart"):
        check_mask(wrong, CAUSAL[:32, :32], 0.1, tail=FALSE_ALARM, peers=lambda: [drawn(SMALL, 0.1, 7)])


def test_torch_is_asked_for_masks_only_where_places_are_not_independent() -> None:
    def never() -> list[Tensor]:
        raise AssertionError("asked")

    check_mask(drawn(SMALL, 0.1), CAUSAL[:32, :32], 0.1, tail=FALSE_ALARM, peers=never)
    with pytest.raises(AssertionError, match="asked"):
        check_mask(shared(2)(0.1), CAUSAL[:32, :32], 0.1, tail=FALSE_ALARM, peers=never)


def test_the_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    held(drawn(SMALL, 0.1), 0.1)
    assert torch.equal(torch.get_rng_state(), before)


def repeating(rate: float, seed: int = 0, shape: Sequence[int] = SHAPE) -> Tensor:
    """Every other query of eight has the same mask: cuDNN's kernel on CUDA has a correlation of 0.77 two queries apart."""
    calls, B, H, T, _ = shape
    few = drawn((calls, B, H, T // 8, 1, 2, T), rate, seed)
    return few.expand(calls, B, H, T // 8, 4, 2, T).reshape(tuple(shape))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_where_torchs_masks_repeat_chance_reaches_further(rate: float) -> None:
    for seed in range(2):
        note = check_mask(
            repeating(rate, seed),
            CAUSAL,
            rate,
            tail=FALSE_ALARM,
            peers=lambda: [repeating(rate, 77), drawn(SHAPE, rate)],
        )
        assert "2 queries apart" in note


def test_what_torch_repeats_does_not_excuse_what_it_does_not() -> None:
    wrong = repeating(0.1)[:, :, :1].expand(SHAPE)
    with pytest.raises(Mismatch, match="heads apart"):
        check_mask(wrong, CAUSAL, 0.1, tail=FALSE_ALARM, peers=lambda: [repeating(0.1, 77)])
    with pytest.raises(Mismatch, match="is dropped at a rate of"):
        check_mask(repeating(0.085), CAUSAL, 0.1, tail=FALSE_ALARM, peers=lambda: [repeating(0.1, 77)])
