"""The pair and the options of a suite: refused at once where they are wrong, and no side is imported for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest

from equivcheck.api import pair_of, verify
from equivcheck.cases.domain import require_grammar
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.catalogue import KINDS, PROFILES, Kind, KindOrAuto, Listed, Profile
from equivcheck.report.chosen_checks import chosen_checks, refuse_unknown_checks
from equivcheck.report.deviations import of_check, parse_deviations
from equivcheck.report.model import Report
from equivcheck.runtime.file_access import watched
from equivcheck.runtime.import_strings import refuse_misspelt_pair
from equivcheck.runtime.nearest_name import did_you_mean
from equivcheck.supervisor import api, kinds

__all__ = ["Asked", "Refused"]


class Refused(UsageError, pytest.Collector.CollectError):
    """A mistake in the arguments of a suite; pytest shows its message alone."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A suite that was asked for.

    Attributes:
        reference: The original: an object, or an import string.
        candidate: The candidate, likewise.
        kind: The kind of the pair, or auto.
        user_functions: The functions that adapt the pair, by name.
        setup: The import string of a function that each process calls first.
        domain: The cases that the original is meant for.
        checks: The names of the checks; None for all that apply.
        exclude: The names of checks that are left out.
        dtypes: The dtypes of the tests.
        profile: The profile of each run.
        deviations: The differences that are accepted, by name.
        options: Further arguments of `verify`.
    """

    reference: Any
    candidate: Any
    kind: KindOrAuto
    user_functions: Mapping[str, Any]
    setup: str | None
    domain: Any
    checks: list[str] | None
    exclude: list[str]
    dtypes: list[str]
    profile: Profile
    deviations: Mapping[str, Any]
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what is wrong for certain.

        Raises:
            Refused: An option is unknown, or an import string names nothing.
        """
        try:
            self._refuse()
        except UsageError as error:
            raise Refused(str(error)) from None

    def _refuse(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, ("auto", *KINDS)),
            ("profile", self.profile, PROFILES),
            *(("dtype", dtype, DTYPES) for dtype in self.dtypes),
        ):
            if value not in allowed:
                meant = did_you_mean(value, allowed)
                raise UsageError(f"unknown {name} {value!r}: allowed are {', '.join(allowed)}{meant}")
        refuse_unknown_checks(self.checks, self.exclude)
        if self.kind != "auto":
            chosen_checks(self.checks, self.exclude, self.kind)
        parse_deviations(self.deviations)
        if isinstance(self.domain, str):
            require_grammar(self.domain)
        pair_of(self.reference, self.candidate, self.kind, "cpu", self.user_functions, self.setup, self.domain)
        refuse_misspelt_pair(self.reference, self.candidate, self.user_functions, self.setup)

    def kind_of_pair(self) -> str:
        """The kind that was given, else that of the pair: of import strings it is found in another process.

        Raises:
            UsageError: The pair cannot be loaded, or fits no kind.
        """
        if self.kind != "auto":
            return self.kind
        pair = pair_of(self.reference, self.candidate, "auto", "cpu", self.user_functions, self.setup, self.domain)
        if pair is not None:
            return kinds.kind_of(pair)
        from equivcheck.pairs.resolve import resolve  # torch, which a pair of import strings does not need here

        with watched():
            return resolve(
                self.reference,
                self.candidate,
                kind="auto",
                device="cpu",
                adaptation=self.user_functions,
                domain=self.domain,
            ).kind

    def checks_of(self, kind: str) -> list[Listed]:
        """The checks of a pair of this kind that judge something.

        Raises:
            Refused: One that was named does not apply to such a pair.
        """
        try:
            return [check for check in chosen_checks(self.checks, self.exclude, kind) if check.judges]
        except UsageError as error:
            raise Refused(str(error)) from None

    def run(self, kind: str, check: str, dtype: str, device: str) -> Report:
        """The report of a run of one check in one dtype.

        Raises:
            UsageError: The pair cannot be judged.
        """
        return verify(
            self.reference,
            self.candidate,
            kind=cast(Kind, kind),
            device=device,
            profile=self.profile,
            checks=[check],
            dtypes=[dtype],
            deviations=of_check(check, self.deviations),
            setup=self.setup,
            domain=self.domain,
            shared=True,
            **self.user_functions,
            **self.options,
        )

    def has_faults(self, kind: str, check: str, dtype: str, device: str) -> bool:
        """Whether there is a fault around the original that the check should see in this dtype.

        Raises:
            UsageError: The pair cannot be loaded.
        """
        question = {"check": check, "dtype": dtype, "profile": self.profile}
        given = self.reference, self.candidate, kind, device, self.user_functions
        pair = pair_of(*given, self.setup, self.domain)
        if pair is not None:
            return bool(api.ask(pair, "has_faults", **question))
        from equivcheck.worker.judge import Judge  # torch, likewise

        with watched() as access:
            judge = Judge(access)
            judge.load(*given, domain=self.domain)
            return judge.has_faults(**question)
