"""Faults of the backward pass only; all outputs are right."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.gradient_edits import as_if, rewritten, rewritten_parameter
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import VALUES

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


class QueryDetached(Parted):
    """No gradient goes through the queries."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q.detach(), k, v


class KeyDetached(Parted):
    """No gradient goes through the keys."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, k.detach(), v


class ValueDetached(Parted):
    """No gradient goes through the values."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, k, v.detach()


class SoftmaxDetached(Parted):
    """No gradient goes through the probabilities."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return super().weights(q, k).detach()


class _KeptOnce(torch.autograd.Function):
    """Softmax; its backward pass overwrites the saved probabilities with the gradient."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        ctx.probabilities = F.softmax(s, dim=-1)
        return ctx.probabilities.clone()  # type: ignore[no-any-return]  # attributes of a context are Any

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        delta = (ctx.probabilities * g).sum(-1, keepdim=True)
        return ctx.probabilities.mul_(g - delta)  # type: ignore[no-any-return]  # attributes of a context are Any


class BackwardOverwritesWhatWasKept(Parted):
    """The first backward pass is right, and overwrites the probabilities that a second one needs."""

    def probabilities(self, s: Tensor) -> Tensor:
        return _KeptOnce.apply(s)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped


class NoGradientsInEval(Parted):
    """In eval mode no gradient goes through queries, keys and values."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return (q, k, v) if self.training else (q.detach(), k.detach(), v.detach())


class InputGradientMissesTheQueryPath(Parted):
    """The gradient of the input lacks the part through the queries; those of the parameters are right."""

    def heads(self, x: Tensor) -> Heads:
        _, k, v = super().heads(x)
        return super().heads(x.detach())[0], k, v


class KeyGradientOnePercentOff(Parted):
    """The gradient of the keys is 1 % too large."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, rewritten(k, lambda g: g * 1.01), v


class KeyGradientLosesATenth(Parted):
    """A tenth of the gradient of the keys is lost."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, rewritten(k, lambda g: g * 0.9), v


class KeyGradientOfTheFirstSampleOnly(Parted):
    """The gradient of the keys is zero for all samples but the first."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        first = torch.arange(x.size(0), device=x.device).view(-1, 1, 1, 1) < 1
        return q, rewritten(k, lambda g: g * first), v


class KeyGradientOfAPartialTileLost(Parted):
    """If T is greater than 32, the gradient of the keys in a partial last tile is never written."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        T = x.size(1)
        full = torch.arange(T, device=x.device)[:, None] < (T - T % 32 if T > 32 else T)
        return q, rewritten(k, lambda g: g * full), v


class QueryGradientMissesTheScale(Parted):
    """The gradient of the queries lacks the factor 1/sqrt(D): right for D = 1."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return rewritten(q, lambda g: g / self.scale(q)), k, v


class ValueGradientWrapsAround(Parted):
    """Offsets into the gradient of the values are taken modulo 2^13, as with an integer that overflows."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        offset = torch.arange(v.numel(), device=v.device).view(v.shape) % 2**13
        return q, k, rewritten(v, lambda g: g.flatten()[offset])


class ValueBiasGradientHalved(Parted):
    """The bias of the value gets half of its gradient; everything else is right."""

    def heads(self, x: Tensor) -> Heads:
        with rewritten_parameter(self.value, "bias", lambda g: g / 2):
            return super().heads(x)


class WideHeadGradientIsNan(Parted):
    """If D is greater than 64, the gradient of the queries is NaN."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return rewritten(q, lambda g: g * torch.nan) if q.size(-1) > 64 else q, k, v


class QueryGradientRoundedToBfloat16(Parted):
    """The gradient of the queries is rounded to bfloat16, wrong in float32 and float64."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return rewritten(q, lambda g: g.bfloat16().to(g.dtype)), k, v


class MaskMissingInBackward(Parted):
    """The backward pass of the softmax has no mask."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        s = self.scores(q, k)
        return self.dropped(as_if(self.probabilities(self.masked(s)), self.probabilities(s)))


class OwnKeyLostInBackward(Parted):
    """The mask of the backward pass is one too narrow: the scores of the diagonal get no gradient."""

    def probabilities(self, s: Tensor) -> Tensor:
        p = super().probabilities(s)
        return as_if(p, p.tril(-1))


class DeltaLostOnOddRows(Parted):
    """The backward pass of the softmax does not subtract rowsum(dO * O) on odd rows."""

    def probabilities(self, s: Tensor) -> Tensor:
        wide = s.to(torch.promote_types(s.dtype, torch.float32))
        lse = wide.logsumexp(-1, keepdim=True)
        odd = torch.arange(s.size(-2), device=s.device)[:, None] % 2 == 1
        return as_if(super().probabilities(s), (wide - torch.where(odd, lse.detach(), lse)).exp().to(s.dtype))


class BackwardWithoutTheDenominator(Parted):
    """The backward pass recomputes the probabilities and does not divide them by their sum."""

    def probabilities(self, s: Tensor) -> Tensor:
        return as_if(super().probabilities(s), (s - s.detach().amax(-1, keepdim=True)).exp())


class LastUpstreamRowLost(Parted):
    """The upstream gradient of the last token is lost."""

    def out(self, y: Tensor) -> Tensor:
        return rewritten(super().out(y), lambda g: F.pad(g[:, :-1], (0, 0, 0, 1)))


class UpstreamGradientClipped(Parted):
    """The upstream gradient is clipped to [-1, 1]."""

    def out(self, y: Tensor) -> Tensor:
        return rewritten(super().out(y), lambda g: g.clamp(-1.0, 1.0))


FAULTS = (
    inside("gradient", QueryDetached, seen_by=("gradients",)),
    inside("gradient", KeyDetached, seen_by=("gradients",)),
    inside("gradient", ValueDetached, seen_by=("gradients",)),
    inside("gradient", SoftmaxDetached, seen_by=("gradients",)),
    inside("gradient", NoGradientsInEval, seen_by=("gradients", "modes"), wrong_at=VALUES),
    inside("gradient", InputGradientMissesTheQueryPath, seen_by=("gradients",)),
    inside("gradient", KeyGradientOnePercentOff, seen_by=("gradients",)),
    inside("gradient", KeyGradientLosesATenth, seen_by=("gradients",)),
    inside("gradient", KeyGradientOfTheFirstSampleOnly, seen_by=("gradients",)),
    inside("gradient", KeyGradientOfAPartialTileLost, seen_by=("gradients",)),
    inside("gradient", QueryGradientMissesTheScale, seen_by=("gradients",)),
    inside("gradient", ValueGradientWrapsAround, seen_by=("gradients",)),
    inside("gradient", ValueBiasGradientHalved, seen_by=("gradients",)),
    inside("gradient", WideHeadGradientIsNan, seen_by=("gradients",)),
    inside("gradient", QueryGradientRoundedToBfloat16, seen_by=("gradients",)),
    inside("gradient", MaskMissingInBackward, seen_by=("gradients",)),
    inside("gradient", OwnKeyLostInBackward, seen_by=("gradients",)),
    inside("gradient", DeltaLostOnOddRows, seen_by=("gradients",)),
    inside("gradient", BackwardWithoutTheDenominator, seen_by=("gradients",)),
    inside("gradient", LastUpstreamRowLost, seen_by=("gradients",)),
    inside("gradient", UpstreamGradientClipped, seen_by=("gradients",)),
    inside("gradient", BackwardOverwritesWhatWasKept, seen_by=("purity",)),
)
