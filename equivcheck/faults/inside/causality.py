"""Faults of the mask: a token that sees too much, too little, or the wrong ones."""

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]


class MaskMissing(Parted):
    """No causal mask at all: every token sees all others."""

    def visible(self, s: Tensor) -> Tensor:
        return torch.ones_like(super().visible(s))


class MaskMissingInEval(Parted):
    """The causal mask is applied in training mode only."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s)
        return m if self.training else torch.ones_like(m)


class MaskMissingInTraining(Parted):
    """The causal mask is applied in eval mode only."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s)
        return torch.ones_like(m) if self.training else m


class MaskOneTooWide(Parted):
    """Every token also sees the one after it."""

    def visible(self, s: Tensor) -> Tensor:
        return torch.ones_like(super().visible(s)).tril(1)


class MaskOneTooNarrow(Parted):
    """No token but the first sees itself."""

    def visible(self, s: Tensor) -> Tensor:
        m = torch.ones_like(super().visible(s)).tril(-1)
        m[..., :1, :1] = 1
        return m


class MaskInverted(Parted):
    """A token sees itself and the tokens after it, instead of those before it."""

    def visible(self, s: Tensor) -> Tensor:
        return torch.ones_like(super().visible(s)).triu()


class MaskMultipliedAfterSoftmax(Parted):
    """The softmax runs over all keys and hidden ones are set to zero afterwards: rows do not sum to one."""

    def masked(self, s: Tensor) -> Tensor:
        return s

    def probabilities(self, s: Tensor) -> Tensor:
        return F.softmax(s, dim=-1) * self.visible(s).to(s.dtype)


class MaskedScoresAreZero(Parted):
    """A hidden key gets the score 0 instead of minus infinity."""

    fill = 0.0


class FillOfMinusTen(Parted):
    """A hidden key gets the score -10: some e^-10 of the future leaks."""

    fill = -10.0


class FillOfMinusTenThousand(Parted):
    """A hidden key gets the score -10^4, which is visible to rows with lower scores."""

    fill = -1e4


class FillBeforeTheScale(Parted):
    """A hidden key gets -100 before the scores are divided by sqrt(D): wide heads leak."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        s = q @ k.transpose(-2, -1)
        return s.masked_fill(self.visible(s) == 0, -100.0) * self.scale(q)

    def masked(self, s: Tensor) -> Tensor:
        return s


class LastRowOfATileLeaks(Parted):
    """If T is greater than 16 and no multiple of it, the last row of each tile of 16 sees the next token."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        if m.size(-1) % 16 != 0:
            m[..., 15::16, :] = torch.ones_like(m).tril(1)[..., 15::16, :]
        return m


class CausalOnlyAtMultiplesOfEight(Parted):
    """If T is no multiple of 8, a fallback without a mask runs."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s)
        return m if m.size(-1) % 8 == 0 else torch.ones_like(m)


class MaskOfTheEmbedding(Parted):
    """The mask is as large as the embedding: rows from C on see everything."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        m[..., self.proj.in_features :, :] = 1
        return m


class MaskInTheFirstHeadOnly(Parted):
    """All heads but the first see the future."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).repeat(1, s.size(1), 1, 1)  # (1, nh, T, T)
        m[:, 1:] = 1
        return m


class FirstRowSeesAll(Parted):
    """The first token sees the whole sequence, all others are right."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        m[..., :1, :] = 1
        return m


class LastKeySeenByAll(Parted):
    """Every token sees the last one."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        m[..., -1:] = 1
        return m


class FirstKeyLost(Parted):
    """No token but the first sees the first."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        m[..., 1:, :1] = 0
        return m


class LastRowMissesItself(Parted):
    """Only the last token does not see itself."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        if m.size(-1) > 1:
            m[..., -1, -1] = 0
        return m


class WindowOf64(Parted):
    """A token sees the last 64 tokens only, as with a sliding window."""

    def visible(self, s: Tensor) -> Tensor:
        return super().visible(s).triu(-63)


class MaskIndexModulo96(Parted):
    """Rows and columns of the mask are taken modulo 96, the stand-in for an index that overflows."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s)
        index = torch.arange(m.size(-1), device=m.device) % 96
        return m[:, :, index][..., index]


class QueriesOfAChunkShareAMask(Parted):
    """All rows of a chunk of 32 queries use the mask of its first."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s)
        rows = torch.arange(m.size(-2), device=m.device)
        return m[:, :, rows - rows % 32]


FAULTS = (
    inside("causality", MaskMissing, seen_by=("causality", "output", "logits")),
    inside("causality", MaskMissingInEval, seen_by=("causality", "output", "modes")),
    inside("causality", MaskMissingInTraining, seen_by=("output", "causality", "modes", "gradients")),
    inside("causality", MaskOneTooWide, seen_by=("causality", "output")),
    inside("causality", MaskOneTooNarrow, seen_by=("output", "gradients")),
    inside("causality", MaskInverted, seen_by=("causality", "output")),
    inside("causality", MaskMultipliedAfterSoftmax, seen_by=("causality", "output")),
    inside("causality", MaskedScoresAreZero, seen_by=("causality", "output")),
    inside("causality", FillOfMinusTen, seen_by=("causality", "output")),
    inside("causality", FillOfMinusTenThousand, seen_by=("output", "causality")),
    inside("causality", FillBeforeTheScale, seen_by=("output", "causality")),
    inside("causality", LastRowOfATileLeaks, seen_by=("causality", "output")),
    inside("causality", CausalOnlyAtMultiplesOfEight, seen_by=("causality", "output")),
    inside("causality", MaskOfTheEmbedding, seen_by=("output", "causality")),
    inside("causality", MaskInTheFirstHeadOnly, seen_by=("causality", "output")),
    inside("causality", FirstRowSeesAll, seen_by=("causality", "output")),
    inside("causality", LastKeySeenByAll, seen_by=("causality", "output")),
    inside("causality", FirstKeyLost, seen_by=("output", "gradients")),
    inside("causality", LastRowMissesItself, seen_by=("output", "gradients")),
    inside("causality", WindowOf64, seen_by=("output", "gradients")),
    inside("causality", MaskIndexModulo96, seen_by=("output", "causality")),
    inside("causality", QueriesOfAChunkShareAMask, seen_by=("output", "gradients")),
)
