"""Trials of one side on small cases: whether it runs, and with which exception it refuses."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from equivcheck.cases.case import Case
from equivcheck.errors import DeviceLost, Mismatch, UsageError
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import REFERENCE, ensure_foreign, running
from equivcheck.runtime import global_state
from equivcheck.runtime.device import ensure_device_alive

__all__ = ["Trials"]

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_TRIALS = 2  # a refusal repeats
_MOST_CHANNELS, _MOST_SCORES = 1040, 2**20


@dataclass
class Trials:
    """One side of a pair, which is built and run forward and backward on each case once.

    Attributes:
        subject: The pair.
        side: `REFERENCE` or `CANDIDATE`.
        repeated: Whether a refusal must repeat in a module built afresh.
        accident: Says what is wrong with a case on which the side runs; empty if nothing is.
    """

    subject: Pair
    side: str
    accident: Callable[[Case], str] = lambda case: ""
    repeated: bool = True
    _known: dict[Case, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.subject = replace(self.subject, memory=Memory())  # the cache of the run keeps what its cases need

    def refusal(self, case: Case) -> str | None:
        """The exception that repeats in a module built afresh; empty if the side runs.

        None if that is not known: the case takes long, or memory is short.
        """
        if _takes_long(case):
            return None
        if case not in self._known:
            outcomes = [self._once(case)]
            while self.repeated and outcomes[-1] and len(outcomes) < _TRIALS:
                outcomes.append(self._once(case))
            self._known[case] = outcomes[-1] if outcomes[-1] != "" else self.accident(case)
        return self._known[case]

    def runs(self, case: Case) -> bool:
        """Whether the side runs on a case."""
        return self.refusal(case) == ""

    def _once(self, case: Case) -> str | None:
        try:
            problem = self.subject.problem(case)
            with global_state.preserved(), running(self.side):
                module = problem.reference if self.side == REFERENCE else problem.candidate
                problem.run(module, problem.inputs, gradients=True)
        except (UsageError, DeviceLost):
            raise
        except Mismatch:
            return ""  # it runs, and the checks say what is wrong
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError | MemoryError) or _lacks_memory(error):
                return None
            ensure_device_alive(self.subject.device, f"the {self.side} ran on {case.id}", error)
            ensure_foreign(error)
            return f"{type(error).__name__}: {line_of(error)[:160]}"
        return ""


def _takes_long(case: Case) -> bool:
    keys = case.kv_len or case.seq_len
    scores = case.batch_size * case.n_head * case.seq_len * keys
    return case.n_embd > _MOST_CHANNELS or scores > _MOST_SCORES


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)
