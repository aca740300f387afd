"""The space of a check's cases in classes, each with a sure share: chance alone would leave some of them out."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from equivcheck.cases.domain_solving import is_possible
from equivcheck.cases.features import MASK_SHAPES, mask_features
from equivcheck.cases.strategies import LENGTHS, MODEL_REGIMES, CaseSpace, cases
from equivcheck.checks import Check
from equivcheck.engine.screening import screened
from equivcheck.numerics.dtypes import HALF, WIDE
from equivcheck.pairs.pair import Pair
from equivcheck.report.catalogue import SCREEN

__all__ = ["classes", "first_look", "space_of", "spaces_of"]

_N = TypeVar("_N", int, float)

_FEW = 5
_SLOW_IN_CLASSES = 9  # from so many cases on, a slow check has three classes
_PLAIN: dict[str, Any] = {  # the first case of this class, its simplest, is the only one that is drawn
    "min_seq_len": 16,
    "max_seq_len": 32,
    "min_heads": 2,
    "min_batch_size": 2,
    "min_head_size": 16,
    "regimes": ("near_initial",),
    "layouts": ("contiguous",),
}
"""Cases in which rounding explains least: several heads and samples, small scores. In most other regimes rounding in
half precision explains half of a gradient of the keys. A run without a plain case would be insensitive by chance."""
_TYPICAL: dict[str, Any] = _PLAIN | {"vocab_sizes": (17,)}
"""A case of deep and of whole models that shows faults. The first case of another class is its simplest: with one
position queries and keys get no gradient, and of two tokens a wrong model often prefers the same one. Some seeds, and
some versions of Hypothesis, drew no other cases, and the run was insensitive."""
_DEEP: dict[str, Any] = {"n_layers": (3,)}
_SMALL_HEADS: dict[str, Any] = {"min_seq_len": 2, "max_seq_len": 8, "max_head_size": 8}
_BEYOND: tuple[dict[str, Any], ...] = (  # the first case of each, its simplest, is the only one that is drawn
    {**_SMALL_HEADS, "min_heads": 65, "max_heads": 96, "max_batch_size": 2, "pinned": frozenset(["n_head"])},
    {
        **_SMALL_HEADS,
        "min_batch_size": 257,
        "max_batch_size": 300,
        "max_heads": 2,
        "max_scores": 2**18,
        "pinned": frozenset(["batch_size"]),
    },
    {
        "min_seq_len": 2,
        "max_seq_len": 24,
        "head_sizes": (256,),
        "max_heads": 2,
        "max_batch_size": 2,
        "pinned": frozenset(["head_size"]),
    },
)
"""More heads, more samples and wider heads than in other cases: they show faults from some number on."""
_ONCE = (*WIDE, HALF[0])  # a narrow dtype and the wide ones: a second each
_LONGEST_OF_A_MODEL = 130
_LENGTH = frozenset(["seq_len"])
_ONE_QUERY, _SHAPED = 0.1, 0.03  # of the planned cases, more
_LOOKS, _LONGEST_OF_A_FIRST_LOOK = 2, 128


def classes(
    check: Check, subject: Pair, dtypes: Sequence[str], planned: int, *, profile: str = ""
) -> list[tuple[Any, int]]:
    """The case space in classes of dtype and length, short ones first, each with its sure number of cases."""
    return [(cases(space), count) for space, count in spaces_of(check, subject, dtypes, planned, profile=profile)]


def first_look(spaces: Sequence[CaseSpace]) -> list[int]:
    """The numbers of the classes whose first cases are run before any others: a typical one, and a longer one.

    Of a check with one class it is that number twice, for two cases. The first case of a class is its simplest, in a
    wide dtype where there is one: what differs there is no rounding.
    """

    def merit(number: int) -> tuple[bool, int, bool]:
        space = spaces[number]
        usual = space.min_seq_len <= _LONGEST_OF_A_FIRST_LOOK
        return bool(set(space.dtypes[:1]) & set(WIDE)), usual * space.min_seq_len, "float32" in space.dtypes

    in_order = sorted(range(len(spaces)), key=merit, reverse=True)
    typical = [n for n in in_order if spaces[n].min_heads > 1 and spaces[n].min_batch_size > 1]
    others = [n for n in in_order if n not in typical]
    best = [*typical[:1], *others[:1], *typical[1:], *others[1:]]
    return [*best, *best][:_LOOKS]


def spaces_of(
    check: Check, subject: Pair, dtypes: Sequence[str], planned: int, *, profile: str = ""
) -> list[tuple[CaseSpace, int]]:
    """The spaces of the classes of a check, in their order, each with its number of cases."""
    space = space_of(check, subject, dtypes)
    if profile == SCREEN:
        return screened(check.name, space) if space.dtypes else []
    longest, shortest = space.max_seq_len, space.min_seq_len
    lengths = [
        (max(low, shortest), longest if high == LENGTHS[-1][1] else min(high, longest), share)
        for low, high, share in LENGTHS
        if low <= longest and high >= shortest
    ]
    each = [[dtype] for dtype in space.dtypes]
    # the first case of a class is its simplest: classes of few cases would hold little else
    groups = each if planned >= _FEW * len(each) * len(lengths) else [list(space.dtypes)] if space.dtypes else []
    if check.slow and len(groups) == 1 and planned >= _SLOW_IN_CLASSES:  # processes can share several classes
        wide = [d for d in space.dtypes if d not in HALF]
        groups = [group for group in (wide, *([d] for d in HALF if d in space.dtypes)) if group]
    by_length = [
        (space.but(dtypes=group, min_seq_len=low, max_seq_len=high, pinned=_LENGTH), share)
        for low, high, share in lengths
        for group in groups
    ]
    whole = len(groups) * sum(share for _, _, share in lengths)
    if space.domain is not None:
        by_length, whole = _lengths_inside(space, groups, by_length)
    counted = [(one, max(1, round(planned * share / whole))) for one, share in by_length]
    if check.fine:
        counted += [(space.but(**_PLAIN, dtypes=group), 1) for group in each]
    if check.deep:
        counted += [(space.but(**_TYPICAL, **_DEEP, dtypes=group), 1) for group in each]
    if check.whole:
        wide = [d for d in space.dtypes if d not in HALF] or list(space.dtypes)
        counted += [(space.but(**_TYPICAL, dtypes=wide), 1)] if wide else []
    if subject.kind in check.beyond:
        counted += [(space.but(**beyond, dtypes=group), 1) for beyond in _BEYOND for group in each]
    if {"lengths", "causal lengths"} & space.features:
        # such a function is for a step of decoding, one query and many keys: chance alone would draw few of them
        counted.append((space.but(max_seq_len=1, pinned=_LENGTH), max(1, round(planned * _ONE_QUERY))))
    if space.features:
        counted += _masked(space, max(2, round(planned * _SHAPED)))
    if check.extra_case and not subject.traits.whole_model:  # the first case of a class: its simplest
        counted += [(space.but(**check.extra_case, pinned=_LENGTH, dtypes=[d]), 1) for d in space.dtypes if d in _ONCE]
    return _inside(counted)


def _lengths_inside(
    space: CaseSpace, groups: Sequence[Sequence[str]], by_length: Sequence[tuple[CaseSpace, float]]
) -> tuple[list[tuple[CaseSpace, float]], float]:
    """The classes of lengths that have a case in the domain, with their shares, and the sum of these.

    The share of the others goes to the shortest lengths that are left: long cases cost most. Where no length is left,
    the nearest ones inside are drawn.
    """
    shares: list[tuple[CaseSpace, float]] = []
    for group in groups:
        of_group = [(one, share) for one, share in by_length if one.dtypes == group]
        left = _inside(of_group) or _inside([(space.but(dtypes=group), 1.0)])
        if left:
            spare = max(0.0, sum(share for _, share in of_group) - sum(share for _, share in left))
            shares += [(left[0][0], left[0][1] + spare), *left[1:]]
    return shares, sum(share for _, share in shares)


def _inside(counted: Sequence[tuple[CaseSpace, _N]]) -> list[tuple[CaseSpace, _N]]:
    """The classes that have a case in the domain."""
    return [(one, count) for one, count in counted if one.domain is None or is_possible(one)]


def _masked(space: CaseSpace, count: int) -> Iterator[tuple[CaseSpace, int]]:
    """A class for each shape of masks in which both run, with enough queries, keys and heads to mix them up.

    One more class has additive masks that all heads share: the gradient of a learned one is a sum over heads.
    """
    square = space.features - {"lengths", "causal lengths"}
    mixed = space.but(features=square, min_seq_len=2, max_seq_len=24, min_heads=2)
    for mask in (*MASK_SHAPES.values(), "additive"):
        causal = [c for c in space.is_causal if mask_features(mask, is_causal=c) <= square]
        if causal:
            yield mixed.but(masks=(mask,), is_causal=causal), count


def space_of(check: Check, subject: Pair, dtypes: Sequence[str]) -> CaseSpace:
    """The space of a check's cases, limited to the kind, options and dtypes of the pair."""
    space = check.space.but(dtypes=[d for d in check.space.dtypes if d in dtypes])
    if subject.traits.whole_model:
        if space.n_layers == CaseSpace.n_layers:
            space = space.but(n_layers=(1, 2))
        if space.regimes == CaseSpace.regimes:
            space = space.but(regimes=MODEL_REGIMES)
        if space.min_seq_len <= _LONGEST_OF_A_MODEL:
            space = space.but(max_seq_len=min(space.max_seq_len, _LONGEST_OF_A_MODEL))
        else:  # a check of long sequences keeps its lengths, in small models
            space = space.but(head_sizes=(), max_scores=2**17)
        space = space.but(max_head_size=min(space.max_head_size, 24))
    if subject.traits.function:
        if "scale" in subject.options:
            space = space.but(scales=(None, None, 0.25, 1.0))
        if check.by_features and "is_causal" in subject.options:
            space = space.but(is_causal=(True, False) if subject.features else (True, True, False))
        if check.by_features:
            space = space.but(features=frozenset(subject.features))
    if not subject.domain:
        return space
    space = space.but(domain=subject.domain, dtypes=[d for d in space.dtypes if subject.domain.may_allow({"dtype": d})])
    if subject.features and not space.features and not is_possible(space):
        # a check of plain cases takes others if the original is meant for no plain ones
        space = space.but(features=frozenset(subject.features), is_causal=(True, False))
    return space
