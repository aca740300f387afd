"""The same small fault under one condition each, and right results otherwise."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]


class Sometimes(Parted):
    """The mixed values are 5 % too large if the condition holds for the input."""

    wrong = False

    def condition(self, x: Tensor) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        self.wrong = self.condition(x)
        return super().forward(x)

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v) * (1.05 if self.wrong else 1.0)


class WrongInFloat64(Sometimes):
    """The mixed values are 5 % too large in float64."""

    def condition(self, x: Tensor) -> bool:
        return x.dtype == torch.float64


class WrongInBfloat16(Sometimes):
    """The mixed values are 5 % too large in bfloat16."""

    def condition(self, x: Tensor) -> bool:
        return x.dtype == torch.bfloat16


class WrongInFloat16(Sometimes):
    """The mixed values are 5 % too large in float16."""

    def condition(self, x: Tensor) -> bool:
        return x.dtype == torch.float16


class WrongWithoutGradients(Sometimes):
    """The mixed values are 5 % too large if gradients are switched off."""

    def condition(self, x: Tensor) -> bool:
        return not torch.is_grad_enabled()


class WrongWhereTheInputNeedsAGradient(Sometimes):
    """The mixed values are 5 % too large if the input requires a gradient."""

    def condition(self, x: Tensor) -> bool:
        return x.requires_grad


class WrongWhereTheInputNeedsNoGradient(Sometimes):
    """The mixed values are 5 % too large if weights require a gradient and the input does not."""

    def condition(self, x: Tensor) -> bool:
        return torch.is_grad_enabled() and self.key.weight.requires_grad and not x.requires_grad


class NoGradientThroughFrozenKeys(Parted):
    """If the weight of the keys needs no gradient, the input gets none through the keys either."""

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().heads(x)
        return q, k if self.key.weight.requires_grad else k.detach(), v


class WrongInInferenceMode(Sometimes):
    """The mixed values are 5 % too large in inference mode."""

    def condition(self, x: Tensor) -> bool:
        return torch.is_inference_mode_enabled()


class LastPositionOffInBfloat16(Parted):
    """The mixed values of the last position are 5 % too large in bfloat16, where rounding hides each of them."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        y = super().mix(p, v)
        if y.dtype != torch.bfloat16 or y.size(-2) == 1:
            return y
        return torch.cat((y[..., :-1, :], y[..., -1:, :] * 1.05), -2)


class WrongInTraining(Sometimes):
    """The mixed values are 5 % too large in training mode, whatever the rates."""

    def condition(self, x: Tensor) -> bool:
        return self.training


class WrongFromThreeSamples(Sometimes):
    """The mixed values are 5 % too large for three samples or more."""

    def condition(self, x: Tensor) -> bool:
        return x.size(0) >= 3


class WrongFromThreeHeads(Sometimes):
    """The mixed values are 5 % too large for three heads or more."""

    def condition(self, x: Tensor) -> bool:
        return self.n_head >= 3


class WrongPastHeadSize64(Sometimes):
    """The mixed values are 5 % too large if D is greater than 64."""

    def condition(self, x: Tensor) -> bool:
        return x.size(-1) // self.n_head > 64


class WrongPastSixtyFourHeads(Sometimes):
    """The mixed values are 5 % too large for more than 64 heads."""

    def condition(self, x: Tensor) -> bool:
        return self.n_head > 64


class WrongPast256Samples(Sometimes):
    """The mixed values are 5 % too large for more than 256 samples."""

    def condition(self, x: Tensor) -> bool:
        return x.size(0) > 256


class WrongPastHeadSize128(Sometimes):
    """The mixed values are 5 % too large if D is greater than 128."""

    def condition(self, x: Tensor) -> bool:
        return x.size(-1) // self.n_head > 128


class WrongAtAFullBlock(Sometimes):
    """The mixed values are 5 % too large if T is `block_size`."""

    def condition(self, x: Tensor) -> bool:
        return x.size(1) == self.mask.size(-1)


class WrongAtPowersOfTwo(Sometimes):
    """The mixed values are 5 % too large if T is a power of two."""

    def condition(self, x: Tensor) -> bool:
        return x.size(1).bit_count() == 1


class WrongForLargeInputs(Sometimes):
    """The mixed values are 5 % too large if an element of the input is greater than 100."""

    def condition(self, x: Tensor) -> bool:
        return bool((x.detach().abs() > 100).any())


class WrongInTheThirdLayer(Sometimes):
    """The mixed values are 5 % too large in the third of the layers that one config builds."""

    config: ClassVar[Any] = None  # the config of the model under construction
    built: ClassVar[int] = 0  # how many layers were built from it

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        kind = type(self)
        kind.built = kind.built + 1 if config is kind.config else 1
        kind.config = config
        layers = getattr(config, "n_layer", 1)
        self.third = (kind.built - 1) % layers == 2

    def condition(self, x: Tensor) -> bool:
        return self.third


class ScaleByTheLayer(WrongInTheThirdLayer):
    """The scores of the third layer are also divided by 3, as with a scale by the inverse layer index."""

    config = None
    built = 0

    def scale(self, q: Tensor) -> float:
        return 1.0 / math.sqrt(q.size(-1)) / (3.0 if self.third else 1.0)

    def condition(self, x: Tensor) -> bool:
        return False


FAULTS = (
    inside("dtype", WrongInFloat64, seen_by=("output", "gradients")),
    inside("dtype", WrongInBfloat16, seen_by=("bias",)),  # five per cent are within a single case's budget
    inside("dtype", WrongInFloat16, seen_by=("output", "gradients")),
    inside("dtype", LastPositionOffInBfloat16, seen_by=("bias",)),
    inside("mode", WrongWithoutGradients, seen_by=("output",)),
    inside("mode", WrongWhereTheInputNeedsAGradient, seen_by=("gradients",)),
    inside("mode", WrongWhereTheInputNeedsNoGradient, seen_by=("gradients",)),
    inside("mode", NoGradientThroughFrozenKeys, seen_by=("gradients",)),
    inside("mode", WrongInInferenceMode, seen_by=("output",)),
    inside("mode", WrongInTraining, seen_by=("output", "dropout", "modes")),
    inside("shape", WrongFromThreeSamples, seen_by=("output",)),
    inside("shape", WrongFromThreeHeads, seen_by=("output", "gradients")),
    inside("shape", WrongPastHeadSize64, seen_by=("output", "gradients")),
    inside("shape", WrongPastSixtyFourHeads, seen_by=("output", "gradients")),
    inside("shape", WrongPast256Samples, seen_by=("output", "gradients")),
    inside("shape", WrongPastHeadSize128, seen_by=("output", "gradients")),
    inside("shape", WrongAtAFullBlock, seen_by=("output", "gradients")),
    inside("shape", WrongAtPowersOfTwo, seen_by=("output", "gradients")),
    inside("shape", WrongForLargeInputs, seen_by=("output",)),
    inside("layer", WrongInTheThirdLayer, seen_by=("logits",)),
    inside("layer", ScaleByTheLayer, seen_by=("logits",)),
)
