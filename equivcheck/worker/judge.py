"""What a process does with a pair when it is asked: load it, run a class of a check's cases, plant a fault, tell what it used.

Questions and answers are plain data, so that they can be asked of a process of its own or of the caller's.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, Check
from equivcheck.checks.backend import requiring
from equivcheck.engine.case_outcomes import outcome_of
from equivcheck.engine.diagnosis import explanation
from equivcheck.engine.plan import choose, must_judge, planned_cases, shrink_calls
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.sensitivity import Plants, Ran
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch, UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.supported_dtypes import usable_dtypes
from equivcheck.report.implementation_files import defined_at, modules_of
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.report.provenance import digests, environment
from equivcheck.runtime import beacon
from equivcheck.runtime.device import device_name
from equivcheck.runtime.file_access import Access, Seen
from equivcheck.runtime.module_files import made_twice
from equivcheck.worker.covered import Covered, covered_by
from equivcheck.worker.originals import Original

__all__ = ["Judge"]


class Judge:
    """One pair, and what can be asked about it.

    Attributes:
        access: What foreign code uses.
        began: Hears of each case that is about to be run, with a measure of its work.
        ended: Hears what came of it.
    """

    def __init__(
        self,
        access: Access,
        began: Callable[[str, float], None] = lambda case, work: None,
        ended: Callable[[CaseOutcome], None] = lambda outcome: None,
    ) -> None:
        """Know no pair as yet."""
        self.access, self._began, self._ended = access, began, ended
        self._subject: Pair | None = None
        self._original: Original | None = None
        self._checks: dict[str, Check] = {}
        self._planned: dict[str, int] = {}
        self._options: dict[str, Any] = {}
        self._plants: Plants | None = None

    @property
    def subject(self) -> Pair:
        """The pair, which has been loaded."""
        assert self._subject is not None, "the pair is loaded first"
        return self._subject

    def _begin(self, case: Case) -> None:
        beacon.note_case(case.id)
        keys = case.kv_len or case.seq_len
        work = case.batch_size * case.n_head * case.seq_len * keys * (case.head_size + case.value_size)
        self._began(case.id, float(work * max(1, case.n_layer)))

    # --- questions: each method is one, its arguments and its answer are plain data -----------------------------------

    def load(
        self,
        reference: Any,
        candidate: Any,
        kind: str,
        device: str,
        adaptation: Mapping[str, Any],
        share: int = 1,
        allowed: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Load the pair; its kind and its names. `share` processes share the memory; `allowed` are options of functions."""
        self._original = Original(self.access)
        subject = resolve(
            reference,
            candidate,
            kind=kind,
            device=device,
            adaptation=adaptation,
            between=self._original.loaded,
            allowed=None if allowed is None else frozenset(allowed),
        )
        subject.memory.shared_by(share)
        self._subject = subject
        return {
            "kind": subject.kind,
            "original_kind": subject.traits.original,
            "reference": subject.reference_name,
            "candidate": subject.candidate_name,
            "device": str(subject.device),
            "facts": {  # what makes the original of a function what it is in this pair
                "options": sorted(subject.options),
                "scale_optional": subject.scale_optional,
                "learns_mask": subject.learns_mask,
            }
            if subject.traits.function
            else None,
        }

    def plan(
        self,
        checks: Sequence[str] | None,
        exclude: Sequence[str],
        profile: str,
        seed: int,
        dtypes: Sequence[str],
        require_backend: Sequence[str],
    ) -> dict[str, Any]:
        """Which checks are run, how many cases each of them has in how many classes, and what the report says of the pair."""
        s = self.subject
        for dtype in dtypes:
            if dtype not in DTYPES:
                raise UsageError(f"unknown dtype {dtype!r}: allowed are {', '.join(DTYPES)}")
        self._choose(checks, exclude, require_backend)
        must_judge(list(self._checks.values()), require_backend)
        usable, refused = usable_dtypes(s, dtypes)
        needed = {text.partition("=")[0] for text in require_backend if "=" in text}
        if missing := sorted(needed - set(usable)):
            raise UsageError(
                f"--require-backend: the pair does not run in {', '.join(missing)}, so nothing can be judged there"
            )
        self.prepare(list(self._checks), require_backend, profile, seed, len(dtypes), usable)
        file, line = defined_at(s.candidate, self.access.root) or (None, None)
        sources = {*modules_of(s.reference), *modules_of(s.candidate)}
        return {
            "checks": [
                {
                    "name": name,
                    "planned": self._planned[name],
                    "classes": len(classes(check, s, usable, self._planned[name])),
                    "judges": check.judges,
                    "dear": check.dear,
                    "replay": self._replay_line(check),
                }
                for name, check in self._checks.items()
            ],
            "known": [check.name for check in CHECKS],
            "usable": usable,
            "refused": refused,
            "not_run": {
                dtype: refused.get(dtype, "").removeprefix(f"{dtype}: ") or "the original does not run in it"
                for dtype in dtypes
                if dtype not in usable
            },
            "notes": [*s.notes, *made_twice(sources)],
            "apart": self._loaded.notes(s),  # why the original cannot be had without the candidate
            "device_name": device_name(s.device),
            "environment": environment(s.device),
            "candidate_file": file,
            "candidate_line": line,
            "options_not_judged": list(s.reference_alone),
            **self.cover(),
        }

    def prepare(
        self,
        checks: Sequence[str],
        require_backend: Sequence[str],
        profile: str,
        seed: int,
        asked: int,
        usable: Sequence[str],
    ) -> None:
        """Take a plan that another process has made: its checks, and of so many dtypes `asked` for those that are `usable`."""
        self._choose(checks, (), require_backend)
        self._options = {"profile": profile, "seed": seed, "usable": tuple(usable)}
        self._planned = {
            name: planned_cases(check, subject=self.subject, profile=profile, dtypes=asked)
            for name, check in self._checks.items()
        }

    def _choose(self, checks: Sequence[str] | None, exclude: Sequence[str], require_backend: Sequence[str]) -> None:
        chosen = requiring(choose(checks, tuple(exclude), self.subject.kind), require_backend)
        self._checks = {check.name: check for check in chosen}

    @property
    def _loaded(self) -> Original:
        assert self._original is not None, "the pair is loaded first"
        return self._original

    def _replay_line(self, check: Check) -> str:
        s = self.subject
        words = " ".join((check.name, *check.options))
        return (
            f"equivcheck replay CASE {_quoted(s.reference_name)} {_quoted(s.candidate_name)} --kind {s.kind} "
            f"--device {s.device} --check {words}{s.adaptation.options}"
        )

    def piece(
        self,
        check: str,
        number: int,
        known: Sequence[Mapping[str, Any]] = (),
        shrinks: float = math.inf,
        seconds: float = math.inf,
    ) -> dict[str, Any]:
        """Draw and run one class of a check's cases; what is `known` of them is not run again.

        Args:
            check: The check's name.
            number: The number of the class.
            known: Outcomes of cases.
            shrinks: The most cases that are run to make a failing one small.
            seconds: How long there is.
        """
        one, options = self._checks[check], self._options
        planned = self._planned[check]
        search = Search(
            one,
            self.subject,
            planned,
            min(shrinks, shrink_calls(one, options["profile"], planned)),
            time.monotonic() + min(seconds, 1e9),
            known={outcome.case: outcome for outcome in map(CaseOutcome.of, known)},
            began=self._begin,
            ended=self._ended,
            dtypes=options["usable"],
        )
        search.run(
            classes(one, self.subject, options["usable"], planned), seed_for(options["seed"], check), only=number
        )
        minimal = None if search.minimal is None else search.minimal.id
        return {"minimal": minimal, "stopped": search.stopped, "seconds": search.seconds}

    def one(self, check: str, case: str) -> dict[str, Any]:
        """Run a check on one case, which has nothing to do with those before it; its outcome."""
        search = Search(self._checks[check], self.subject, 1, 0, math.inf, began=self._begin)
        parsed = Case.parse(case)
        try:
            search.visit(parsed)
        except Mismatch as mismatch:
            return outcome_of(parsed, mismatch).plain()
        return outcome_of(parsed, search.held[parsed]).plain()

    def explain(self, check: str, cases: Sequence[str]) -> str:
        """The whole difference in one sentence, where it is known: the smallest failing case comes first."""
        return explanation(self.subject, [Case.parse(case) for case in cases], gradients=check != "output")

    def replay(self, case: str, checks: Sequence[str] | None, require_backend: Sequence[str]) -> list[dict[str, Any]]:
        """Run the checks on one case: for each its name, whether it judges, its replay line, and the outcome."""
        parsed = Case.parse(case)
        self._choose(checks, (), require_backend)
        found = []
        for name, check in self._checks.items():
            began = time.monotonic()
            outcome = self.one(name, parsed.id)
            explained = self.explain(name, [parsed.id]) if outcome["failed"] is not None else ""
            found.append(
                {
                    "name": name,
                    "judges": check.judges,
                    "replay": self._replay_line(check),
                    "outcome": outcome,
                    "explained": explained,
                    "seconds": time.monotonic() - began,
                }
            )
        return found

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Be told which cases the checks judged: those in which planted faults are looked for."""
        self._plants = Plants(
            self.subject,
            [
                Ran(self._checks[name], of["planned"], tuple(map(Case.parse, of["cases"])), of["failed"])
                for name, of in checks.items()
            ],
            self._options["profile"],
            self._options["seed"],
            self._options["usable"],
        )

    @property
    def _faults(self) -> Plants:
        assert self._plants is not None, "it is told first which cases ran"
        return self._plants

    def faults(self) -> list[list[str]]:
        """The names of the faults to look for, and of those that are left out."""
        return list(self._faults.chosen())

    def sighting(self, fault: str, seconds: float) -> str | None:
        """Where a fault is seen first; `""` where it is not, None where time ran out."""
        return self._faults.sighting(fault, time.monotonic() + min(seconds, 1e9), self._begin)

    def changes_nothing(self, fault: str) -> bool:
        """Whether a fault that was not seen is none around this original."""
        return self._faults.changes_nothing(fault)

    def cells(
        self, checks: Sequence[str] | None, exclude: Sequence[str], dtypes: Sequence[str], profile: str
    ) -> list[list[str]]:
        """Check and dtype of each test of a suite: where there are faults that the check should see in this dtype."""
        from equivcheck.engine.planting import planted

        chosen = [check for check in choose(checks, tuple(exclude), self.subject.kind) if check.judges]
        return [
            [check.name, dtype]
            for check in chosen
            for dtype in dtypes
            if dtype in check.space.dtypes
            and any(not fault.doubtful for fault in planted(self.subject, {check.name}, profile, 0, (dtype,)))
        ]

    def seen(self) -> dict[str, Any]:
        """What foreign code has used in this process until now."""
        return _plain(self.access.seen())

    def cover(self, seen: Sequence[Mapping[str, Any]] = (), before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the evidence covers, here and in processes that have `seen` more; of what was covered `before`, that is what ran."""
        for other in seen:
            self.access.add(_seen(other))
        covered = covered_by(self.subject, self.access)
        if before is not None:
            covered = _covered(before).and_later(covered)
        return {
            "files": {part: dict(hashes) for part, hashes in covered.files.items()},
            "sources": digests(covered.files),
            "packages": {name: asdict(package) for name, package in covered.packages.items()},
            "not_covered": list(covered.not_covered),
        }

    def original(self, cases: Sequence[str]) -> list[dict[str, Any]]:
        """What the original gives on these cases, to the bit."""
        return self._loaded.results(self.subject, [Case.parse(case) for case in cases])

    def replaced(self) -> dict[str, list[str]]:
        """What is another function now than before the candidate was imported: of the original, of torch."""
        return self._loaded.replaced()

    def take(self, scale_optional: bool, learns_mask: bool) -> None:
        """Take the original of a function for what it is in the pair."""
        self._subject = replace(self.subject, scale_optional=scale_optional, learns_mask=learns_mask)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _plain(seen: Seen) -> dict[str, Any]:
    return {
        "read": {file: list(status) for file, status in seen.read.items()},
        "written": sorted(seen.written),
        "loaded": sorted(seen.loaded),
        "connected": sorted(seen.connected),
    }


def _seen(plain: Mapping[str, Any]) -> Seen:
    return Seen(
        {file: (changed, size) for file, (changed, size) in plain["read"].items()},
        frozenset(plain["written"]),
        frozenset(plain["loaded"]),
        frozenset(plain["connected"]),
    )


def _covered(plain: Mapping[str, Any]) -> Covered:
    from equivcheck.report.model import Package

    return Covered(
        plain["files"],
        {name: Package(**package) for name, package in plain["packages"].items()},
        tuple(plain["not_covered"]),
    )
