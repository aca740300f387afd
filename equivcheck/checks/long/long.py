"""Long sequences, at which the original's T x T scores do not fit: its definition by blocks of queries is the oracle.

A case stands for a longer one (`lengthened`), so that ids stay small, counterexamples shrink and a replay needs nothing
but the id. The original is never built or run at that length. At a short one it must be plain causal attention, that is
`blockwise.attention` between its own linears. Then those linears around `blockwise.attention` take its place.
Any other original is judged at 1025 positions, if it runs there: no oracle by blocks stands for it.
"""

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run, first_line
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import ORDINARY
from equivcheck.checks.base.within import within
from equivcheck.checks.long.problem import NotPlain, long_problem
from equivcheck.checks.long.truth import long_truth
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Results
from equivcheck.pairs.sides import failure
from equivcheck.runtime.device import type_of

__all__ = ["does_not_fit", "lengthened", "long"]

_ON_THE_CPU = (1024, 4096, 16384)
_ON_AN_ACCELERATOR = (1024, 16384, 131072)
_WIDTH = 16
_WHOLE = 1025  # positions, of an original that is not plain causal attention


def lengthened(case: Case, device: torch.device) -> Case:
    """The long case that a small one stands for, on this kind of device.

    The small case's `seq_len` selects one of three lengths in turn, and its seed adds 1, 0 or -1: in a domain of longer
    sequences the small case is no longer than 1024 as often as in any other. Heads are 16 times as wide,
    so that fused kernels take the simplest case. The mode is eval, and rates are 0. `block_size` is greater than T by
    as much as in the small case.
    """
    lengths = _ON_AN_ACCELERATOR if type_of(device).accelerator else _ON_THE_CPU
    length = lengths[(case.seq_len - 1) % len(lengths)] + (1, 0, -1)[case.seed % 3]
    return case.but(
        seq_len=length,
        block_size=length + case.block_size - case.seq_len,
        head_size=_WIDTH * case.head_size,
        training=False,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )


def long(pair: Pair, case: Case) -> CaseResult:
    """At lengths at which T x T scores do not fit, outputs and gradients are within budget of an oracle by blocks."""
    longer = lengthened(case, pair.device)
    if not pair.domain.allows(longer):
        longer = longer.but(head_size=case.head_size)
    if not pair.domain.allows(longer):
        note = f"T={longer.seq_len} is outside of the domain"
        return CaseResult(notes=(note,), judged=False, applies=False)
    problem = long_problem(pair, longer)
    try:
        truth = long_truth(pair, problem)
    except NotPlain as why:
        return _whole(pair, case, str(why))
    try:
        candidate_results = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
        unrecorded = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
    except Mismatch as mismatch:
        if does_not_fit(mismatch.__cause__):
            return CaseResult(
                None,
                notes=(f"the candidate does not fit in memory at T={longer.seq_len}, {longer.dtype}",),
                judged=False,
                reason="memory",
            )
        raise
    names = tuple(dict.fromkeys((*truth.values, *candidate_results)))
    with within(f"at T={longer.seq_len}, for which the case stands", separator=":\n"):
        recorded = compare_all(problem, truth, candidate_results, dict, names)
        result = CaseResult.worst((recorded, compare_all(problem, truth, unrecorded, dict, ("output",))))
    return CaseResult(result.ratio, result.where, (*result.notes, f"T={longer.seq_len}, judged by blocks of queries"))


def _whole(pair: Pair, case: Case, why: str) -> CaseResult:
    """Compare with the whole oracle at a length at which T x T scores still fit: none by blocks is known."""
    sizes = {"batch_size": 1, "n_head": 2 if case.n_head > 1 else 1, "kv_heads": 0}
    longer = case.but(seq_len=_WHOLE, block_size=_WHOLE, training=False, attn_pdrop=0.0, resid_pdrop=0.0, **sizes)
    problem = pair.problem(longer)
    refusal = failure(lambda: problem.run(problem.reference, problem.inputs, gradients=True))
    if refusal is not None:
        note = f"the original does not run at T={_WHOLE}: {first_line(refusal)}"
        return CaseResult(notes=(note,), judged=False, applies=False)
    truth = problem.truth(gradients=True)

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=True)

    candidate_results = candidate_run(problem, run)
    with within(f"at T={_WHOLE}, for which the case stands", separator=":\n"):
        names = dict.fromkeys((*truth.values, *candidate_results))
        result = compare_all(problem, truth, candidate_results, lambda: run(problem.reference), names)
    return CaseResult(result.ratio, result.where, (*result.notes, f"T={_WHOLE}, judged whole: {why}"))


def does_not_fit(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


_LONG = CaseSpace(  # `lengthened` makes long cases of these
    regimes=(*ORDINARY, "same_sign_v", "large_scores"),
    layouts=("contiguous", "transposed"),
    max_seq_len=3,
    max_batch_size=1,
    max_heads=2,
    max_head_size=4,
    training=False,
)

CHECKS = (Check.of("long", long, _LONG),)
