"""Faults of the dropout in the backward pass only; the mask of the forward pass is right."""

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equivcheck.faults.base import inside
from equivcheck.faults.gradient_edits import as_if
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.faults.inside.dropout import MaskedDropout

__all__ = ["FAULTS"]


class DropoutFreshInBackward(Parted):
    """The backward pass draws another mask."""

    def dropped(self, p: Tensor) -> Tensor:
        return as_if(super().dropped(p), super().dropped(p))


class DropoutUnscaledInBackward(Parted):
    """The backward pass applies the mask without the factor 1/(1 - p)."""

    def dropped(self, p: Tensor) -> Tensor:
        d = super().dropped(p)
        return as_if(d, d * (1.0 - self.attn_drop.p)) if self.attn_drop.training else d


class DropoutMissingInBackward(Parted):
    """The backward pass applies no mask to the gradient of the probabilities."""

    def dropped(self, p: Tensor) -> Tensor:
        return as_if(super().dropped(p), p)


class DeltaIgnoresDropout(MaskedDropout):
    """The backward pass of the softmax subtracts rowsum(P * dP) with dP as it was before the mask."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        s = self.masked(self.scores(q, k))
        p = self.probabilities(s)
        if not self.attn_drop.training or self.attn_drop.p == 0.0:
            return p
        keep_mask = self.keep_mask(p, self.attn_drop.p)
        bare = (s - s.detach().logsumexp(-1, keepdim=True)).exp()  # its backward pass subtracts nothing
        return as_if(p * keep_mask, bare * keep_mask + (p - bare))


class CheckpointForgetsTheGenerator(Parted):
    """Activation checkpointing draws a new mask when it recomputes the forward pass."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        weights = super().weights
        return checkpoint(weights, q, k, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]


FAULTS = (
    inside("dropout", DropoutFreshInBackward, seen_by=("dropout",)),
    inside("dropout", DropoutUnscaledInBackward, seen_by=("dropout",)),
    inside("dropout", DropoutMissingInBackward, seen_by=("dropout",)),
    inside("dropout", DeltaIgnoresDropout, seen_by=("dropout",)),
    inside("dropout", CheckpointForgetsTheGenerator, seen_by=("dropout",)),
)
