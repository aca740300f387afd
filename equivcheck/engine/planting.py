"""Which faults a run of `verify` plants, and how they are put around the reference of each kind."""

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equivcheck.cases.features import FEATURES
from equivcheck.checks.derivatives import original_has
from equivcheck.faults import FAULTS, PLANTS, REPLACEMENTS
from equivcheck.faults.around.function import FUNCTIONS, around_function
from equivcheck.faults.around.model import MODELS, around_model
from equivcheck.faults.around.module_contract import MODULES, around_module
from equivcheck.faults.around.transforms import CHANGES, around_last_part, around_output, around_result
from equivcheck.numerics.dtypes import DTYPES, HALF
from equivcheck.pairs.pair import Pair

__all__ = ["PlantedFault", "below_reference_error", "planted"]

_FROM_INSIDE = {
    "quick": 0,
    "gate": 12,
    "thorough": len(FAULTS),
}  # faults of the shipped attention's inside, per profile
_INSIDE = (  # a plant, the check of a whole GPT that should see it there, and the name it has then
    ("quarter-of-the-channels-negated", "logits", "in-a-gpt"),
    ("last-token-two-percent-off", "logits", "in-a-gpt"),
    ("first-weight-gradient-halved", "logits", "in-a-gpt"),
    ("first-weight-gradient-halved", "training", "in-training"),
    ("outputs-negated", "generation", "when-generating"),
)
_WIDE = ("float32", "float64")
_SHOWS_IN = {  # what rounding hides, or what is right, in the other dtypes
    "outputs-scaled-by-one-in-65536": _WIDE,
    "logits-scaled-by-one-in-65536": _WIDE,
    "outputs-through-float32": ("float64",),
    "logits-through-float32": ("float64",),
    "half-precision-wrong": ("float16",),  # ten per cent, which bfloat16 shows in some cases only
    "last-token-two-percent-off": _WIDE,
    "tokens-past-64-off": (*_WIDE, "float16"),
    "tokens-past-16-off": (*_WIDE, "float16"),
    "tokens-past-1024-off": ("float32",),
    "last-token-two-percent-off-in-a-gpt": _WIDE,
    "input-gradient-one-percent-off": _WIDE,
    "gradient-of-q-one-percent-off": _WIDE,
    "scale-ignored": (*_WIDE, "float16"),
    "state-kept-between-calls": _WIDE,
    "outputs-negated-when-generating": (*_WIDE, "float16"),
    "logits-negated-when-generating": (*_WIDE, "float16"),
    "second-weight-gradient-one-percent-off": _WIDE,
    "batch-of-one-off": (*_WIDE, "float16"),
    "outputs-one-unit-toward-zero": HALF,
    "one-unit-toward-zero": HALF,
}
_NEEDS = {  # an option that both functions take, or a feature in which both run
    "mask-ignored": "boolean",
    "boolean-mask-inverted": "boolean",
    "mask-of-the-first-head-for-all": "mask by heads",
    "gradient-of-an-additive-mask-lost": "learned mask",
    "grouped-heads-tiled": "heads",
    "keys-past-the-queries-ignored": "lengths",
    "causal-mask-at-the-other-corner": "causal lengths",
    "scale-ignored": "scale",
    "scale-left-out-is-one": "scale left out",
    "dropout-ignored": "dropout_p",
    "dropout-left-on": "dropout_p",
    "mask-shared-over-the-batch": "dropout_p",
}
_UNDER = {  # a transform: where the original itself has none, nothing is compared, and nothing can be noticed
    "second-derivative-lost": "second derivatives",
    "tangent-one-percent-off": "torch.func.jvp",
    "mapped-one-percent-off": "torch.func.vmap",
}


_SIZES = {  # of faults that are as large in float64 as in other dtypes, in shares of a value
    "outputs-through-float32": 2.0**-25,
    "logits-through-float32": 2.0**-25,
    "outputs-scaled-by-one-in-65536": 2.0**-16,
    "logits-scaled-by-one-in-65536": 2.0**-16,
}
_HIDES = 1 / 16  # of a fault's size: an original so far from its own truth allows every candidate twice as much


@dataclass(frozen=True)
class PlantedFault:
    """A pair whose candidate is the reference with one fault, and the checks whose property the fault breaks.

    `without` is the same pair without the fault. A `doubtful` fault may change nothing around this original, for lack of an
    option, of a dtype or of a transform: that is looked at before it is planted.
    """

    name: str
    seen_by: tuple[str, ...]
    subject: Pair
    without: Pair
    shows_in: tuple[str, ...] = DTYPES
    doubtful: bool = False


def planted(
    subject: Pair,
    checks: Set[str],
    profile: str,
    seed: int,
    dtypes: Sequence[str] = DTYPES,
) -> list[PlantedFault]:
    """The faults for this run: those that one of `checks` should see, from outside and, where it is known, from inside.

    Doubtful are those that rounding hides in all of `dtypes`, those of options that the two do not share, those under a
    transform that the original itself refuses, and those no larger than what the original itself errs by.
    """
    there: Set[str] = frozenset(_NEEDS.values())
    wrong: list[tuple[str, tuple[str, ...], Callable[..., Any]]]
    if subject.traits.faults_around == "function":
        # a fault in what is done with an option shows around no original that does nothing with it
        felt = subject.options - subject.unfelt
        masks = {name for name, (_, fields) in FEATURES.items() if "mask" in fields}
        there = felt | (subject.features if "attn_mask" in felt else subject.features - masks)
        there |= {"learned mask"} if subject.learns_mask and "attn_mask" in felt else set()
        there |= {"scale left out"} if subject.scale_optional and "scale" in felt else set()
        wrong = [(name, seen, partial(around_function, subject.reference, plant)) for name, seen, plant in FUNCTIONS]
        wrong += [(n, seen, partial(around_result, subject.reference, make())) for n, (seen, make) in CHANGES.items()]
    elif subject.traits.faults_around == "model":
        wrong = [(name, seen, partial(around_model, subject.reference, plant)) for name, seen, plant in MODELS]
        wrong += [
            (name, seen, partial(around_last_part, subject.reference, make))
            for name, (seen, make) in CHANGES.items()
            if seen[0] != "layouts"  # of a model only ids have a layout
        ]
    else:
        wrong = [(p.name, p.seen_by, p.plant(subject.reference)) for p in PLANTS]
        wrong += [(name, seen, partial(around_module, subject.reference, plant)) for name, seen, plant in MODULES]
        wrong += [(n, seen, partial(around_output, subject.reference, make)) for n, (seen, make) in CHANGES.items()]
        plants = {p.name: p.plant for p in PLANTS}
        wrong += [(f"{name}-{where}", (check,), plants[name](subject.reference)) for name, check, where in _INSIDE]
        if _is_the_shipped_one(subject):
            outside = {name for name, _, _ in wrong}  # some go wrong in the same way, and have the same name
            inside = [f for f in FAULTS if f.seen_by[0] in checks and f.name not in outside]
            random.Random(seed).shuffle(inside)
            wrong += [(f.name, f.seen_by, f.attention) for f in inside[: _FROM_INSIDE[profile]]]
    hidden = below_reference_error(subject)
    without = subject.with_candidate(subject.reference, "the original")

    def doubtful(name: str) -> bool:
        return (
            _NEEDS.get(name, name) not in {*there, name}
            or not set(dtypes) & set(_SHOWS_IN.get(name, DTYPES))
            or name in hidden
            or (name in _UNDER and not original_has(subject, _UNDER[name]))
        )

    found = [
        PlantedFault(
            name,
            seen,
            subject.with_candidate(factory, name),
            subject if seen == ("backend",) else without,  # whether an original runs a kernel is not asked
            _SHOWS_IN.get(name, DTYPES),
            doubtful=doubtful(name),
        )
        for name, seen, factory in wrong
        if seen[0] in checks
    ]
    if subject.traits.replaces:  # around the user's own replacement: what it should reach is not known otherwise
        found += [
            PlantedFault(
                f.name,
                f.seen_by,
                replace(subject, candidate=f.around(subject.candidate), candidate_name=f.name),
                subject,
            )
            for f in REPLACEMENTS
            if f.seen_by[0] in checks
        ]
    random.Random(seed).shuffle(found)
    return found


def below_reference_error(subject: Pair) -> list[str]:
    """The faults that are no larger than what the original does itself, as one whose softmax is in float32 in every dtype."""
    case = subject.traits.sample.but(dtype="float64")
    problem = subject.problem(case)
    try:
        own = problem.run(problem.reference, problem.inputs, gradients=False)
        truth = problem.oracle_values(gradients=False)
    except Exception:
        return []
    errors = (
        float((value.to(truth[name].device) - truth[name]).abs().max()) / max(float(truth[name].abs().max()), 1e-300)
        for name, value in own.items()
        if value is not None
    )
    worst = max(errors, default=0.0)
    its = "logits" if subject.traits.whole_model else "outputs"
    return [name for name, size in _SIZES.items() if name.startswith(its) and worst > _HIDES * size]


def _is_the_shipped_one(subject: Pair) -> bool:
    from equivcheck.attention import CausalSelfAttention

    return subject.reference is CausalSelfAttention
