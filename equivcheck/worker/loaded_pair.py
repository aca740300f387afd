"""A pair as it is loaded in this process: both sides, the files they used, and the original as it was before."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.file_access import Access, Seen
from equivcheck.worker.covered import Covered, covered_by
from equivcheck.worker.originals import Original

__all__ = ["LoadedPair"]


class LoadedPair:
    """One pair, and the questions about how it is loaded and what it has used.

    Attributes:
        access: The record of what foreign code uses.
    """

    def __init__(self, access: Access) -> None:
        """Load no pair yet."""
        self.access = access
        self._subject: Pair | None = None
        self._original: Original | None = None
        self._given: dict[str, Any] = {}

    @property
    def subject(self) -> Pair:
        """The pair, which has been loaded."""
        assert self._subject is not None, "the pair is loaded first"
        return self._subject

    @property
    def _loaded_original(self) -> Original:
        assert self._original is not None, "the pair is loaded first"
        return self._original

    @property
    def given(self) -> Hashable:
        """The pair as it was given, to be known again in this process; None if that is no key."""
        of = self._given
        key = (of["reference"], of["candidate"], of["kind"], of["device"], *sorted(of["adaptation"].items()))
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def with_oracle(self, oracle: str) -> Pair:
        """The same pair, loaded once more with an oracle by its import string."""
        return resolve(**{**self._given, "adaptation": {**self._given["adaptation"], "oracle": oracle}})

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
        domain: str | Callable[..., Any] | None = None,
    ) -> dict[str, Any]:
        """Load the pair.

        Args:
            reference: The original: an object, or an import string.
            candidate: The candidate, likewise.
            kind: The kind of the pair, or auto.
            device: The device on which it runs.
            adaptation: The user's functions, by name.
            share: The number of processes that share the memory.
            allowed: The options of functions that may be used; None for all.
            domain: The cases that the original is meant for, as the user declares them; None for all.

        Returns:
            Its kind, names, device, and facts about an original that is a function.
        """
        self._original = Original(self.access)
        self._given = {
            "reference": reference,
            "candidate": candidate,
            "kind": kind,
            "device": device,
            "adaptation": adaptation,
            "allowed": None if allowed is None else frozenset(allowed),
            "domain": domain,
        }
        subject = resolve(**self._given, between=self._original.loaded)
        subject.memory.shared_by(share)
        clock.wait_for(subject.device)
        self._subject = subject
        return {
            "kind": subject.kind,
            "original_kind": subject.traits.original,
            "reference": subject.reference_name,
            "candidate": subject.candidate_name,
            "device": str(subject.device),
            "facts": {  # they make the original of a function the same in another process
                "options": sorted(subject.options),
                "scale_optional": subject.scale_optional,
                "learns_mask": subject.learns_mask,
            }
            if subject.traits.function
            else None,
        }

    def kind(
        self,
        reference: Any,
        candidate: Any,
        device: str,
        adaptation: Mapping[str, Any],
        domain: str | Callable[..., Any] | None,
    ) -> str:
        """The kind of a pair, which is not loaded to be judged; the arguments are those of `load`."""
        beacon.note_kind(beacon.NOTHING)  # not that of the last pair
        subject = resolve(reference, candidate, kind="auto", device=device, adaptation=adaptation, domain=domain)
        return subject.kind

    def take(self, scale_optional: bool, learns_mask: bool) -> None:
        """Give the original of a function the facts that it has in the pair."""
        self._subject = replace(self.subject, scale_optional=scale_optional, learns_mask=learns_mask)

    def seen(self) -> dict[str, Any]:
        """The files and hosts that foreign code has used in this process until now."""
        return self.access.seen().plain()

    def cover(self, seen: Sequence[Mapping[str, Any]] = (), before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The coverage of the evidence.

        Args:
            seen: The answers of other processes to the question `seen`.
            before: The coverage before the run: its hashes are of the code that ran, and stay.
        """
        for other in seen:
            self.access.add(Seen.of(other))
        covered = covered_by(self.subject, self.access)
        if before is not None:
            covered = Covered.of(before).and_later(covered)
        return covered.plain()

    def original(self, cases: Sequence[str]) -> list[dict[str, Any]]:
        """The results of the original on these cases, to the bit."""
        return self._loaded_original.results(self.subject, [Case.parse(case) for case in cases])

    def replaced(self) -> dict[str, list[str]]:
        """The names of functions that were replaced since the candidate was imported: of the original, of torch."""
        return self._loaded_original.replaced()
