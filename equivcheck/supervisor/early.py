"""The death of a process before any case: the candidate's is a difference; after another nothing can be judged."""

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
    """The result of the first check if the process died while the candidate was built or called.

    Args:
        lost: The death.
        reference: The import string of the original.
        candidate: The import string of the candidate.
        kind: The kind of the pair, as far as it is known.
        device: The device on which it runs.
        check: The check that was asked for, if one was.

    Raises:
        UsageError: It died while a side was imported, or in code of the original.
    """
    death = lost.death
    if death.importing:
        side = candidate if death.place.side == "candidate" else reference
        raise UsageError(
            f"cannot import {side.rpartition(':')[0]!r}, the {death.place.side}'s: it {death.description} "
            "while it was imported; nothing could be judged"
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
