"""Times of a pair in turn, in which each call has inputs of its number alone and some results are compared afterwards."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.bench.paired_timing import ROUNDS, DoesNotFit, Paired, Pairing
from equivcheck.cases.case import Case
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.named_outputs import model_outputs, tensor_output
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import failure
from equivcheck.pairs.to_device import to_device
from equivcheck.runtime.device import type_of
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["timed_calls"]

_COMPARED = 8  # calls whose results are compared
_SEEDS = 2**31
_CLOCK = time.perf_counter  # bound before the pair is imported: the pair may replace it


@dataclass
class _Calls:
    """The inputs of each call by its number, and the candidate's results of some calls, chosen as the calls are made.

    Nobody can know in advance which calls are chosen: each call is with the same probability among those that are kept.
    """

    problem: Problem
    inputs_of: Callable[[Case], tuple[Tensor, ...]]
    first_seed: int = field(default_factory=lambda: secrets.randbelow(_SEEDS))
    kept: list[tuple[Case, dict[str, Tensor]]] = field(default_factory=list)
    _latest: tuple[int, tuple[Tensor, ...]] | None = None

    def case(self, number: int) -> Case:
        """The case that the inputs of a call come from."""
        return self.problem.case.but(seed=self.first_seed + number)

    def inputs(self, number: int) -> tuple[Tensor, ...]:
        """Fresh copies of the inputs of a call, the same values for both sides."""
        if self._latest is None or self._latest[0] != number:
            self._latest = number, self.inputs_of(self.case(number))
        return tuple(x.clone() for x in self._latest[1])

    def keep(self, number: int, result: dict[str, Tensor]) -> None:
        """Keep the result of a call, or drop it, so that in the end each of all calls is kept equally likely."""
        place = number if number < _COMPARED else secrets.randbelow(number + 1)
        if place < _COMPARED:
            copied = {name: value.detach().clone() for name, value in result.items()}
            self.kept[place : place + 1] = [(self.case(number), copied)]


class _Side:
    """One side's call: `prepare` makes its inputs and takes its last result, outside of the time."""

    def __init__(self, module: nn.Module, calls: _Calls, count: list[int], outputs: Any, *, keeps: bool) -> None:
        self._module, self._calls, self._count, self._outputs, self._keeps = module, calls, count, outputs, keeps
        self._inputs: tuple[Tensor, ...] = ()
        self._result: tuple[int, dict[str, Tensor]] | None = None

    def prepare(self, number: int) -> None:
        """Take the result of the last call, and make the inputs of the next one."""
        self.settle()
        self._inputs = self._calls.inputs(self._count[0])

    def __call__(self, number: int) -> object:
        with torch.no_grad():
            result = self._outputs(self._module, self._inputs)
        self._result = self._count[0], result
        self._count[0] += 1  # warm-up and rounds count as well: no inputs are used twice
        return result

    def settle(self) -> None:
        """Take the result of the last call."""
        if self._result is not None and self._keeps:
            self._calls.keep(*self._result)
        self._result = None


def timed_calls(pair: Pair, dtypes: Sequence[str], seconds: float) -> dict[str, Any]:
    """The times of both sides in turn, and the comparison of some of the candidate's results, as plain data.

    Args:
        pair: The pair, which was judged equivalent.
        dtypes: The dtypes in which it was judged.
        seconds: The time for all rounds.

    Returns:
        The fields of `report.judged.Timed`; or under `untimed` the reason why there is no time.
    """
    problem = _problem(pair, dtypes)
    if problem is None:
        return {"untimed": "no case of usual sizes runs in the original"}
    calls = _Calls(problem, partial(_inputs, pair))
    outputs = model_outputs if pair.traits.whole_model else tensor_output
    counts: dict[bool, list[int]] = {False: [0], True: [0]}
    sides: dict[bool, _Side] = {}

    def make(keeps: bool) -> _Side:
        if keeps in sides:
            sides[keeps].settle()
        module = problem.another_candidate() if keeps else problem.make_reference()
        sides[keeps] = _Side(module, calls, counts[keeps], outputs, keeps=keeps)
        return sides[keeps]

    try:
        with exits_as_errors(), seeded(problem.case.seed, problem.device):
            times = _times(partial(make, False), partial(make, True), problem, seconds)
    except DoesNotFit as error:
        return {"untimed": f"the two do not fit beside each other: {error}"}
    except Exception as error:
        return {"untimed": f"a timed call raised {type(error).__name__}: {line_of(error)[:300]}"}
    if time.perf_counter is not _CLOCK:
        return {"untimed": "the pair replaced the clock"}
    sides[True].settle()
    return {**_plain(times, problem.case), "calls": counts[True][0], **_compared(pair, problem, calls)}


def _times(
    make_first: Callable[[], _Side], make_second: Callable[[], _Side], problem: Problem, seconds: float
) -> Paired:
    pairing = Pairing(make_first, make_second, problem.device)
    for _ in range(ROUNDS):
        pairing.round(seconds / ROUNDS)
    result = pairing.result
    assert result is not None, "there was a round"
    return result


def _plain(times: Paired, case: Case) -> dict[str, Any]:
    return {
        "case": case.id,
        "speed_up": times.ratio,
        "low": times.low,
        "high": times.high,
        "reference_ms": times.first.median_ms,
        "candidate_ms": times.second.median_ms,
    }


def _inputs(pair: Pair, case: Case) -> tuple[Tensor, ...]:
    drawn, _, _ = pair.traits.inputs(case, lambda: pair.sharpened_by_name)
    inputs = tuple(to_device(pair.laid_out(x, case), pair.device) for x in drawn)
    type_of(pair.device).synchronize(pair.device)
    return inputs


def _compared(pair: Pair, problem: Problem, calls: _Calls) -> dict[str, Any]:
    """The number of results that were compared with the oracle, and the first difference among them."""
    for number, (case, result) in enumerate(calls.kept, 1):
        one = replace(pair.problem(case), make_reference=problem.make_reference, memory_key=("timed", case))
        truth = one.truth(gradients=False)

        def reference(one: Problem = one) -> Results:
            return one.run(one.reference, one.inputs, gradients=False)

        given: Results = dict(result)
        try:
            compare_all(one, truth, given, reference, tuple(truth.values))
        except Mismatch as mismatch:
            return {"compared": number, "differs": str(mismatch).partition("\n")[0]}
    return {"compared": len(calls.kept), "differs": ""}


def _problem(pair: Pair, dtypes: Sequence[str]) -> Problem | None:
    """The problem with the weights of all calls: the largest of a few usual sizes with which the original runs."""
    accelerated = type_of(pair.device).accelerator
    usual = ("bfloat16", "float16", "float32") if accelerated else ("float32", "bfloat16", "float16")
    dtype = next((dtype for dtype in (*usual, *DTYPES) if dtype in dtypes or not dtypes), usual[0])
    for case in _sizes(pair, accelerated):
        case = pair.inside(case.but(dtype=dtype))
        with suppress(Exception):
            problem = pair.problem(case)
            if failure(lambda one=problem: one.run(one.reference, one.inputs, gradients=False)) is None:  # type: ignore[misc]
                return problem
    return None


def _sizes(pair: Pair, accelerated: bool) -> Iterator[Case]:
    batch, heads, head_size, length = (8, 12, 64, 1024) if accelerated else (4, 4, 16, 256)
    anchor = pair.sample.but(training=False, attn_pdrop=0.0, resid_pdrop=0.0, steps="", layout="contiguous", mask="")
    large = anchor.but(batch_size=batch, seq_len=length, block_size=length, kv_len=0)
    yield large.but(n_head=heads, head_size=head_size, kv_heads=0, value_size=0)
    yield large
    yield anchor.but(batch_size=batch)
    yield anchor
