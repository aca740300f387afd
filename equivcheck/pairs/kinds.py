"""The kinds of pairs: how each is recognised, and which inputs and results its cases have."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equivcheck.cases.case import Case, arrange
from equivcheck.cases.tensors import qkv, sequence, tokens

__all__ = ["KINDS", "SAMPLE", "Inputs", "Kind", "replacement_of"]

SAMPLE = Case(batch_size=2, seq_len=3, n_head=2, head_size=4, block_size=8, n_layer=1, vocab_size=11)
"""The case whose config is given to a factory on trial."""

Inputs = tuple[tuple[Tensor, ...], tuple[str, ...], dict[str, torch.Size]]
"""The inputs of a case on the CPU, the names of those that have gradients, and the shape of each result by its name."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of pair.

    Attributes:
        name: The name in the command line and in reports.
        original: The kind of a pair whose candidate has the form of the original.
        inputs: Makes the inputs of a case; its second argument tells whether the original's projections have names by
            which their weights are sharpened.
        result: The name of the tensor by which the two are compared first.
        function: Whether the sides are functions of q, k and v.
        from_config: Whether both sides are built from a config.
        replaces: Whether the candidate takes the original's model and returns it with other parts.
        whole_model: Whether the sides take token ids and return logits and a loss.
        within_gpt: Whether the sides are attentions of x (B, T, C), which are judged inside a GPT as well.
        tried_with: Makes the input of a trial of the original on a case; None if a trial does not recognise this kind.
        fits: Whether an original that was given the first tensor and returned the second is of this kind.
    """

    name: str
    original: str
    inputs: Callable[[Case, Callable[[], bool]], Inputs]
    result: str
    function: bool = False
    from_config: bool = False
    replaces: bool = False
    whole_model: bool = False
    within_gpt: bool = False
    tried_with: Callable[[Case], Tensor] | None = None
    fits: Callable[[Tensor, Tensor], bool] = lambda x, y: False

    @property
    def sample(self) -> Case:
        """A small case of this kind."""
        return SAMPLE if self.whole_model else SAMPLE.but(n_layer=0)


def _heads(case: Case, by_name: Callable[[], bool]) -> Inputs:
    # torch 2.11's cuDNN refuses expanded queries where values are of another size: it orders its output by their strides
    of_queries = "contiguous" if case.layout == "expanded" and case.value_size else case.layout
    laid_out = zip(qkv(case), (of_queries, case.layout, case.layout), strict=True)
    q, k, v = (arrange(x, layout) for x, layout in laid_out)  # (B, H, T, D), (B, H, K, D), (B, H, K, E)
    return (q, k, v), ("q", "k", "v"), {"output": torch.Size((*q.shape[:-1], v.shape[-1]))}


def _vectors(case: Case, by_name: Callable[[], bool]) -> Inputs:
    x = arrange(sequence(case, sharpen=not by_name()), case.layout)  # (B, T, C)
    return (x,), ("x",), {"output": x.shape}


def _token_ids(case: Case, by_name: Callable[[], bool]) -> Inputs:
    return tokens(case), (), {"logits": torch.Size((case.batch_size, case.seq_len, case.vocab_size))}


def _line(case: Case) -> Tensor:
    size = (case.batch_size, case.seq_len, case.n_embd)  # (B, T, C)
    return torch.linspace(-2, 2, math.prod(size)).view(size).to(case.torch_dtype)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="module",
            original="module",
            inputs=_vectors,
            result="output",
            from_config=True,
            within_gpt=True,
            tried_with=_line,
            fits=lambda x, y: x.shape == y.shape,
        ),
        Kind(
            name="function",
            original="function",
            inputs=_heads,
            result="output",
            function=True,
        ),
        Kind(
            name="model",
            original="model",
            inputs=_token_ids,
            result="logits",
            from_config=True,
            whole_model=True,
            tried_with=lambda case: torch.zeros(case.batch_size, case.seq_len, dtype=torch.long),
            fits=lambda x, y: y.dim() == 3,
        ),
        Kind(
            name="replacement",
            original="model",
            inputs=_token_ids,
            result="logits",
            replaces=True,
            whole_model=True,
        ),
    )
}
"""The kinds by name, in the order of `report.catalogue.KINDS`, in which an original is tried as each."""


def replacement_of(kind: Kind) -> Kind | None:
    """The kind whose candidate takes an original of `kind` and returns it with other parts; None if there is none."""
    return next((other for other in KINDS.values() if other.replaces and other.original == kind.name), None)
