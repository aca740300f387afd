"""A pair with the plan of a run: the domain, the dtypes, the checks, and their numbers of cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.checks import Check
from equivcheck.checks.backend import requiring
from equivcheck.checks.memory import limiting
from equivcheck.engine.covering import coverage_left, coverage_of, rows_of
from equivcheck.engine.empty_domain import refuse_an_empty_domain
from equivcheck.engine.oracle_agreement import agreement_note
from equivcheck.engine.plan import planned_cases, require_a_judging_check, select_checks
from equivcheck.engine.strata import classes
from equivcheck.errors import NoOracle, UsageError
from equivcheck.pairs.declared_domain import declared_domain
from equivcheck.report.outcomes import OUTSIDE
from equivcheck.runtime.file_access import Access
from equivcheck.worker.loaded_pair import LoadedPair
from equivcheck.worker.narrowing import Tried, narrowed
from equivcheck.worker.offered_oracle import offer
from equivcheck.worker.plan import dtypes_to_judge, plan_of, refuse_unknown_dtypes

__all__ = ["Planned"]


class Planned(LoadedPair):
    """One pair, and the questions that make a plan or take one.

    Attributes:
        access: The record of what foreign code uses.
    """

    def __init__(self, access: Access) -> None:
        """Load no pair yet."""
        super().__init__(access)
        self._checks: dict[str, Check] = {}
        self._planned: dict[str, int] = {}
        self._options: dict[str, Any] = {}
        self._rows: Mapping[str, Mapping[str, Any]] = {}

    # --- questions: each method is one, its arguments and its answer are plain data -----------------------------------

    def plan(
        self,
        checks: Sequence[str] | None,
        exclude: Sequence[str],
        profile: str,
        seed: int,
        dtypes: Sequence[str],
        require_backend: Sequence[str],
        domain: str | Callable[..., Any] | None = None,
        tried: Tried = "both",
        max_memory_ratio: float | None = None,
    ) -> dict[str, Any]:
        """The checks that are run, their numbers of cases and classes, and the report's facts about the pair.

        The pair gets the domain that is declared, or the one in which the `tried` sides run.
        """
        refuse_unknown_dtypes(dtypes)
        self._within(domain)
        self._choose(checks, exclude, require_backend, max_memory_ratio)
        require_a_judging_check(list(self._checks.values()), require_backend, max_memory_ratio)
        try:
            usable, refused = dtypes_to_judge(self.subject, dtypes, require_backend)
        except NoOracle as error:
            raise UsageError(f"{error}{offer(self.with_oracle, dtypes)}") from None
        where = narrowed(self.subject, usable, tried=tried, given=self.given)
        self._subject = where.subject
        agreement = [] if self.subject.oracle is None else [agreement_note(self.subject, usable)]
        limit: dict[str, Any] = {"max_memory_ratio": max_memory_ratio}
        self.prepare(list(self._checks), require_backend, profile, seed, len(dtypes), usable, **limit)
        self._require_cases("memory", "--max-memory-ratio", usable)
        notes = [*where.notes, *agreement, *self._leave_out_checks_outside(usable)]
        refused = refused | where.refused
        return {
            **plan_of(
                self.subject,
                self.access.root,
                self._checks,
                self._planned,
                dtypes,
                usable,
                refused,
                notes,
                profile=profile,
                rows=self._rows,
            ),
            "rows": self._rows,
            "apart": self._loaded_original.notes(
                self.subject
            ),  # why the original cannot be loaded without the candidate
            **self.cover(),
            "domain": where.domain,
            "drawn_from": self.subject.domain.text,
        }

    def prepare(
        self,
        checks: Sequence[str],
        require_backend: Sequence[str],
        profile: str,
        seed: int,
        asked: int,
        usable: Sequence[str],
        domain: str | None = None,
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        max_memory_ratio: float | None = None,
    ) -> None:
        """Take a plan that another process has made.

        Args:
            checks: The names of the checks.
            require_backend: The kernels that must run.
            profile: The run's profile.
            seed: The run's seed.
            asked: The number of dtypes that were asked for.
            usable: The dtypes in which the pair is judged.
            domain: The domain of the run as text; None if this process has made the plan.
            rows: Name of a check -> its cases that meet every pair of classes; None to choose them.
            max_memory_ratio: How many times the original's memory the candidate may take; None for any.
        """
        if domain is not None:
            self._within(domain)
        self._choose(checks, (), require_backend, max_memory_ratio)
        self._options = {"profile": profile, "seed": seed, "usable": tuple(usable)}
        self._planned = {
            name: planned_cases(check, subject=self.subject, profile=profile, dtypes=asked)
            for name, check in self._checks.items()
        }
        if rows is None:
            rows = rows_of(self._checks.values(), self.subject, usable, profile, seed)
        self._rows = rows

    def coverage(self, cases: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Name of a check -> the pairs and triples of classes that its judged cases meet, and how many there are."""
        usable, profile = self._options["usable"], self._options["profile"]
        return {
            name: coverage_of(self._checks[name], self.subject, usable, profile, self._rows[name], ids)
            for name, ids in cases.items()
            if name in self._rows
        }

    def coverage_left(self, cases: Mapping[str, Mapping[str, Sequence[str]]]) -> list[dict[str, Any]]:
        """The fields of a `report.shard.ShardCoverage` for each check and number of a class with judged cases."""
        return [
            {"check": name, "number": int(number), **left}
            for name, ids in cases.items()
            for number, of_class in zip(ids, self._left(name, list(ids.values())), strict=True)
            for left in of_class
        ]

    def _left(self, name: str, judged: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        usable, profile = self._options["usable"], self._options["profile"]
        return coverage_left(self._checks[name], self.subject, usable, profile, self._rows[name], judged)

    def _within(self, domain: str | Callable[..., Any] | None) -> None:
        """Set the domain of the run: every case is in it, and trials and probes are, too."""
        if isinstance(domain, str) and " ".join(domain.split()) == self.subject.domain.text:
            return
        meant = declared_domain(domain, device=self.subject.device.type, root=self.access.root)
        if meant != self.subject.domain:
            self._subject = replace(self.subject, domain=meant)

    def _classes(self, name: str, usable: Sequence[str]) -> Sequence[Any]:
        check, planned, profile = self._checks[name], self._planned[name], self._options["profile"]
        return classes(check, self.subject, usable, planned, profile=profile)

    def _require_cases(self, name: str, option: str, usable: Sequence[str]) -> None:
        """Refuse a run in which a check that an option asks for has no case."""
        if name in self._checks and not self._classes(name, usable):
            dtypes = " or ".join(self._checks[name].space.dtypes)
            raise UsageError(
                f"{option}: the check {name!r} has no case in the domain in {dtypes}: run it in one of them"
            )

    def _leave_out_checks_outside(self, usable: Sequence[str]) -> list[str]:
        """Leave out the checks that have no case in the domain; a note that names them."""
        domain = self.subject.domain
        if not domain:
            return []
        refuse_an_empty_domain(self.subject, self._checks.values(), usable, self._planned)
        outside = [name for name in self._checks if not self._classes(name, usable)]
        self._checks = {name: check for name, check in self._checks.items() if name not in outside}
        return [OUTSIDE + ", ".join(outside)] if outside else []

    def _choose(
        self,
        checks: Sequence[str] | None,
        exclude: Sequence[str],
        require_backend: Sequence[str],
        max_memory_ratio: float | None = None,
    ) -> None:
        also = () if max_memory_ratio is None else ("memory",)
        chosen = select_checks(checks, tuple(exclude), self.subject.kind, also)
        chosen = limiting(requiring(chosen, require_backend), max_memory_ratio)
        self._checks = {check.name: check for check in chosen}
