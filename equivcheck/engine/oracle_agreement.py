"""Whether a user's oracle computes what the original does: the original is compared with it on cases of its dtypes."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch, UsageError
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.runtime.global_state import preserved

__all__ = ["Agreement", "agreement", "agreement_note"]

_CASES, _FEWEST = 50, 25
_DRAWN = 2 * _CASES  # the original refuses some
_REGIMES = ("sharpened", "near_initial", "ties", "one_hot", "zero_rows", "same_sign_v")
"""Those in which right originals stay within their budget: large scores and numbers near a limit are for the checks."""
_SEED = 0  # the oracle of a pair is the same in every run
_SIZES = {"max_seq_len": 96, "max_scores": 2**13, "regimes": _REGIMES}
_TYPICAL = (  # of sizes that kernels take, for a case that the original refuses
    {"head_size": 64, "value_size": 0},
    {"head_size": 64, "value_size": 0, "seq_len": 64, "block_size": 64, "kv_len": 0, "n_head": 2, "kv_heads": 0},
)


@dataclass(frozen=True)
class Agreement:
    """How often an original agrees with its oracle.

    Attributes:
        judged: The number of cases on which both were compared.
        difference: The first case on which they differ, and how, in words; empty if there is none.
        refusal: The last reason for which the original refused a case.
    """

    judged: int
    difference: str = ""
    refusal: str = ""

    @property
    def holds(self) -> bool:
        """Whether they agree on all cases, and on enough."""
        return not self.difference and self.judged >= _FEWEST


def agreement_note(subject: Pair, dtypes: Sequence[str]) -> str:
    """A note that says on how many cases the user's oracle agrees with the original.

    Args:
        subject: The pair, with an oracle of the user.
        dtypes: The dtypes in which it is judged.

    Raises:
        UsageError: It does not agree, or on too few cases.
    """
    name, original = subject.oracle_name, subject.reference_name
    both = agreement(subject, dtypes)
    if both.difference:
        raise UsageError(
            f"the oracle {name} does not compute what the original {original} does: {both.difference}, after "
            f"{both.judged - 1} cases on which they agree; give an oracle that computes the same in exact arithmetic"
        )
    if not both.holds:
        why = f": {both.refusal}" if both.refusal else ""
        raise UsageError(
            f"the oracle {name} could be compared with the original {original} on {both.judged} cases alone, and "
            f"{_FEWEST} are needed, because the original refuses the others{why}"
        )
    return f"the oracle is {name}, which agrees with the original on {both.judged} of {both.judged} cases"


def agreement(subject: Pair, dtypes: Sequence[str]) -> Agreement:
    """The agreement of an original with the user's oracle on up to 50 cases, in both modes, without dropout.

    The original's outputs and gradients must lie within its budget, whose truth is the oracle. Cases that it refuses
    are tried in typical sizes, and else left out.
    """
    judged, refusal = 0, ""
    for case in _drawn(subject, dtypes):
        for tried in (case, *(case.but(**sizes) for sizes in _TYPICAL)):
            why, difference = _compared(subject, tried)
            if not why:
                break
            refusal = why
        else:
            continue
        judged += 1
        if difference:
            return Agreement(judged, difference, refusal)
        if judged == _CASES:
            break
    return Agreement(judged, "", refusal)


def _drawn(subject: Pair, dtypes: Sequence[str]) -> list[Case]:
    """Cases from all classes of the check of gradients, or of a model's logits, evenly mixed."""
    name = "logits" if subject.traits.whole_model else "gradients"
    seen: list[Case] = []

    def collect(_: object, case: Case) -> CaseResult:
        seen.append(case)
        return CaseResult(judged=False)

    check = next(check for check in CHECKS if check.name == name)
    sizes = {key: value for key, value in _SIZES.items() if key != "regimes" or not subject.traits.whole_model}
    check = replace(check, run=collect, space=check.space.but(**sizes), beyond=())
    search = Search(check, subject, _DRAWN, 0.0, math.inf)
    search.run(classes(check, subject, dtypes, _DRAWN), seed_for(_SEED, "oracle"))
    step = next(n for n in range(max(1, len(seen) * 5 // 8), 2 * len(seen) + 2) if math.gcd(n, len(seen)) == 1)
    return [seen[at * step % len(seen)] for at in range(len(seen))]


def _compared(subject: Pair, case: Case) -> tuple[str, str]:
    """Why the original refuses a case, and how it differs from the oracle on it; each empty if it does not."""
    try:
        problem = subject.problem(case)
        with preserved():
            results = problem.run(problem.reference, problem.inputs, gradients=True)
    except Exception as error:
        ensure_foreign(error)
        return f"{type(error).__name__}: {line_of(error)[:160]}", ""
    try:
        truth = problem.truth(gradients=True)
    except Exception as error:
        ensure_foreign(error)
        return "", f"on {case.id} the oracle raises {type(error).__name__}: {line_of(error)[:160]}"
    try:
        compare_all(problem, truth, results, dict, dict.fromkeys((*truth.values, *results)))
    except Mismatch as mismatch:
        what = f"{mismatch.where} is {mismatch.ratio:.3g} times further from the oracle than rounding explains"
        if math.isinf(mismatch.ratio):
            line = str(mismatch).splitlines()[0].removeprefix(f"{mismatch.where}: ")
            what = f"{mismatch.where} cannot be compared ({textwrap.shorten(line, 120, placeholder=' ...')})"
        return "", f"on {case.id} {what}"
    return "", ""
