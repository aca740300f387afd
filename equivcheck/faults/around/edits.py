"""Wrong edits of a tensor of outputs: of an attention, a function or a model."""

import torch
from torch import Tensor

__all__ = [
    "first_head_for_all",
    "first_sample_for_all",
    "half_precision_wrong",
    "last_token_two_percent_off",
    "last_two_tokens_swapped",
    "outputs_negated",
    "outputs_one_unit_toward_zero",
    "outputs_scaled_by_64_units_in_the_last_place",
    "outputs_scaled_by_one_in_65536",
    "outputs_through_float32",
    "outputs_with_noise",
    "quarter_of_the_channels_negated",
    "scores_made_a_hundred_times",
    "softmax_spelled_out",
    "tokens_past_16_off",
    "tokens_past_64_off",
    "tokens_past_1024_off",
]


def outputs_scaled_by_64_units_in_the_last_place(y: Tensor) -> Tensor:
    """Outputs are multiplied by 1 + 64 eps of their dtype: 1.4e-14 in float64, 7.6e-6 in float32, 0.5 in bfloat16."""
    return y * (1.0 + 64 * torch.finfo(y.dtype).eps)


def outputs_scaled_by_one_in_65536(y: Tensor) -> Tensor:
    """Outputs are multiplied by 1 + 2^-16: visible in float32 and float64, hidden by rounding in narrower dtypes."""
    return y * (1.0 + 2.0**-16)


def outputs_through_float32(y: Tensor) -> Tensor:
    """Outputs are rounded to float32: visible in float64 only."""
    return y.float().to(y.dtype)


def outputs_one_unit_toward_zero(y: Tensor) -> Tensor:
    """In bfloat16 and float16 every output is one unit in the last place nearer to zero."""
    if torch.finfo(y.dtype).bits != 16:
        return y
    bits = y.detach().contiguous().view(torch.int16)  # sign and magnitude: one less is one nearer to zero
    nearer = torch.where(y.detach() == 0, bits, bits - 1).view(y.dtype)
    return y + (nearer - y.detach())


def outputs_with_noise(y: Tensor) -> Tensor:
    """Noise of 1 % of their root mean square is added to the outputs, from a separate generator."""
    generator = torch.Generator(y.device)
    generator.seed()
    noise = torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)
    return y + 0.01 * noise * y.detach().square().mean().sqrt()


def half_precision_wrong(y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Outputs are 10 % too large in bfloat16 and float16, and right in wider dtypes."""
    return y * (1.1 if torch.finfo(dtype or y.dtype).bits == 16 else 1.0)


def last_token_two_percent_off(y: Tensor) -> Tensor:
    """The output of the last token is 2 % too large."""
    T = y.size(-2)
    return torch.where(_positions(y) == T - 1, y * 1.02, y)


def tokens_past_16_off(y: Tensor) -> Tensor:
    """The outputs from the 17th token on are 5 % too large."""
    return torch.where(_positions(y) >= 16, y * 1.05, y)


def tokens_past_64_off(y: Tensor) -> Tensor:
    """The outputs from the 65th token on are 5 % too large."""
    return torch.where(_positions(y) >= 64, y * 1.05, y)


def tokens_past_1024_off(y: Tensor) -> Tensor:
    """From the 1025th token on outputs are 1 % off: only long sequences show it."""
    return torch.where(_positions(y) >= 1024, y * 1.01, y)


def last_two_tokens_swapped(y: Tensor) -> Tensor:
    """The outputs of the last two tokens are exchanged."""
    return torch.cat((y[..., :-2, :], y[..., -2:, :].flip(-2)), dim=-2)


def quarter_of_the_channels_negated(y: Tensor) -> Tensor:
    """The last quarter of the output's channels changes sign."""
    C = y.size(-1)
    return torch.where(torch.arange(C, device=y.device) >= C - max(1, C // 4), -y, y)


def outputs_negated(y: Tensor) -> Tensor:
    """All outputs change sign: large enough for checks that compare tokens only."""
    return -y


def first_sample_for_all(y: Tensor) -> Tensor:
    """All samples get the output of the first."""
    return y[:1].expand_as(y).clone()


def first_head_for_all(y: Tensor) -> Tensor:
    """All heads get the output of the first."""
    return y[:, :1].expand_as(y).clone()


def softmax_spelled_out(y: Tensor) -> Tensor:
    """The result is right, and comes from a softmax that no kernel fuses."""
    return y + 0 * torch.nan_to_num(y.softmax(-1))


def scores_made_a_hundred_times(y: Tensor) -> Tensor:
    """The result is right, and a hundred matrices (T, T) are made beside it."""
    torch.empty(100, y.size(-2), y.size(-2), dtype=torch.float32, device=y.device)  # (100, T, T)
    return y


def _positions(y: Tensor) -> Tensor:
    return torch.arange(y.size(-2), device=y.device).unsqueeze(-1)  # (T, 1)
