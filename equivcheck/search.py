"""One check's search: which cases are drawn, in what order they are run, and how a failing one is made small."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from equivcheck.cases import DTYPES, HALF, Case
from equivcheck.checks import Check, Held
from equivcheck.comparison import Mismatch
from equivcheck.errors import UsageError
from equivcheck.loading import line_of
from equivcheck.lost import hold_device
from equivcheck.settings import kept
from equivcheck.strategies import LENGTHS, cases, simpler
from equivcheck.subject import Subject

__all__ = ["Drawn", "Search", "classes", "seed_for"]

_FEW = 5
_DEAR = 9  # cases of a check that is dear, in three classes
_FINE = ("output", "gradients")  # the checks that a single dtype must let see a fault by itself
_PLAIN = {  # the first case of this class, its simplest, is the only one that is drawn
    "min_seq_len": 16,
    "max_seq_len": 32,
    "min_heads": 2,
    "min_batch_size": 2,
    "min_head_size": 16,
    "regimes": ("near_initial",),
    "layouts": ("contiguous",),
}
"""Where rounding explains least: of several heads and samples, with small scores. In half precision it explains half of a
gradient of the keys in most other regimes, and a run that met none of this kind would be insensitive by chance."""
_ONCE = ("float32", "float64", "bfloat16")  # a narrow one and the wide ones: a second each
_ONE_QUERY = 0.1  # of the planned cases, more


class _OutOfTime(BaseException):
    """Ends the drawing of cases at once; no Exception, which Hypothesis would take for a failure and shrink."""


@dataclass(frozen=True)
class Drawn:
    """What came of some of a search's cases."""

    held: dict[Case, Held]
    failed: dict[Case, Mismatch]
    minimal: Case | None
    stopped: bool
    seconds: float


@dataclass
class Search:
    """One check's cases, in the order in which they were run, and what came of them."""

    check: Check
    subject: Subject
    planned: int
    shrink_s: float
    until: float
    told: Callable[[int], None]
    held: dict[Case, Held] = field(default_factory=dict)
    failed: dict[Case, Mismatch] = field(default_factory=dict)
    minimal: Case | None = None
    stopped: bool = False
    seconds: float = 0.0  # of work, all processes together
    explained: str = ""  # the whole difference in one sentence, where it is known
    dtypes: Sequence[str] = DTYPES  # that a counterexample may have: what is asked for, and what the candidate takes
    _shrink_until: float = 0.0

    def visit(self, case: Case) -> None:
        """Run the check on a case once; later calls repeat the outcome, so that shrinking counts nothing twice."""
        if case in self.failed:
            self.minimal = case
            raise self.failed[case]
        if case in self.held:
            return
        now = time.monotonic()
        # out of time: what is not known to fail counts as passing, so that shrinking ends with the smallest known failure
        if now > self.until or (self.failed and now > self._shrink_until):
            if self.failed:
                return
            self.stopped = True
            raise _OutOfTime
        try:
            with kept():  # a setting that a candidate switches in one check must not be there before the next looks
                held = self.check.run(self.subject, case)
        except Mismatch as mismatch:
            if not self.failed:
                self._shrink_until = now + self.shrink_s
            self.failed[case] = mismatch
            self.minimal = case
            raise
        except (UsageError, KeyboardInterrupt):
            raise
        except Exception as error:
            hold_device(self.subject.device, f"{self.check.name} was judged on {case.id}", error)
            why = _original_raises(self.subject, case)
            if not why:
                raise
            # what the original cannot do is asked of nobody
            held = Held(notes=(f"not judged where the original itself raises {why}",), judged=False)
        self.held[case] = held
        if not self.failed:
            self.told(len(self.held))

    @property
    def drawn(self) -> Drawn:
        """What came of the cases so far."""
        return Drawn(self.held, self.failed, self.minimal, self.stopped, self.seconds)

    def take(self, drawn: Drawn) -> None:
        """Add what another search has come to in a class of its own."""
        # a case that two classes have drawn counts once, as it does where one search draws both
        self.held.update({case: held for case, held in drawn.held.items() if case not in self.failed})
        self.failed.update(drawn.failed)
        self.minimal = self.minimal or drawn.minimal
        self.stopped = self.stopped or drawn.stopped
        self.seconds += drawn.seconds

    def run(self, classes: Sequence[tuple[Any, int]], seed: int, *, only: int | None = None) -> None:
        """Draw each class's number of cases, or `only` one's; where one fails, shrink it and leave the other classes."""
        began = time.monotonic()
        try:
            for number, (strategy, count) in enumerate(classes):
                if only not in (None, number):
                    continue
                self._draw(strategy, count, seed + number)
                if last := next(
                    reversed(self.held), None
                ):  # a check may take an error for the original's, or a refusal
                    hold_device(self.subject.device, f"{self.check.name} was judged on {last.id}")
                if self.minimal is not None:
                    self._polish(self.minimal)
                    return
        finally:
            self.seconds += time.monotonic() - began

    def _draw(self, strategy: Any, count: int, seed: int) -> None:
        @hypothesis.seed(seed)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @given(strategy)
        def property_holds(case: Case) -> None:
            self.visit(case)

        with suppress(Mismatch, _OutOfTime):
            property_holds()

    def _polish(self, smallest: Case) -> None:
        """Go on shrinking beyond the class that the case was drawn from, for as long again."""
        self._shrink_until = max(self._shrink_until, time.monotonic()) + self.shrink_s
        tried: set[Case] = set()
        found = True
        while found:
            found = False
            for case in simpler(smallest):
                # a dtype that is refused as a whole, or was left out, tells nothing of the difference that was found
                if case in tried or case.dtype not in self.dtypes or time.monotonic() > self._shrink_until:
                    continue
                tried.add(case)
                try:
                    self.visit(case)
                except Mismatch:
                    smallest, found = case, True
                    break
        self.minimal = smallest


def _original_raises(subject: Subject, case: Case) -> str:
    """What the original raises on a case, by itself; empty where it runs."""
    inside = subject.within_gpt() if subject.kind == "module" and case.n_layer else subject
    try:
        problem = inside.problem(case)
        problem.run(problem.reference, problem.inputs, gradients=True)
        problem.oracle_values(gradients=False)
    except Exception as error:
        return f"{type(error).__name__}: {line_of(error)[:120]}"
    return ""


def seed_for(seed: int, name: str) -> int:
    """The seed of the check of this name in a run of this seed: the same whichever other checks are run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")


def classes(check: Check, subject: Subject, dtypes: Sequence[str], planned: int) -> list[tuple[Any, int]]:
    """The case space in classes of dtype and length, short ones first, each with the number of cases it is sure of."""
    draws = _draws(check, subject, dtypes)
    longest = draws.get("max_seq_len", 512)
    shortest = draws.get("min_seq_len", 1)
    lengths = [
        (max(low, shortest), longest if high == LENGTHS[-1][1] else min(high, longest), share)
        for low, high, share in LENGTHS
        if low <= longest and high >= shortest
    ]
    each = [[dtype] for dtype in draws["dtypes"]]
    # the first case of a class is its simplest: classes of few cases would hold little else
    groups = each if planned >= _FEW * len(each) * len(lengths) else [draws["dtypes"]] if draws["dtypes"] else []
    if check.dear and len(groups) == 1 and planned >= _DEAR:  # processes can share what is in several classes
        wide = [d for d in draws["dtypes"] if d not in HALF]
        groups = [group for group in (wide, *([d] for d in HALF if d in draws["dtypes"])) if group]
    whole = len(groups) * sum(share for _, _, share in lengths)
    found = [
        (
            cases(**draws | {"dtypes": group, "min_seq_len": low, "max_seq_len": high}),
            max(1, round(planned * share / whole)),
        )
        for low, high, share in lengths
        for group in groups
    ]
    if check.name in _FINE:
        found += [(cases(**draws | _PLAIN | {"dtypes": group}), 1) for group in each]
    if {"lengths", "causal lengths"} & draws.get("features", frozenset()):
        # a step of decoding, one query and many keys, is what such a function is for: chance alone would leave it to few cases
        found.append((cases(**draws | {"max_seq_len": 1}), max(1, round(planned * _ONE_QUERY))))
    if check.once and subject.kind in ("module", "function"):  # the first case of a class: its simplest
        found += [(cases(**draws | dict(check.once) | {"dtypes": [d]}), 1) for d in draws["dtypes"] if d in _ONCE]
    return found


def _draws(check: Check, subject: Subject, dtypes: Sequence[str]) -> dict[str, Any]:
    draws = dict(check.draws)
    draws["dtypes"] = [d for d in draws.get("dtypes", DTYPES) if d in dtypes]
    if subject.kind in ("model", "replacement"):
        draws.setdefault("n_layers", (1, 2))
        draws.setdefault("regimes", ("sharpened", "near_initial", "large_scores", "ties", "same_sign_v", "constant_v"))
        if draws.get("min_seq_len", 1) <= 130:
            draws["max_seq_len"] = min(draws.get("max_seq_len", 130), 130)
        else:  # a check of long sequences keeps its lengths, in small models
            draws |= {"head_sizes": (), "max_scores": 2**17}
        draws["max_head_size"] = min(draws.get("max_head_size", 24), 24)
    if subject.kind == "function":
        if "scale" in subject.options:
            draws.setdefault("scales", (None, None, 0.25, 1.0))
        if check.name in ("output", "gradients") and "is_causal" in subject.options:
            draws.setdefault("is_causal", (True, False) if subject.features else (True, True, False))
        if check.name in ("output", "gradients"):
            draws["features"] = subject.features
    return draws
