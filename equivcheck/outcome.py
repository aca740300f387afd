"""What came of one check's search, as a CheckResult: the worst that was measured, the counterexample, and what was visited."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from equivcheck.cases import Case
from equivcheck.report.model import CheckResult, Counterexample
from equivcheck.search import Search

__all__ = ["result_of"]


def result_of(search: Search, refused: Mapping[str, str], seconds: float) -> CheckResult:
    """The result of a search that has ended, or was interrupted; `refused` tells of each dtype that was left out."""
    measured = [(held.ratio, case, held.where) for case, held in search.held.items() if held.ratio is not None]
    worst = max(measured, key=lambda m: m[0], default=None)
    notes = Counter(note for held in search.held.values() for note in held.notes)
    refusals = Counter(what for held in search.held.values() for what in held.unsupported)
    common: dict[str, Any] = {
        "cases": len(search.held) + len(search.failed),
        "seconds": seconds,
        "notes": tuple(f"{note} ({count} cases)" for note, count in notes.most_common()),
        "unsupported": (*refused.values(), *(f"{what} ({count} cases)" for what, count in refusals.most_common())),
        "visited": _visited((*search.held, *search.failed)),
        "detail": f"out of time after {len(search.held)} of {search.planned} cases" if search.stopped else "",
    }
    if search.minimal is not None:
        mismatch = search.failed[search.minimal]
        return CheckResult(
            search.check.name,
            "different",
            worst_ratio=mismatch.ratio,
            worst_case=search.minimal.id,
            worst_where=mismatch.where,
            counterexample=Counterexample(
                search.minimal.id, str(mismatch), _replay_line(search, search.minimal), mismatch.ratio
            ),
            **common,
        )
    return CheckResult(
        search.check.name,
        "unsupported" if refusals else "equivalent",
        worst_ratio=worst[0] if worst else None,
        worst_case=worst[1].id if worst else None,
        worst_where=worst[2] if worst else None,
        **common,
    )


def _replay_line(search: Search, case: Case) -> str:
    s = search.subject
    return (
        f"equivcheck replay {case.id} {shlex.quote(s.reference_name)} {shlex.quote(s.candidate_name)} --kind {s.kind} "
        f"--device {s.device} --check {search.check.name}"
    )


def _visited(seen: Iterable[Case]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {name: Counter() for name in ("dtype", "regime", "mode", "layout", "length")}
    for case in seen:
        found["dtype"][case.dtype] += 1
        found["regime"][case.regime] += 1
        found["mode"]["train" if case.training else "eval"] += 1
        found["layout"][case.layout] += 1
        length = next(edge for edge in (1, 16, 64, 128, 256, 10**9) if case.seq_len <= edge)
        found["length"]["longer" if length == 10**9 else f"up to {length}"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}
