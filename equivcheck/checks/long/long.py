"""Long sequences, at which the original's T x T scores do not fit: its definition by blocks of queries is the oracle.

A case stands for a longer one (`lengthened`), so that ids stay small, counterexamples shrink and a replay needs nothing
but the id. The original is never built or run at that length. At a short one it must be plain causal attention, that is
`blockwise.attention` between its own linears. Then those linears around `blockwise.attention` take its place.
"""

import torch

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import ORDINARY
from equivcheck.checks.base.within import within
from equivcheck.checks.long.problem import NotPlain, long_problem
from equivcheck.checks.long.truth import long_truth
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.runtime.device import type_of

__all__ = ["does_not_fit", "lengthened", "long"]

_ON_THE_CPU = (1024, 4096, 16384)
_ON_AN_ACCELERATOR = (1024, 16384, 131072)
_WIDTH = 16


def lengthened(case: Case, device: torch.device) -> Case:
    """The long case that a small one stands for, on this kind of device.

    The small case's `seq_len` selects one of three lengths, and its seed adds 1, 0 or -1. Heads are 16 times as wide,
    so that fused kernels take the simplest case. The mode is eval, and rates are 0. `block_size` is greater than T by
    as much as in the small case.
    """
    lengths = _ON_AN_ACCELERATOR if type_of(device).accelerator else _ON_THE_CPU
    length = lengths[min(case.seq_len, len(lengths)) - 1] + (1, 0, -1)[case.seed % 3]
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
    problem = long_problem(pair, longer)
    try:
        truth = long_truth(pair, problem)
    except NotPlain as why:
        # no oracle is known at this length: T x T scores of the original in float64 cost too much in each run
        return CaseResult(None, notes=(f"long sequences were not judged: {why}",), judged=False, applies=False)
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
