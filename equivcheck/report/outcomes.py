"""The result of a check, which is made of the outcomes of its cases."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from equivcheck.errors import Raised
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.case_outcomes import CaseOutcome, Searched
from equivcheck.report.catalogue import is_listed, level_at, listed
from equivcheck.report.levels import TRAINING
from equivcheck.report.model import GRADIENT, CheckResult, Counterexample, Finding, Outcome

__all__ = [
    "DTYPES",
    "OUTSIDE",
    "REFUSES",
    "CaseOutcome",
    "Searched",
    "can_be_explained",
    "check_result",
    "kernels_by_dtype",
    "levels_with",
    "not_refuted",
]

ORIGINAL_RAISES = "original-raises"
"""The usual reason why nothing is compared in a case."""

OUTSIDE = "not run, as the domain has no case for them: "
REFUSES = "not judged where the original itself raises "
_DIMENSIONS = ("dtype", "regime", "mode", "layout", "length")
_PAIRED = ("dtype", "regime", "mode", "length")  # a difference can hide where two of these meet


def check_result(
    name: str,
    searched: Searched,
    *,
    planned: int,
    judges: bool,
    replay: str,
    refused: Mapping[str, str],
    further: Sequence[Searched] = (),
) -> CheckResult:
    """The result of a check of which all cases, or some of them, have been run.

    Args:
        name: The name of the check.
        searched: Its cases.
        planned: The number of cases that were planned.
        judges: Whether the check judges; False if it only records.
        replay: The command that shows a case again, with `CASE` in the place of its id.
        refused: Dtype -> why it was left out.
        further: The cases of further rounds, in which the findings of earlier ones are passed over.
    """
    outside = [outcome for outcome in searched.passed.values() if outcome.outside]
    passed = [outcome for outcome in searched.passed.values() if not outcome.outside] or outside
    measured = [(outcome.ratio, outcome) for outcome in passed if outcome.ratio is not None]
    worst = max(measured, key=lambda m: m[0], default=None)
    notes = Counter(note for outcome in passed for note in outcome.notes)
    refusals = Counter(what for outcome in passed for what in outcome.unsupported)
    detail = f"out of time after {len(passed)} of {planned} cases" if searched.stopped else ""
    nothing = bool(passed) and not searched.failed and judges and not refusals and not any(o.judged for o in passed)
    not_judged = Counter(
        o.reason or ORIGINAL_RAISES for o in passed if judges and not o.judged and o.applies and not o.unsupported
    )
    common: dict[str, Any] = {
        "cases": len(passed) + len(searched.failed),
        "seconds": searched.seconds,
        "notes": (*(f"{note} ({count} cases)" for note, count in notes.most_common()), *_refused(outside, passed)),
        "unsupported": (*refused.values(), *(f"{what} ({count} cases)" for what, count in refusals.most_common())),
        "visited": _visited((*passed, *searched.failed.values())),
        "by_dtype": _by_dtype((*passed, *searched.failed.values())),
        "detail": detail,
        "not_judged": dict(not_judged.most_common()),
    }
    if searched.minimal is None:
        outcome: Outcome = "equivalent"
        if refusals:
            outcome = "unsupported"
        elif nothing:
            outcome = "not judged" if not_judged else "not applicable"
        return CheckResult(
            name,
            outcome,
            worst_ratio=worst[0] if worst else None,
            worst_case=worst[1].case if worst else None,
            worst_where=worst[1].where if worst else None,
            **common,
        )
    findings = tuple(_finding(name, one, replay) for one in (searched, *further) if one.minimal is not None)
    smallest = searched.failed[searched.minimal]
    return CheckResult(
        name,
        "different",
        worst_ratio=smallest.ratio,
        worst_case=smallest.case,
        worst_where=smallest.where,
        counterexample=findings[0].counterexample,
        findings=findings,
        levels=levels_with(name, findings),
        **common,
    )


def can_be_explained(check: str, outcome: CaseOutcome) -> bool:
    """Whether the failure of a case can have a cause, a region or a place: numbers, an exception, or how it is trained."""
    numbers = bool(outcome.spot.get("tensor")) or outcome.origin.startswith(Raised.__name__)
    return not outcome.died and (numbers or level_at(check, outcome.finding) == TRAINING)


def not_refuted(result: CheckResult) -> CheckResult:
    """The result of a check in a screen or a shard: where it is equivalent elsewhere, these have refuted nothing."""
    levels = {level: "not refuted" if outcome == "equivalent" else outcome for level, outcome in result.levels.items()}
    outcome: Outcome = "not refuted" if result.outcome == "equivalent" else result.outcome
    return replace(result, outcome=outcome, levels=levels)


def _finding(check: str, searched: Searched, replay: str) -> Finding:
    """The finding of one round, with its smallest case."""
    assert searched.minimal is not None, "the round has failed"
    smallest = searched.failed[searched.minimal]
    known = searched.diagnosis
    message = "\n  ".join([*known.first_lines, str(smallest.failed), *known.last_lines])
    level = searched.level or level_at(check, smallest.finding)
    example = Counterexample(
        smallest.case,
        message,
        replay.replace("CASE", smallest.case),
        smallest.ratio,
        stage=_stage(smallest),
        diagnosis=searched.diagnosis,
        **{**smallest.spot, **{name: tuple(smallest.spot.get(name, ())) for name in ("index", "row")}},
    )
    return Finding(smallest.finding, level, "different", example)


def _stage(outcome: CaseOutcome) -> str:
    """The stage at which a case differs: `process`, `exception`, `forward` or `backward`; empty for another property."""
    if outcome.died:
        return "process"
    if outcome.origin.startswith(Raised.__name__):
        return "exception"
    tensor = str(outcome.spot.get("tensor", ""))
    return "" if not tensor else "backward" if tensor.startswith(GRADIENT) else "forward"


def levels_with(check: str, findings: Sequence[Finding]) -> dict[str, str]:
    """The outcome at each level of a check that has findings.

    The main level is equivalent if no finding is at it. Nothing is known of the other levels of a check that ended at
    its main finding, which cannot be passed over, nor of the level that a finding would have if an ordinary call did
    not show it as well.
    """
    levels: dict[str, str] = {}
    for finding in findings:
        if finding.level and levels.get(finding.level) != "different":
            levels[finding.level] = finding.outcome
    if not is_listed(check):
        return levels
    known = listed(check)
    if any(not finding.name for finding in findings):
        unknown = set(known.levels)
    else:
        unknown = {known.level_of(f.name) for f in findings if f.level != known.level_of(f.name)}
    for level in known.levels:
        if level in unknown:
            levels.setdefault(level, "not judged")
    if known.level:
        levels.setdefault(known.level, "equivalent")
    return levels


def _refused(outside: Sequence[CaseOutcome], passed: Sequence[CaseOutcome]) -> list[str]:
    """A note on the cases that the original refuses and in whose place others were drawn; empty if there are none."""
    if not outside or outside == passed:
        return []
    first = min(outside, key=lambda outcome: len(outcome.case))
    why = first.notes[0].removeprefix(REFUSES) if first.notes else "an exception"
    return [f"the original refuses {len(outside)} drawn cases, and others were drawn; first: {why} on {first.case}"]


def kernels_by_dtype(backend: Searched | None) -> dict[str, str]:
    """The kernels that ran, by dtype: the data of the cases of the check `backend`; empty if that has not run."""
    passed = backend.passed.values() if backend is not None else ()
    counts = Counter(item for outcome in passed for item in outcome.data.items())
    return dict(item for item, _ in counts.most_common())


def _by_dtype(outcomes: Iterable[CaseOutcome]) -> dict[str, float]:
    """The worst ratio in each dtype, of cases that failed too; a ratio that is not a number is the worst there is."""
    worst: dict[str, float] = {}
    for outcome in outcomes:
        dtype = outcome.visited.get("dtype")
        if outcome.ratio is not None and dtype is not None:
            ratio = math.inf if math.isnan(outcome.ratio) else outcome.ratio
            worst[dtype] = max(worst.get(dtype, 0.0), ratio)
    return dict(sorted(worst.items()))


def _visited(outcomes: Iterable[CaseOutcome]) -> dict[str, dict[str, int]]:
    """The number of cases with each value of each dimension, and with each pair of values of two of `_PAIRED`."""
    visited: dict[str, Counter[str]] = {name: Counter() for name in _DIMENSIONS}
    visited |= {" × ".join(pair): Counter() for pair in combinations(_PAIRED, 2)}
    for outcome in outcomes:
        values = outcome.visited
        if not values:
            continue
        for dimension in _DIMENSIONS:
            visited[dimension][values[dimension]] += 1
        for a, b in combinations(_PAIRED, 2):
            visited[f"{a} × {b}"][f"{values[a]} × {values[b]}"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in visited.items()}
