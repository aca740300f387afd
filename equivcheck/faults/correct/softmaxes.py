"""Right attentions with another softmax: in another dtype, by hand, in base two, by logarithms."""

import math

import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.correct.another_core import Rewritten, wide

__all__ = [
    "BaseTwoSoftmax",
    "Float64Inside",
    "LogSoftmax",
    "LogSumExp",
    "QuotientAtTheEnd",
    "SoftmaxInFloat32",
    "SpelledOutSoftmax",
]


class SoftmaxInFloat32(Rewritten):
    """The scores stay in the dtype of the input; the softmax runs in float32, or in float64 for inputs of float64."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT) * (1.0 / math.sqrt(q.size(-1)))
        return self.mix(F.softmax(wide(s.masked_fill(self.hidden(q), -math.inf)), dim=-1), v)


class SpelledOutSoftmax(Rewritten):
    """The softmax by hand: maximum, difference, exponential, sum, quotient."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = (s - s.detach().amax(-1, keepdim=True)).exp()
        return self.mix(e / e.sum(-1, keepdim=True), v)


class BaseTwoSoftmax(Rewritten):
    """The softmax by powers of two."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = ((s - s.detach().amax(-1, keepdim=True)) * math.log2(math.e)).exp2()
        return self.mix(e / e.sum(-1, keepdim=True), v)


class QuotientAtTheEnd(Rewritten):
    """The exponentials mix the values first, and the result is divided by their sum."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = (s - s.detach().amax(-1, keepdim=True)).exp()
        total = e.sum(-1, keepdim=True)
        # scaled by a power of two, so that nothing near the limits of the dtype overflows before the division
        shrink = 2.0 ** -math.ceil(math.log2(s.size(-1)))
        return ((self.attn_drop(e * shrink) @ wide(v)) / (total * shrink)).to(v.dtype)  # type: ignore[no-any-return]


class LogSumExp(Rewritten):
    """The probabilities are exp(S - logsumexp(S))."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        return self.mix((s - s.logsumexp(-1, keepdim=True)).exp(), v)


class LogSoftmax(Rewritten):
    """The probabilities are the exponentials of a log_softmax."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.log_softmax(self.scores(q, k), dim=-1).exp(), v)


class Float64Inside(Rewritten):
    """Everything between the projections in float64."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.softmax(self.scores(q.double(), k.double()), dim=-1), v.double()).to(v.dtype)
