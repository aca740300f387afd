"""Hypothesis strategies over cases, simplest first: sizes shrink to 1, dtypes to float32, regimes to sharpened.

Sizes are drawn from one ascending table with *every* integer of its range, in which the interesting ones are repeated:
the edges of tiles are visited often, and a counterexample still shrinks to the smallest size that fails.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from equivcheck.cases.case import Case
from equivcheck.cases.domain_solving import Solver
from equivcheck.cases.features import mask_features
from equivcheck.cases.fields import simpler_values
from equivcheck.cases.space import CaseSpace, sizes

__all__ = ["LENGTHS", "MODEL_REGIMES", "CaseSpace", "cases", "simpler", "sizes"]

LENGTHS = ((1, 32, 0.45), (33, 128, 0.3), (129, 256, 0.12), (257, 512, 0.13))
"""Classes of lengths, and the least share of cases of each: chance alone would leave some runs without long ones."""

MODEL_REGIMES = ("sharpened", "near_initial", "large_scores", "ties", "same_sign_v", "constant_v")
"""The regimes of values that have an effect on the attentions inside of a model."""

_SEEDS = 2**16
_STEPS = 14


@cache
def _size(largest: int, *, typical: int, smallest: int = 1) -> st.SearchStrategy[int]:
    return st.sampled_from(sizes(largest, typical=typical, smallest=smallest))


def _one_of(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """`st.sampled_from`, cached: its constructor takes longer than a draw."""
    return _sampled(tuple(values), tuple(map(type, values)))


@cache
def _sampled(values: tuple[Any, ...], types: tuple[type, ...]) -> st.SearchStrategy[Any]:
    # the types keep the cache from taking True for 1
    return st.sampled_from(values)


def _some(letters: str) -> st.SearchStrategy[list[str]]:
    """Up to `_STEPS` letters, long words as often as short ones: some faults need three steps in a certain order."""
    each = _one_of(letters)
    return st.integers(0, _STEPS).flatmap(lambda size: st.lists(each, min_size=size, max_size=size))


def cases(space: CaseSpace | None = None, **limits: Any) -> st.SearchStrategy[Case]:
    """Cases of a space, or of the whole space within `limits`, which are fields of `CaseSpace`."""
    one = (space or CaseSpace()).but(**limits)
    return _cases(one) if one.domain is None else _cases_inside(Solver(one))


@st.composite
def _cases(draw: st.DrawFn, space: CaseSpace) -> Case:
    dtype = draw(_one_of(space.dtypes))
    seq_len = draw(_size(space.max_seq_len, typical=min(48, space.max_seq_len), smallest=space.min_seq_len))
    # long sequences get few heads and small batches: combinations of sizes are visited at moderate lengths
    most_slices = max(1, space.max_scores // max(seq_len * seq_len, 1))
    n_head = draw(_size(max(space.min_heads, min(space.max_heads, most_slices)), typical=4, smallest=space.min_heads))
    most = max(space.min_batch_size, min(space.max_batch_size, most_slices // n_head))
    batch_size = draw(_size(most, typical=3, smallest=space.min_batch_size))
    narrowest = space.min_head_size if space.max_chunks is None else -(-seq_len // space.max_chunks)
    widest = max(narrowest, min(space.max_head_size, 512 // n_head))
    head_size = draw(_one_of(space.head_sizes) if space.head_sizes else _size(widest, typical=24, smallest=narrowest))
    block_size = seq_len + draw(_one_of((0, 0, 1, 7, 64)))
    n_layer = draw(_one_of(space.n_layers))
    in_training = draw(st.booleans()) if space.training is None else space.training
    allowed = list(space.train_rates if in_training else space.rates)
    # as many choices in both modes: Hypothesis takes fewer choices for simpler, and eval is the simpler mode
    rate = st.integers(0, max(len(space.train_rates), len(space.rates)) - 1).map(
        lambda which: allowed[which % len(allowed)]
    )
    causal = draw(_one_of(space.is_causal))
    other = draw(_features(space.features, space.masks, seq_len, causal)) if space.features else {}
    group = draw(_one_of((1, 2, 3))) if "heads" in space.features else 1
    if group > 1:
        other["kv_heads"], n_head = n_head, n_head * group
    return Case(
        batch_size=batch_size,
        seq_len=seq_len,
        n_head=n_head,
        head_size=head_size,
        block_size=block_size,
        dtype=dtype,
        training=in_training,
        attn_pdrop=draw(rate),
        resid_pdrop=draw(rate),
        regime=draw(_one_of(space.regimes)),
        layout=draw(_one_of(space.layouts)),
        seed=draw(st.integers(0, _SEEDS - 1)),
        n_layer=n_layer,
        vocab_size=draw(_one_of(space.vocab_sizes)) if n_layer else 1,
        tokens=draw(_one_of(("random", "text"))) if n_layer else "random",
        is_causal=causal,
        scale=draw(_one_of(space.scales)),
        steps="".join(draw(_some(space.steps))) if space.steps else "",
        **other,
    )


@st.composite
def _cases_inside(draw: st.DrawFn, solver: Solver) -> Case:
    """Cases inside of a domain: each value from what the domain leaves of its table."""
    space = solver.space
    values: dict[str, Any] = {}
    for name in solver.order:
        left = solver.left(name, values)
        if not left:
            reject()
        values[name] = draw(_one_of(left))
    case = solver.case(
        values,
        seed=draw(st.integers(0, _SEEDS - 1)),
        tokens=draw(_one_of(("random", "text"))) if values["n_layer"] else "random",
        steps="".join(draw(_some(space.steps))) if space.steps else "",
    )
    if not solver.domain.allows(case):
        reject()
    return case


@st.composite
def _features(
    draw: st.DrawFn, features: frozenset[str], masks: Sequence[str], seq_len: int, causal: bool
) -> dict[str, Any]:
    """The fields of a case for keys, values and mask: some like the queries', and as many longer as not."""
    fields: dict[str, Any] = {}
    if ("causal lengths" if causal else "lengths") in features:
        near = (0, seq_len + 1, 2 * seq_len, 1, 0, seq_len + 17, seq_len + 2, seq_len // 2 + 1)
        if seq_len == 1:
            near = (0, 2, 64, 1, 0, 18, 3, 33)
        length = draw(_one_of(near))
        fields["kv_len"] = 0 if length == seq_len else length
    if "value size" in features:
        fields["value_size"] = draw(_one_of((0, 0, 1, 5, 24)))
    able = [m for m in masks if m and mask_features(m, is_causal=causal) <= features]
    if able:
        none = [""] * (1 + len(able) // 2) if "" in masks else []
        fields["mask"] = draw(_one_of((*none[:1], *able, *none[1:])))
    return fields


def simpler(case: Case) -> Iterator[Case]:
    """Cases with one simpler field, the greatest steps first, beyond the class that Hypothesis drew from."""
    for changes in simpler_values(case):
        yield case.but(**changes)
