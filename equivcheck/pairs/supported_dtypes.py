"""The dtypes in which a pair is judged: the original runs in them, and the candidate does not refuse them."""

from collections.abc import Sequence
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_solving import nearest
from equivcheck.errors import NoOracle, UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime import global_state
from equivcheck.runtime.device import ensure_device_alive

__all__ = ["usable_dtypes"]

_PROBES = (  # of several sizes: a candidate refuses a dtype if it refuses all of them
    Case(),
    Case(batch_size=1, seq_len=2, n_head=1, head_size=8, block_size=8),
    Case(batch_size=2, seq_len=16, n_head=2, head_size=16, block_size=16),
    Case(batch_size=1, seq_len=64, n_head=1, head_size=64, block_size=64),
    Case(batch_size=1, seq_len=33, n_head=2, head_size=32, block_size=40),
)


_HOW = {
    True: "a function of the same signature that computes the same in float64, on this device or on the CPU",
    False: "a factory like the original, with the same names of parameters, that computes the same in float64",
}


def usable_dtypes(subject: Pair, asked: Sequence[str] = DTYPES) -> tuple[list[str], dict[str, str]]:
    """The dtypes in which the pair is judged, and those that the candidate refuses in every size.

    If the candidate fails in every dtype, all stay, so that the checks report the failure. A dtype also stays if the
    candidate built its weights in another dtype, as a replacement that puts new modules into a model in half precision.

    Args:
        subject: The pair.
        asked: The dtypes to try.

    Returns:
        The dtypes to judge in, and the reason of each refused dtype.

    Raises:
        NoOracle: The original does not run in float64, and no oracle was given.
        UsageError: The oracle does not run in float64, or the original in none of the dtypes.
    """
    anywhere = [subject.inside(p.but(**_model_fields(subject))) for p in _sizes(subject)]
    oracle = [_failure(subject, p, "oracle") for p in anywhere]
    if all(oracle):
        _refuse_original_that_runs_nowhere(subject, [*anywhere, *(p for d in asked for p in _probes(subject, d))])
    if all(oracle) and subject.oracle is not None:
        raise UsageError(
            f"the oracle {subject.oracle_name} does not run in float64, in which the truth is computed: {oracle[-1]}"
        )
    if all(oracle):
        raise NoOracle(
            f"the original {subject.reference_name} does not run in float64, in which the truth is computed "
            f"({oracle[-1]}): give --oracle, {_HOW[subject.traits.function]}"
        )
    usable, refused = [], {}
    for dtype in asked:
        probes = _probes(subject, dtype)
        if not probes:
            continue  # no case of this dtype is in the domain
        if all(_failure(subject, p, "reference") for p in probes):
            continue  # the original does not run: there is nothing to compare
        reasons = [_failure(subject, p, "candidate") for p in probes]
        if all(reasons) and _keeps_dtypes(subject, probes[0]):
            refused[dtype] = f"{dtype}: {reasons[0]}"
        else:
            usable.append(dtype)
    if not usable and not refused:
        if not any(_probes(subject, dtype) for dtype in asked):
            raise UsageError(
                f"domain {subject.domain.text!r} has no case in {', '.join(asked)}: allow one of these dtypes"
            )
        _refuse_original_that_runs_nowhere(subject, [p for dtype in asked for p in _probes(subject, dtype)])
        raise UsageError(
            f"the original {subject.reference_name} runs in none of {', '.join(asked)} on {subject.device}: "
            f"{_failure(subject, anywhere[0], 'reference')}"
        )
    return (usable, refused) if usable else (list(refused), {})


def _sizes(subject: Pair) -> tuple[Case, ...]:
    """The sizes of the probes; the first is the anchor of an original that refuses small ones."""
    anchor = subject.anchor.but(training=False, n_layer=0, vocab_size=1, dtype="float32")
    return _PROBES if subject.anchor == SAMPLE else (anchor, *_PROBES)


def _probes(subject: Pair, dtype: str) -> list[Case]:
    """The probes of a dtype, moved into the domain; none if the domain has no case of it."""
    probes = [p.but(dtype=dtype, **_model_fields(subject)) for p in _sizes(subject)]
    if not subject.domain:
        return probes
    moved = [nearest(p, subject.domain & Domain.parse(f"dtype == {dtype!r}")) for p in probes]
    return list(dict.fromkeys(p for p in moved if p is not None))


def _refuse_original_that_runs_nowhere(subject: Pair, probes: Sequence[Case]) -> None:
    """Make sure that the original runs in some of the probes, by themselves."""
    probes = [p for p in probes if subject.domain.allows(p)] or probes
    reasons = [_failure(subject, p, "reference") for p in probes]
    if all(reasons):
        where, what = (f" in the domain {subject.domain.text!r}", "the domain or ") if subject.domain else ("", "")
        raise UsageError(
            f"the original {subject.reference_name} refuses every case that was tried{where}, "
            f"first with {reasons[0]}, on {probes[0].id}: correct {what}the original"
        )


def _model_fields(subject: Pair) -> dict[str, Any]:
    return {"n_layer": 1, "vocab_size": 17} if subject.traits.whole_model else {}


def _keeps_dtypes(subject: Pair, case: Case) -> bool:
    """Whether the candidate has its weights in the dtypes of the original's, or cannot be built."""
    try:
        problem = subject.problem(case)
        with global_state.preserved():
            candidate_dtypes = {name: p.dtype for name, p in problem.candidate.named_parameters()}
    except Exception:
        return True
    return all(candidate_dtypes.get(name, p.dtype) == p.dtype for name, p in problem.reference.named_parameters())


def _failure(subject: Pair, case: Case, which: str) -> str:
    try:
        problem = subject.problem(case)
        with global_state.preserved():
            if which == "oracle":
                problem.oracle_values(gradients=False)
                return ""
            with running(CANDIDATE if which == "candidate" else REFERENCE):
                module = problem.reference if which == "reference" else problem.candidate
                problem.run(module, problem.inputs, gradients=True)
    except Overwritten:
        return ""  # it runs
    except Exception as error:
        ensure_device_alive(subject.device, f"the {which} ran on {case.id}", error)
        ensure_foreign(error)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""
