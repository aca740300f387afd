"""Attentions that are wrong on purpose, right ones written differently, and faults to plant around any attention.

FAULTS: modules with the contract of `CausalSelfAttention`, each wrong in one way, with the checks that should see it.
RIGHT: modules that compute the same function in another way, which no check may call different.
AROUND: faults around an original of any kind, which need no knowledge of its inside; among them
PLANTS: around any factory of modules, and
REPLACEMENTS: around any replacement in a model.

Faults that no comparison on one device can see are left out: a lost bias of the keys, minus infinity made of two finite
fills, noise of the size of rounding in a gradient, a running sum that is rounded to the dtype key by key (the budget
admits it).
"""

from equivcheck.faults.around.function import FUNCTIONS
from equivcheck.faults.around.model import MODELS
from equivcheck.faults.around.module import IN_A_GPT, PLANTS
from equivcheck.faults.around.module_contract import MODULES
from equivcheck.faults.around.replacement import REPLACEMENTS
from equivcheck.faults.around.transforms import CHANGES
from equivcheck.faults.base import Fault, Right
from equivcheck.faults.correct import blockwise, recomputed, rewritten
from equivcheck.faults.inside import (
    causality,
    checkpoint,
    conditions,
    dropout,
    dropout_backward,
    gradient,
    heads,
    interface,
    layout,
    precision,
    residual,
    scale,
    shape,
    softmax,
    state,
)

__all__ = ["AROUND", "FAULTS", "PLANTS", "REPLACEMENTS", "RIGHT", "Fault", "Right"]

AROUND: tuple[Fault, ...] = (*FUNCTIONS, *MODELS, *PLANTS, *MODULES, *CHANGES, *IN_A_GPT, *REPLACEMENTS)
FAULTS: tuple[Fault, ...] = (
    *causality.FAULTS,
    *softmax.FAULTS,
    *scale.FAULTS,
    *heads.FAULTS,
    *shape.FAULTS,
    *dropout.FAULTS,
    *dropout_backward.FAULTS,
    *residual.FAULTS,
    *gradient.FAULTS,
    *precision.FAULTS,
    *layout.FAULTS,
    *interface.FAULTS,
    *checkpoint.FAULTS,
    *state.FAULTS,
    *conditions.FAULTS,
)
RIGHT: tuple[Right, ...] = (*rewritten.RIGHTS, *recomputed.RIGHTS, *blockwise.RIGHTS)
