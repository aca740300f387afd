"""Workers without a pair: a table says what each case shows, so that a run takes no time."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from equivcheck.report.case_outcomes import CaseOutcome, Searched
from equivcheck.report.catalogue import round_of
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.provenance import digests
from equivcheck.report.time_spent import TimeSpent
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.run import Run
from equivcheck.supervisor.workers_interface import OnCase

WANTED = range(6)
STRENGTHS = {"pairs": (0, 3), "triples": (4,)}


@dataclass(frozen=True)
class Table:
    """What the cases of a run show.

    Attributes:
        classes: Name of a check -> its classes, each a list of cases. A case is `passes`, `nothing` (not judged), or a
            finding of the check, of which the main one is empty.
        faults: Name of a fault -> the check and the number of a case, by chance one that there is not, that shows it.
        left_out: Faults that too few cases would show.
        without_effect: Faults that change nothing.
    """

    classes: Mapping[str, Sequence[Sequence[str]]]
    faults: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    without_effect: frozenset[str] = frozenset()


def case_of(check: str, number: int, at: int) -> str:
    return f"{check}-{number}-{at}"


class StubWorkers:
    """The answers of workers that run a pair, made of a table."""

    sealed = True

    def __init__(self, table: Table, sha: str = "0" * 64) -> None:
        self.table, self.sha = table, sha
        self.gaps: list[str] = []
        self._on_case: OnCase = lambda check, outcome: None
        self._ran: Mapping[str, Mapping[str, Any]] = {}

    def time_spent(self) -> TimeSpent:
        return TimeSpent()

    def open(self) -> Mapping[str, Any]:
        return {"kind": "module", "device": "cpu", "reference": "a:A", "candidate": "b:B"}

    def answer(self, name: str, **arguments: Any) -> Any:
        return getattr(self, f"_answer_{name}")(**arguments)

    def _answer_plan(self, **_: Any) -> dict[str, Any]:
        checks = [
            {
                "name": name,
                "planned": sum(map(len, classes)),
                "classes": len(classes),
                "counts": list(map(len, classes)),
                "first": [number for number in (1, 0) if number < len(classes)],
                "judges": True,
                "slow": name in ("training", "long"),
                "replay": f"replay CASE --check {name}",
            }
            for name, classes in self.table.classes.items()
        ]
        return {
            "checks": checks,
            "usable": ["float32"],
            "refused": {"float16": "float16: no"},
            "not_run": {},
            "notes": ["a note on the plan"],
            "apart": ["a note that the original needs the candidate"],
            "rows": {name: {"outside": []} for name in self.table.classes},
            "drawn_from": "",
            "domain": "",
            "options_not_judged": [],
            "environment": {"torch": "2"},
            **self._answer_cover(),
        }

    def _answer_cover(self, **_: Any) -> dict[str, Any]:
        files = {"candidate": {"b.py": self.sha}}
        return {"files": files, "sources": digests(files), "packages": {}, "not_covered": []}

    def _met(self, cases: Sequence[str], strength: str) -> set[int]:
        return {(sum(map(ord, case)) * 7 + of) % 9 for case in cases for of in STRENGTHS[strength]} & set(WANTED)

    def _answer_coverage(self, cases: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        return {
            name: {strength: self._counts(len(self._met(ids, strength))) for strength in STRENGTHS}
            for name, ids in cases.items()
        }

    def _counts(self, met: int) -> dict[str, Any]:
        left = len(WANTED) - met
        return {"met": met, "of": len(WANTED), "not_met": {"not judged": left} if left else {}}

    def _answer_coverage_left(self, cases: Mapping[str, Mapping[str, Sequence[str]]]) -> list[dict[str, Any]]:
        left = {
            (name, int(number), strength): set(WANTED) - self._met(ids, strength)
            for name, classes in cases.items()
            for number, ids in classes.items()
            for strength in STRENGTHS
        }
        return [
            {
                "check": name,
                "number": number,
                "strength": strength,
                "of": len(WANTED),
                "not_met": {"cost": "0x0", "not judged": hex(sum(1 << at for at in of))},
            }
            for (name, number, strength), of in left.items()
        ]

    def _answer_explain(self, check: str, cases: Sequence[str], **_: Any) -> dict[str, Any]:
        return {"region": f"{len(cases)} cases fail"}

    def _answer_plainly(self, case: str) -> str:
        return "it differs plainly" if sum(map(ord, case)) % 2 else ""

    def _planted(self) -> list[str]:
        return [name for name, (check, _) in self.table.faults.items() if check in self._ran]

    def _answer_faults(self) -> list[list[str]]:
        chosen = [name for name in self._planted() if name not in self.table.left_out]
        return [chosen, [n for n in self._planted() if n in self.table.left_out], ["values"] * len(chosen)]

    def _answer_faults_of_shard(self, number: int, of: int) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "level": "values",
                "check": self.table.faults[name][0],
                "of_candidate": False,
                "decides": (decides := at % of == number - 1),
                "left_out": decides and name in self.table.left_out,
            }
            for at, name in enumerate(self._planted())
        ]

    def _answer_changes_nothing(self, fault: str) -> bool:
        return fault in self.table.without_effect

    def ready(self, **_: Any) -> None: ...

    def apart(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self, pieces: Sequence[Piece], on_case: OnCase) -> None:
        self._on_case = on_case

    def add(self, pieces: Sequence[Piece]) -> None: ...

    def finish(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if not piece.done:
                self._run(piece)
            if piece.searched.minimal is not None:
                return

    def _run(self, piece: Piece) -> None:
        check, over = round_of(piece.check)
        piece.searched, piece.done = Searched(seconds=1.0), True
        for at, shows in enumerate(self.table.classes[check][piece.number][: piece.most]):
            case = case_of(check, piece.number, at)
            fails = shows not in ("passes", "nothing", *over)
            outcome = CaseOutcome(
                case,
                ratio=at / 8,
                judged=shows != "nothing",
                failed=f"{shows} differs" if fails else None,
                finding=shows if fails else "",
                notes=("a note",) if at % 3 == 0 else (),
                spot={"tensor": "output"} if fails and at % 2 else {},
            )
            piece.searched.add(outcome)
            self._on_case(piece.check, outcome)
            if fails:
                piece.searched.minimal = case
                return

    def make_small(self, piece: Piece, *, spend: bool) -> None: ...

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        self._ran = checks

    def detections(
        self, faults: Sequence[str], until: float, on_progress: Callable[[int], None]
    ) -> Iterator[str | None]:
        for fault in faults:
            check, at = self.table.faults[fault]
            seen = [case for case in self._ran[check]["cases"] if sum(map(ord, case)) % 10 == at]
            yield f"{check} on {min(seen)}" if seen else ""

    def seen(self) -> list[Mapping[str, Any]]:
        return []

    def look_at_original(self, cases: Sequence[str]) -> None: ...

    def findings(self) -> tuple[list[str], list[str]]:
        return [], ["a note of the look back"]


class Quiet:
    """A listener that does nothing."""

    def progress(self, stage: str, done: int, total: int) -> None: ...
    def finished(self, result: CheckResult) -> None: ...


def stub_run(table: Table, *, sha: str = "0" * 64, until: float = math.inf, **options: Any) -> Report:
    """The report of a run on what a table says."""
    return Run(
        workers=StubWorkers(table, sha),
        reference="a:A",
        candidate="b:B",
        kind="module",
        device="cpu",
        request=Request(**{"profile": "quick", "all_cases": True, **options}),
        began=time.monotonic(),
        until=until,
        listener=Quiet(),
        keep=lambda report: None,
    ).execute()
