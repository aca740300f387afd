"""The end of a process before any case was run: a candidate's is a difference, all else says that nothing could be judged."""

import math
import shlex

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import main_check
from equivcheck.report.model import CheckResult, Counterexample
from equivcheck.supervisor.deaths import Lost

__all__ = ["death_result"]


def death_result(
    lost: Lost, reference: str, candidate: str, *, kind: str, device: str, check: str | None = None
) -> CheckResult:
    """The result of the first check where the candidate's process died of being built or called.

    Args:
        lost: The death.
        reference: The original's import string.
        candidate: The candidate's.
        kind: The pair's kind, as far as it is known.
        device: Where it runs.
        check: The check that was asked for, if one was.

    Raises:
        UsageError: It was being imported, or it was not the candidate.
    """
    death = lost.death
    if death.importing:
        side = candidate if death.place.side == "candidate" else reference
        raise UsageError(
            f"cannot import {side.rpartition(':')[0]!r}, the {death.place.side}'s: it {death.description} while it was imported; "
            "nothing could be judged"
        )
    if death.side != "candidate":
        who = "the original" if death.side == "reference" else "equivcheck's own run of the original"
        where = death.place.case or "its first case"
        raise UsageError(f"{reference} could not be judged: {who} {lost.description}, on {where}; run it by itself")
    kind = death.place.kind or kind
    case, name = death.place.case, check or main_check(kind)
    options = "" if kind in ("", "auto") else f" --kind {kind}"
    pair = f"{shlex.quote(reference)} {shlex.quote(candidate)}"
    replay = f"equivcheck replay {case} {pair}{options} --device {device} --check {name}"
    return CheckResult(
        name,
        "different",
        1,
        worst_ratio=math.inf,
        worst_case=case,
        worst_where="the process",
        counterexample=Counterexample(case, f"the candidate {lost.description}", replay, math.inf),
    )
