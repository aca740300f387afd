"""Which dtypes a pair can be judged in: those in which the original runs, less those that the candidate refuses as a whole."""

from collections.abc import Sequence
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime import global_state
from equivcheck.runtime.device import ensure_device_alive

__all__ = ["usable_dtypes"]

_PROBES = (  # of several sizes: what refuses only some of them does not refuse the dtype
    Case(),
    Case(batch_size=1, seq_len=2, n_head=1, head_size=8, block_size=8),
    Case(batch_size=2, seq_len=16, n_head=2, head_size=16, block_size=16),
    Case(batch_size=1, seq_len=64, n_head=1, head_size=64, block_size=64),
    Case(batch_size=1, seq_len=33, n_head=2, head_size=32, block_size=40),
)


def usable_dtypes(subject: Pair, asked: Sequence[str] = DTYPES) -> tuple[list[str], dict[str, str]]:
    """The dtypes to judge in, and those that the candidate refuses as a whole; a UsageError where the original runs in none.

    A candidate that runs in none of them refuses no dtype: it is broken, and the checks are to say so. So is one whose weights
    are not of the dtype that it was asked for, as where new modules replace those of a model in half precision.
    """
    oracle = [_raises(subject, p.but(**_model_fields(subject)), "oracle") for p in _PROBES]
    if all(oracle):
        raise UsageError(
            f"the original {subject.reference_name} does not run in float64, in which the truth is found: {oracle[-1]}"
        )
    usable, refused = [], {}
    for dtype in asked:
        probes = [p.but(dtype=dtype, **_model_fields(subject)) for p in _PROBES]
        if all(_raises(subject, p, "reference") for p in probes):
            continue  # the original itself does not run: there is nothing to compare
        reasons = [_raises(subject, p, "candidate") for p in probes]
        if all(reasons) and _keeps(subject, probes[0]):
            refused[dtype] = f"{dtype}: {reasons[0]}"
        else:
            usable.append(dtype)
    if not usable and not refused:
        raise UsageError(
            f"the original {subject.reference_name} runs in none of {', '.join(asked)} on {subject.device}: "
            f"{_raises(subject, _PROBES[0].but(**_model_fields(subject)), 'reference')}"
        )
    return (usable, refused) if usable else (list(refused), {})


def _model_fields(subject: Pair) -> dict[str, Any]:
    return {"n_layer": 1, "vocab_size": 17} if subject.traits.whole_model else {}


def _keeps(subject: Pair, case: Case) -> bool:
    """Whether the candidate as built holds its weights in the dtype in which the original holds them, or is not built at all."""
    try:
        problem = subject.problem(case)
        with global_state.preserved():
            mine = {name: p.dtype for name, p in problem.candidate.named_parameters()}
    except Exception:
        return True
    return all(mine.get(name, p.dtype) == p.dtype for name, p in problem.reference.named_parameters())


def _raises(subject: Pair, case: Case, which: str) -> str:
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
