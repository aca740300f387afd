"""Memory: the candidate's peak above its inputs against the original's, at growing lengths.

A case stands for longer ones of usual sizes, so that ids stay small and a replay needs nothing but the id and the limit.
"""

import gc
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run, first_line
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.errors import Mismatch, ReferenceRaises
from equivcheck.pairs.backward_pass import flow_back
from equivcheck.pairs.named_outputs import model_outputs, tensor_output
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import failure, foreign
from equivcheck.runtime.device import type_of
from equivcheck.runtime.memory_limit import memory_limit
from equivcheck.runtime.peak_memory import peak_during
from equivcheck.runtime.rng import seeded

__all__ = ["LONGEST", "limiting", "memory", "stands_for"]

LONGEST = 2048
"""There one (T, T) matrix in float32 is 16 MiB, and q, k and v of two heads of 64 are 3 MiB."""
_PARTS = (4, 2, 1)  # of the longest length
_USUAL = {"batch_size": 1, "n_head": 2, "head_size": 64}
_PASSES = ("forward", "forward and backward")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class _Peaks:
    """The peak memory of both sides in one kind of pass, in bytes, at each length."""

    what: str
    lengths: Sequence[int]
    reference: Sequence[int]
    candidate: Sequence[int]

    def share(self, at: int) -> float:
        """How many times the original's peak the candidate's is, at the length of this number."""
        theirs, ours = self.reference[at], self.candidate[at]
        return ours / theirs if theirs else math.inf if ours else 0.0

    @property
    def worst(self) -> int:
        """The number of the length with the greatest share, the longest one of equals."""
        return max(range(len(self.lengths)), key=lambda at: (self.share(at), at))

    @property
    def growth(self) -> str:
        """How both grow with T, from the two longest lengths; empty if there is one alone."""
        if len(self.lengths) < 2:
            return ""
        ours, theirs = (_power(self.lengths, peaks) for peaks in (self.candidate, self.reference))
        return f"memory grows as {ours}, the original's as {theirs}"


def memory(pair: Pair, case: Case, *, limit: float | None = None) -> CaseResult:
    """The peak memory of a pass above its inputs is at most the given number of times the original's."""
    if limit is None:
        return CaseResult(judged=False, applies=False)
    longer = stands_for(pair, case)
    if type_of(pair.device).counts_memory:
        _warm(pair, longer[0])
    measured = [_measured(pair, longer, what) for what in _PASSES]
    most = max(measured, key=lambda peaks: peaks.share(peaks.worst))
    ratio, sizes = most.share(most.worst) / limit, longer[0]
    if ratio > 1:
        raise Mismatch(_message(most, sizes, limit, pair.device), ratio=ratio, where="peak memory")
    notes = tuple(f"{case.dtype}, {peaks.what}: {_in_words(peaks)}" for peaks in measured)
    return CaseResult(ratio, "peak memory", notes)


def stands_for(pair: Pair, case: Case) -> list[Case]:
    """The longer cases that a small one stands for, short ones first; each is in the pair's domain.

    They have one sample and two heads of 64 where the domain has such cases. The longest one has 2048 positions, or as
    many as the domain allows up to there, and the others a quarter and a half of them.
    """
    usual = [case.but(**_USUAL, kv_heads=0, value_size=0), case]
    longest = next(_no_longer(pair, usual, LONGEST), case)
    cases = [next(_no_longer(pair, [longest.but(seq_len=1)], longest.seq_len // part), longest) for part in _PARTS]
    return sorted(dict.fromkeys(cases), key=lambda one: one.seq_len)


def _no_longer(pair: Pair, usual: Iterable[Case], most: int) -> Iterator[Case]:
    """Cases in the domain of at most this length, the longest ones first."""
    for one in usual:
        for length in range(most, one.seq_len, -1):
            for block in dict.fromkeys((length, max(length, one.block_size))):
                longer = one.but(seq_len=length, block_size=block, kv_len=length if one.kv_len else 0)
                if not pair.domain or pair.domain.allows(longer):
                    yield longer


def _measured(pair: Pair, longer: Sequence[Case], what: str) -> _Peaks:
    """The peaks of both sides in one kind of pass, at the lengths at which the original runs.

    Raises:
        ReferenceRaises: It runs at none of them.
        Mismatch: The candidate raises where the original runs.
    """
    lengths: list[int] = []
    reference: list[int] = []
    candidate: list[int] = []
    for case in longer:
        problem = pair.problem(case)
        run = partial(_peak, pair, problem, gradients=what != _PASSES[0])
        refusal = failure(lambda run=run, problem=problem: reference.append(run(problem.reference)))  # type: ignore[misc]
        if refusal is not None:  # it does not fit, or is not meant for such lengths
            if not lengths:
                raise ReferenceRaises(first_line(refusal)) from refusal
            break
        candidate.append(candidate_run(problem, run))
        lengths.append(case.seq_len)
    return _Peaks(what, lengths, reference, candidate)


def _peak(pair: Pair, problem: Problem, module: nn.Module, *, gradients: bool) -> int:
    """The bytes that a module's second pass takes, with what the first one leaves behind, such as a cached mask."""
    outputs = model_outputs if pair.traits.whole_model else tensor_output

    def act() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        if not gradients:
            with torch.no_grad(), foreign():
                outputs(module, problem.inputs)
            return
        leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in problem.inputs]
        with foreign():
            out = outputs(module, leaves)
        flow_back([(out[name], upstream) for name, upstream in problem.upstream.items() if out[name].requires_grad])

    def first() -> None:
        act()
        gc.collect(1)  # the young objects alone: those of this pass

    gc.collect(1)
    with seeded(problem.case.seed, problem.device):
        return peak_during(act, problem.device, first=first)[1]


def _warm(pair: Pair, case: Case) -> None:
    """Let libraries take their workspaces, which stay: they are of no pass."""
    problem = pair.problem(case)
    failure(lambda: _peak(pair, problem, problem.reference, gradients=True))
    candidate_run(problem, partial(_peak, pair, problem, gradients=True))


def _message(peaks: _Peaks, case: Case, limit: float, device: torch.device) -> str:
    at = peaks.worst
    heads = f"{case.n_head} heads of {case.head_size}" if case.n_head > 1 else f"1 head of {case.head_size}"
    lines = [
        f"{peaks.what} takes {_size(peaks.candidate[at])} at T={peaks.lengths[at]}, {peaks.share(at):.3g} times the "
        f"original's {_size(peaks.reference[at])}, and {limit:g} times is the limit: {case.dtype}, "
        f"batch {case.batch_size}, {heads}, {'train' if case.training else 'eval'}, on {device}",
        *(
            f"  T={length}: {_size(ours)}, the original {_size(theirs)}"
            for length, ours, theirs in zip(peaks.lengths, peaks.candidate, peaks.reference, strict=True)
        ),
    ]
    return "\n".join([*lines, f"  {peaks.growth}"] if peaks.growth else lines)


def _in_words(peaks: _Peaks) -> str:
    last = len(peaks.lengths) - 1
    sizes = f"{_size(peaks.candidate[last])} at T={peaks.lengths[last]}, the original {_size(peaks.reference[last])}"
    return f"{sizes}; {peaks.growth}" if peaks.growth else sizes


def _power(lengths: Sequence[int], peaks: Sequence[int]) -> str:
    if not all(peaks[-2:]):
        return "T^0.0"
    return f"T^{math.log(peaks[-1] / peaks[-2]) / math.log(lengths[-1] / lengths[-2]):.1f}"


def _size(count: int) -> str:
    """Bytes in words, in the unit in which they are at least 1."""
    power = min(len(_UNITS) - 1, max(0, count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.3g} {_UNITS[power]}"


def limiting(checks: Iterable[Check], ratio: float | None) -> list[Check]:
    """The checks, with a `memory` that judges against this ratio."""
    limit = memory_limit(ratio)
    if limit is None:
        return list(checks)
    run = partial(memory, limit=limit)
    options = ("--max-memory-ratio", repr(limit))
    return [check.judging(run, *options) if check.name == "memory" else check for check in checks]


_RUN = CaseSpace(
    regimes=("sharpened",),
    layouts=("contiguous",),
    min_seq_len=16,
    max_seq_len=16,
    max_batch_size=1,
    min_heads=2,
    max_heads=2,
    head_sizes=(64,),
    rates=(0.0,),
)

CHECKS = (Check.of("memory", memory, _RUN, extra_case={"training": True}),)
