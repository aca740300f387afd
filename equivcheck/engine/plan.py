"""The plan of a run: which checks, and how many cases of each."""

from collections.abc import Iterable, Sequence

from equivcheck.checks import CHECKS, Check
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.report.catalogue import listed, share_of_cases
from equivcheck.report.chosen_checks import chosen_checks, expand_families
from equivcheck.runtime.device import type_of
from equivcheck.runtime.memory_limit import WITHOUT_LIMIT

__all__ = ["estimated_cases", "planned_cases", "require_a_judging_check", "select_checks", "shrink_calls"]

_SHRINK_CALLS = {"screen": 100, "quick": 100, "gate": 200, "thorough": 1000}
_FEWEST_CALLS, _TIMES_PLANNED = 8, 4
_TIMES_ON_AN_ACCELERATOR = 8  # as many times the cases of cheap checks: a GPU has time for them


def select_checks(
    names: Sequence[str] | None, exclude: Iterable[str], kind: str, also: Iterable[str] = ()
) -> list[Check]:
    """The checks of `chosen_checks`, which can be run.

    Raises:
        UsageError: A name is unknown, a check does not apply to the kind, or no check is left.
    """
    known = {check.name: check for check in CHECKS}
    return [known[check.name] for check in chosen_checks(names, exclude, kind, also)]


def require_a_judging_check(
    chosen: Sequence[Check], require_backend: Sequence[str], max_memory_ratio: float | None = None
) -> None:
    """Make sure that some check judges, and that a required kernel and a limit of memory are judged, too.

    Raises:
        UsageError: No check judges, or the check `backend` or `memory` does not run and has to, or has nothing to judge.
    """
    memory = any(check.name == "memory" for check in chosen)
    if max_memory_ratio is not None and not memory:
        raise UsageError("--max-memory-ratio, and the check 'memory' is not among those that run: leave it in")
    if max_memory_ratio is None and memory:
        raise UsageError(WITHOUT_LIMIT)
    if require_backend and all(check.name != "backend" for check in chosen):
        raise UsageError("--require-backend, and the check 'backend' is not among those that run: leave it in")
    if not any(check.judges for check in chosen):
        raise UsageError(
            "the check 'backend' alone judges nothing, it records which kernel runs: say with --require-backend which "
            "one must, or run other checks beside it"
        )


def estimated_cases(names: Sequence[str] | None, profile: str, dtypes: Sequence[str]) -> float:
    """The greatest number of cases of such a run, before anything is known of the pair."""
    chosen = set(expand_families(names or ()))
    counted = [c for c in CHECKS if (c.name in chosen if chosen else not listed(c.name).on_request)]
    return sum(c.cases[profile] for c in counted) * len(dtypes) / len(DTYPES)


def shrink_calls(check: Check, profile: str, planned: int) -> int:
    """How many more cases are run to make a failing one small: few for a check with few cases, as each takes long."""
    return min(_SHRINK_CALLS[profile], max(_FEWEST_CALLS, _TIMES_PLANNED * planned))


def planned_cases(check: Check, *, subject: Pair, profile: str, dtypes: int) -> int:
    """The number of cases of this check in a run that asks for `dtypes` dtypes.

    The profile `gate` has more cases of the checks that are cheap on an accelerator. The number of processes changes
    nothing.
    """
    most = check.cases[profile]
    if profile == "gate" and type_of(subject.device).accelerator and check.more_on_gpu:
        most *= _TIMES_ON_AN_ACCELERATOR
    # a part of the dtypes gets its share of the cases, and no fewer than it takes to see a fault of each feature
    return share_of_cases(most, dtypes, features=len(subject.features))
