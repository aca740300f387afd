"""The content of a plan: checks with their numbers of cases and classes, dtypes, facts about the pair."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equivcheck.cases.space import CaseSpace
from equivcheck.checks import CHECKS, Check
from equivcheck.engine.covering import chosen
from equivcheck.engine.strata import first_look, spaces_of
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.supported_dtypes import usable_dtypes
from equivcheck.report.catalogue import SCREEN
from equivcheck.report.implementation_files import defined_at, modules_of
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import device_name
from equivcheck.runtime.module_files import made_twice

__all__ = ["dtypes_to_judge", "plan_of", "refuse_unknown_dtypes", "replay_line"]


def refuse_unknown_dtypes(dtypes: Sequence[str]) -> None:
    """Make sure that the pair can be judged in all of these dtypes.

    Raises:
        UsageError: One of them is unknown.
    """
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}: allowed are {', '.join(DTYPES)}")


def dtypes_to_judge(
    pair: Pair, dtypes: Sequence[str], require_backend: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The dtypes in which the pair is judged, and for those that the candidate refuses the reason.

    Args:
        pair: The pair.
        dtypes: The dtypes that are asked for.
        require_backend: The kernels that must run.

    Raises:
        UsageError: A kernel must run in a dtype in which the pair does not.
    """
    usable, refused = usable_dtypes(pair, dtypes)
    needed = {text.partition("=")[0] for text in require_backend if "=" in text}
    if missing := sorted(needed - set(usable)):
        raise UsageError(
            f"--require-backend: the pair does not run in {', '.join(missing)}, so nothing can be judged there"
        )
    return usable, refused


def plan_of(
    pair: Pair,
    root: Path,
    checks: Mapping[str, Check],
    planned: Mapping[str, int],
    dtypes: Sequence[str],
    usable: Sequence[str],
    refused: Mapping[str, str],
    notes: Sequence[str] = (),
    *,
    profile: str,
    rows: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The plan of a run on a pair, as plain data.

    Args:
        pair: The pair.
        root: The folder of the run.
        checks: Name of a check -> the check, for those that are run.
        planned: Name of a check -> its number of cases.
        dtypes: The dtypes that are asked for.
        usable: The dtypes in which the pair is judged.
        refused: Dtype -> the reason why it was left out.
        notes: Facts about the plan for the report.
        profile: The profile of the run.
        rows: Name of a check -> its cases that meet every pair of classes.
    """
    file, line = defined_at(pair.candidate, root) or (None, None)
    sources = {*modules_of(pair.reference), *modules_of(pair.candidate)}
    return {
        "checks": [
            {
                "name": name,
                **_numbers(
                    spaces_of(check, pair, usable, planned[name], profile=profile),
                    planned[name],
                    rows.get(name, {}),
                    screens=profile == SCREEN,
                ),
                "judges": check.judges,
                "slow": check.slow,
                "replay": replay_line(pair, check),
            }
            for name, check in checks.items()
        ],
        "known": [check.name for check in CHECKS],
        "usable": usable,
        "refused": refused,
        "not_run": {
            dtype: refused.get(dtype, "").removeprefix(f"{dtype}: ") or _why_not(pair, dtype)
            for dtype in dtypes
            if dtype not in usable
        },
        "notes": [*pair.notes, *notes, *made_twice(sources)],
        "device_name": device_name(pair.device),
        "environment": environment(pair.device),
        "candidate_file": file,
        "candidate_line": line,
        "options_not_judged": list(pair.reference_alone),
    }


def _numbers(
    spaces: Sequence[tuple[CaseSpace, int]], planned: int, rows: Mapping[str, Any], *, screens: bool
) -> dict[str, Any]:
    """The numbers of cases and of classes of a check, and the class of each case that is run before any others."""
    if screens:  # all of them are
        first = [number for number, (_, count) in enumerate(spaces) for _ in range(count)]
        return {"planned": len(first), "classes": len(spaces), "counts": [n for _, n in spaces], "first": first}
    more = chosen(rows)
    return {
        "planned": planned + sum(count for _, count in more),
        "classes": len(spaces) + len(more),
        "counts": [count for _, count in (*spaces, *more)],
        "first": first_look([space for space, _ in spaces]),
    }


def _why_not(pair: Pair, dtype: str) -> str:
    inside = pair.domain.may_allow({"dtype": dtype})
    return "the original does not run in it" if inside else "it is outside of the domain"


def replay_line(pair: Pair, check: Check) -> str:
    """The command that shows a case of the pair again, with `CASE` where the id of the case belongs."""
    words = " ".join((check.name, *check.options))
    within = f" --domain {shlex.quote(pair.domain.text)}" if pair.domain.can_be_written else ""
    return (
        f"equivcheck replay CASE {shlex.quote(pair.reference_name)} {shlex.quote(pair.candidate_name)} "
        f"--kind {pair.kind} --device {pair.device} --check {words}{pair.adaptation.options}{within}"
    )
