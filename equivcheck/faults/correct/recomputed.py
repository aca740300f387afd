"""Right attentions that save no probabilities, and recompute them in the backward pass."""

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from equivcheck.faults.base import rights_of
from equivcheck.faults.correct.another_core import Rewritten

__all__ = ["RIGHTS", "CheckpointedReentrantly"]


class Checkpointed(Rewritten):
    """Probabilities are recomputed in the backward pass, under the same generator state."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return checkpoint(self.core, q, k, v, use_reentrant=False)  # type: ignore[no-any-return]

    def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.softmax(self.scores(q, k), dim=-1), v)


class CheckpointedReentrantly(Checkpointed):
    """The same as one node of the graph, which runs by `backward()` alone: `torch.autograd.grad` is refused."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return checkpoint(self.core, q, k, v, use_reentrant=True)  # type: ignore[no-any-return]


RIGHTS = rights_of(Checkpointed, CheckpointedReentrantly)
