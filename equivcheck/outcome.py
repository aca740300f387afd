"""What came of one check's search, as a CheckResult: the worst that was measured, the counterexample, and what was visited."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from equivcheck.cases import DTYPES, Case
from equivcheck.comparison import Mismatch
from equivcheck.report.model import CheckResult, Counterexample
from equivcheck.search import Search

__all__ = ["NOTHING_JUDGED", "kernels_told", "result_of"]

NOTHING_JUDGED = "nothing was judged: the check has nothing to say on this pair"
_PAIRED = ("dtype", "regime", "mode", "length")  # a difference can hide where two of these meet


def result_of(search: Search, refused: Mapping[str, str], seconds: float) -> CheckResult:
    """The result of a search that has ended, or was interrupted; `refused` tells of each dtype that was left out."""
    measured = [(held.ratio, case, held.where) for case, held in search.held.items() if held.ratio is not None]
    worst = max(measured, key=lambda m: m[0], default=None)
    notes = Counter(note for held in search.held.values() for note in held.notes)
    refusals = Counter(what for held in search.held.values() for what in held.unsupported)
    detail = f"out of time after {len(search.held)} of {search.planned} cases" if search.stopped else ""
    silent = search.check.judges and not refusals and not any(held.judged for held in search.held.values())
    if search.held and not search.failed and silent:
        detail = detail or NOTHING_JUDGED
    common: dict[str, Any] = {
        "cases": len(search.held) + len(search.failed),
        "seconds": seconds,
        "notes": tuple(f"{note} ({count} cases)" for note, count in notes.most_common()),
        "unsupported": (*refused.values(), *(f"{what} ({count} cases)" for what, count in refusals.most_common())),
        "visited": _visited((*search.held, *search.failed)),
        "by_dtype": _by_dtype(search),
        "detail": detail,
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
                search.minimal.id, _message(search, mismatch), _replay_line(search, search.minimal), mismatch.ratio
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


def _message(search: Search, mismatch: Mismatch) -> str:
    return f"{mismatch}\n  {search.explained}" if search.explained else str(mismatch)


def kernels_told(results: Iterable[CheckResult]) -> dict[str, str]:
    """Which kernels ran, by dtype: what the check `backend` notes in the form "dtype: which kernel, and where"."""
    told = (note for result in results if result.name == "backend" for note in result.notes)
    found = (re.fullmatch(r"(\w+): (.*?)(?: \(\d+ cases\))?", note) for note in told)
    return {match[1]: match[2] for match in found if match and match[1] in DTYPES}


def _replay_line(search: Search, case: Case) -> str:
    s = search.subject
    return (
        f"equivcheck replay {case.id} {shlex.quote(s.reference_name)} {shlex.quote(s.candidate_name)} --kind {s.kind} "
        f"--device {s.device} --check {' '.join((search.check.name, *search.check.options))}{s.adaptation.options}"
    )


def _by_dtype(search: Search) -> dict[str, float]:
    """The worst ratio in each dtype, of cases that failed too; a ratio that is not a number is the worst there is."""
    found: dict[str, float] = {}
    measured = [(case.dtype, held.ratio) for case, held in search.held.items() if held.ratio is not None]
    measured += [(case.dtype, mismatch.ratio) for case, mismatch in search.failed.items()]
    for dtype, ratio in measured:
        found[dtype] = max(found.get(dtype, 0.0), math.inf if math.isnan(ratio) else ratio)
    return dict(sorted(found.items()))


def _visited(seen: Iterable[Case]) -> dict[str, dict[str, int]]:
    """How many cases had each value of each dimension, and each pair of values of two of `_PAIRED`."""
    found: dict[str, Counter[str]] = {name: Counter() for name in ("dtype", "regime", "mode", "layout", "length")}
    found |= {" × ".join(pair): Counter() for pair in combinations(_PAIRED, 2)}
    for case in seen:
        length = next(edge for edge in (1, 16, 64, 128, 256, 10**9) if case.seq_len <= edge)
        values = {
            "dtype": case.dtype,
            "regime": case.regime,
            "mode": "train" if case.training else "eval",
            "layout": case.layout,
            "length": "longer" if length == 10**9 else f"up to {length}",
        }
        for dimension, value in values.items():
            found[dimension][value] += 1
        for a, b in combinations(_PAIRED, 2):
            found[f"{a} × {b}"][f"{values[a]} × {values[b]}"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}
