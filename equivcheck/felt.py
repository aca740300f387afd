"""Options that the original of a pair of functions takes and takes no notice of, as one with `**kwargs` may."""

from collections.abc import Mapping
from typing import Any

import torch

from equivcheck.cases import Case
from equivcheck.subject import Subject

__all__ = ["unfelt"]

_CASE = Case(batch_size=2, seq_len=8, n_head=2, head_size=4, block_size=8, seed=1)
_WAYS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # an option: two cases that differ in it alone
    "dropout_p": ({"training": True, "attn_pdrop": 0.5}, {"training": True}),
    "scale": ({"scale": 0.25}, {"scale": 1.0}),
    "attn_mask": ({"mask": "some"}, {}),
}


def unfelt(subject: Subject) -> list[str]:
    """Those of the options that both take that change nothing in the original; one that it refuses is not among them."""
    return [name for name, ways in _WAYS.items() if name in subject.options and not _felt(subject, *ways)]


def _felt(subject: Subject, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    found = []
    try:
        for fields in (one, other):
            problem = subject.problem(_CASE.but(**fields))
            found.append(problem.run(problem.reference, problem.inputs, gradients=False)["output"])
    except Exception:
        return True
    first, second = (torch.nan_to_num(value) for value in found if value is not None)
    return not torch.equal(first, second)
