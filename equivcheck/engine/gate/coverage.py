"""Whether a report judged enough: its profile, dtypes and checks, the cases of a check, and what these meet."""

import math
from collections.abc import Iterator, Mapping, Sequence

from equivcheck.engine.gate.sources import AGAIN
from equivcheck.report.catalogue import CATALOGUE, PROFILES, Listed, least_cases, listed
from equivcheck.report.coverage import share, smallest
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.outcomes import DTYPES, OUTSIDE

__all__ = [
    "dtypes_missing",
    "profile_too_small",
    "required_checks",
    "too_few_cases",
    "too_little_met",
    "without_cases",
    "without_judgement",
]

_ROUNDED = 1000  # a share in a message is rounded down to a whole number of such parts
_SHARE = 2  # one in so many of the planned cases has to be there: a case that is drawn twice counts once


def profile_too_small(report: Report, least: str) -> Iterator[str]:
    """The reason to refuse a report of a smaller profile than `least`."""
    known = report.profile in PROFILES
    if not known or PROFILES.index(report.profile) < PROFILES.index(least):
        allow = f", or allow it with --min-profile {report.profile}" if known else ""
        yield f"profile {report.profile} where {least} is required; run with --profile {least}{allow}"


def dtypes_missing(report: Report, required: Sequence[str] | None) -> Iterator[str]:
    """The required dtypes in which nothing was judged.

    By default all dtypes are required in which the original runs and that the candidate does not refuse as a whole.
    """
    for dtype in required or DTYPES:
        why = report.dtypes_not_run.get(dtype)
        if dtype in report.dtypes or (why is not None and required is None):
            continue
        reason = f" ({why})" if why else ""
        allow = ",".join(report.dtypes) or "DTYPE"
        yield (
            f"dtype {dtype} is required and was not judged{reason}; {AGAIN} with it, "
            f"or allow it with --require-dtypes {allow}"
        )


def required_checks(report: Report, named: Sequence[str], exclude: Sequence[str]) -> list[Listed]:
    """The checks that a report must have: the named ones, else all that apply to its kind, without a request."""
    if named:
        return [listed(name) for name in named]
    return [c for c in CATALOGUE if report.kind in c.kinds and c.name not in exclude and not c.on_request]


def without_cases(report: Report) -> list[str]:
    """The checks that were left out because no case of theirs is in the domain."""
    notes = report.results[0].notes if report.domain and report.results else ()
    texts = [note.removeprefix(OUTSIDE) for note in notes if note.startswith(OUTSIDE)]
    return [name for text in texts for name in text.split(", ")]


def too_few_cases(report: Report, checks: Sequence[Listed], dtypes: Sequence[str] | None) -> Iterator[str]:
    """The required checks that were not run, or without a reason on fewer than half of the planned cases."""
    results = {result.name: result for result in report.results}
    for check in checks:
        result = results.get(check.name)
        if result is None and check.name in without_cases(report):
            continue  # the note on the domain says so
        if result is None:
            yield (
                f"check {check.name} is required and was not run; {AGAIN} with it, "
                "or list it under exclude in [tool.equivcheck]"
            )
        elif result.cases < (least := _floor(report, check)) and not _excused(report, check, result, dtypes):
            cases = "case" if result.cases == 1 else "cases"
            yield (
                f"check {check.name} ran on {result.cases} {cases}, where {least} is the least; {AGAIN}, and let it end"
            )


def too_little_met(report: Report, least: Mapping[str, float]) -> Iterator[str]:
    """The reasons to refuse a report of whose pairs or triples of classes a smaller share is met than is asked for."""
    for strength, asked in least.items():
        if (counted := smallest(report, strength)) is None:
            yield f"no {strength} of classes are counted, and --min-coverage asks for them; {AGAIN} with --profile gate"
            continue
        check, of = counted
        if share(of) >= asked:
            continue
        larger = " with --profile thorough" if report.profile == "gate" else ""
        met = math.floor(share(of) * _ROUNDED) / _ROUNDED
        allow = f", or allow it with {strength}={met:g} in --min-coverage" if met else ""
        yield (
            f"{strength} of classes: {of.met} of {of.of} are met in {check}, and --min-coverage asks for a share of "
            f"{asked:g}; {AGAIN}{larger}{allow}"
        )


def without_judgement(report: Report, checks: Sequence[Listed]) -> Iterator[str]:
    """The required checks that judged nothing, each with its reason."""
    results = {result.name: result for result in report.results}
    for check in checks:
        result = results.get(check.name)
        if result is not None and result.outcome == "unsupported" and not result.cases:
            yield f"check {check.name} judged nothing: {'; '.join(result.unsupported) or result.detail}"
        elif result is not None and result.outcome in ("not judged", "not applicable"):
            yield f"check {check.name} is {result.outcome}: {'; '.join(result.notes) or result.detail}"


def _floor(report: Report, check: Listed) -> int:
    if report.profile not in PROFILES:
        return 1
    asked = len(report.dtypes) + len(report.dtypes_not_run)
    return max(1, least_cases(check, report.profile, asked) // _SHARE)


def _excused(report: Report, check: Listed, result: CheckResult, dtypes: Sequence[str] | None) -> bool:
    """Whether few cases have a reason: the check stopped at a difference, or no dtype of it runs on both sides."""
    if result.outcome in ("different", "deviation"):
        return True
    if result.shortened and all(report.levels[level] == "different" for level in result.levels):
        return True  # the rest of its cases was left, and what is held against these levels is that they are different
    drawn = [dtype for dtype in check.dtypes if dtype in (dtypes or DTYPES)]
    return all(dtype in report.dtypes_not_run for dtype in drawn)
