"""Which faults a run of `verify` plants, and around which side of the pair."""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.features import FEATURES
from equivcheck.checks.derivatives import original_has
from equivcheck.checks.refusals import refuses_an_input
from equivcheck.faults import AROUND, FAULTS, Fault
from equivcheck.faults.around.transforms import BAND
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import failure
from equivcheck.report.levels import VALUES

__all__ = ["PlantedFault", "planted", "reference_error"]

_FROM_INSIDE = {
    "screen": 0,
    "quick": 0,
    "gate": 12,
    "thorough": len(FAULTS),
}  # faults of the shipped attention's inside, per profile
_HIDES = 1 / 16  # of a fault's size: an original so far from its own truth allows every candidate twice as much


@dataclass(frozen=True)
class PlantedFault:
    """A pair whose candidate is the reference with one fault, and the checks whose property the fault breaks.

    `without` is the same pair without the fault. A `doubtful` fault may change nothing around this original, which may
    lack an option, a dtype or a transform: probe cases decide that before the fault is planted.
    """

    name: str
    seen_by: tuple[str, ...]
    subject: Pair
    without: Pair
    shows_in: tuple[str, ...] = DTYPES
    doubtful: bool = False
    level: str = VALUES


def planted(
    subject: Pair,
    checks: Set[str],
    profile: str,
    seed: int,
    dtypes: Sequence[str] = DTYPES,
) -> list[PlantedFault]:
    """The faults for this run: those that one of `checks` should see, around the original and inside a known one.

    Four kinds of faults are doubtful: those that rounding hides in all of `dtypes`, those of options that the two sides
    do not share, those under a transform that the original refuses, and those no larger than the original's error.

    Args:
        subject: The pair.
        checks: The names of the run's checks.
        profile: The run's profile: it sets how many faults of the inside there are.
        seed: The run's seed: it chooses the faults of the inside, and the order of all.
        dtypes: The dtypes in which the pair is judged.
    """
    present = _present(subject, checks)
    error = reference_error(subject)
    without = subject.with_candidate(subject.reference, "the original")

    def doubtful(fault: Fault) -> bool:
        return bool(
            (fault.needs and fault.needs not in present)
            or not set(dtypes) & set(fault.shows_in)
            or (fault.size and error > _HIDES * fault.size)
            or (fault.under and not original_has(subject, fault.under))
        )

    faults = [
        PlantedFault(
            fault.name,
            fault.seen_by,
            _with_fault(subject, fault),
            # the original may run any kernel, and take more memory than the candidate is allowed
            subject if fault.of_candidate or fault.seen_by in (("backend",), ("memory",)) else without,
            fault.shows_in,
            doubtful=doubtful(fault),
            level=fault.level,
        )
        for fault in _chosen(subject, checks, profile, seed)
    ]
    random.Random(seed).shuffle(faults)
    return faults


def _chosen(subject: Pair, checks: Set[str], profile: str, seed: int) -> list[Fault]:
    """The faults around originals of this kind, and as many inside the shipped attention as the profile has."""
    around = [fault for fault in AROUND if subject.kind in fault.around]
    inside: list[Fault] = []
    if subject.kind == "module" and subject.reference is CausalSelfAttention:
        outside = {fault.name for fault in around}  # some go wrong in the same way, and have the same name
        inside = [fault for fault in FAULTS if fault.seen_by[0] in checks and fault.name not in outside]
        random.Random(seed).shuffle(inside)
    chosen = [*around, *inside[: _FROM_INSIDE[profile]]]
    return [fault for fault in chosen if fault.seen_by[0] in checks]


def _with_fault(subject: Pair, fault: Fault) -> Pair:
    if fault.of_candidate:
        candidate = fault.put_around(subject.candidate, subject.kind)
        return replace(subject, candidate=candidate, candidate_name=fault.name)
    return subject.with_candidate(fault.put_around(subject.reference, subject.kind), fault.name)


def _present(subject: Pair, checks: Set[str]) -> Set[str]:
    """The needs of faults that the pair meets: options that both sides take, and features in which both run."""
    # a fault in the use of an option does not show around an original that ignores the option
    options = subject.options - subject.ignored_options
    masks = {name for name, (_, fields) in FEATURES.items() if "mask" in fields}
    present = options | (subject.features if "attn_mask" in options else subject.features - masks)
    present |= {"learned mask"} if subject.learns_mask and "attn_mask" in options else set()
    present |= {"refusals"} if "errors" in checks and refuses_an_input(subject, subject.sample) else set()
    present |= {"empty batch"} if "limits" in checks and _takes_an_empty_batch(subject) else set()
    if not subject.domain or any(subject.domain.may_allow({"seq_len": length}) for length in BAND):
        present |= {"a length of the band"}
    return present | ({"scale left out"} if subject.scale_optional and "scale" in options else set())


def _takes_an_empty_batch(subject: Pair) -> bool:
    """Whether the original runs without samples, at a case of which it runs."""
    problem = subject.problem(subject.sample)
    inputs = tuple(x[:0] for x in problem.inputs)  # (0, ...)
    return failure(lambda: problem.run(problem.reference, inputs, gradients=False)) is None


def reference_error(subject: Pair) -> float:
    """The error of the original in float64, as a share of the largest value; 0 if it does not run in float64.

    An original with its softmax in float32 in every dtype has such an error.
    """
    case = subject.sample.but(dtype="float64")
    problem = subject.problem(case)
    try:
        results = problem.run(problem.reference, problem.inputs, gradients=False)
        truth = problem.oracle_values(gradients=False)
    except Exception:
        return 0.0
    errors = (
        float((value.to(truth[name].device) - truth[name]).abs().max()) / max(float(truth[name].abs().max()), 1e-300)
        for name, value in results.items()
        if value is not None
    )
    return max(errors, default=0.0)
