"""Where a difference begins: the innermost submodule that is wrong when it is given the original's input.

The original is run once, and every call of a submodule recorded with its input and with the gradient that comes back to
its output. Each submodule of the candidate is then given what the original's had, and compared with the original's in
float64 within the budget of that submodule alone. Outputs come first, in the order of execution, then gradients, from
the end. A submodule is looked into only if it is wrong itself: what the module around it makes good is no difference.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.engine.innermost import innermost
from equivcheck.errors import Mismatch, NotOpened, ReferenceRaises, UsageError
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, running
from equivcheck.pairs.submodule_calls import ROOT, Call, Key, inner_outputs, problem_of, recorded, same_bits
from equivcheck.report.catalogue import listed, round_of
from equivcheck.report.levels import DROP_IN
from equivcheck.runtime import global_state
from equivcheck.runtime.exits import exits_as_errors

__all__ = ["Place", "place"]

_MOST = 24  # submodules of which perturbed runs are made: a bound on the time
_GRADIENT = "grad "


@dataclass(frozen=True)
class Place:
    """Where a difference begins, in the fields of a `Diagnosis`; empty if that is not known.

    Attributes:
        module: The name of the submodule; empty for the model itself.
        beside: Where in the code of that module itself: `before NAME` or `after NAME` of a submodule in it.
        layers: The ratio of each submodule that was compared, in the order of execution.
    """

    module: str = ""
    beside: str = ""
    layers: dict[str, float] = field(default_factory=dict)


class _Unbounded(Exception):
    """More submodules would have to be compared than the time allows."""


def place(subject: Pair, check: str, failed: Sequence[Case]) -> Place:
    """Where a difference of values begins; nothing if the pair has no submodules or the code of a side raises.

    Args:
        subject: The pair.
        check: The check, or the round of one, that saw the difference.
        failed: The failing cases, the smallest first.

    Raises:
        ToolError: The code of equivcheck itself raised.
    """
    if subject.traits.function or listed(round_of(check)[0]).level == DROP_IN:
        return Place()
    for case in _plain_cases(subject, failed):
        try:
            answer = _Search(subject.problem(case)).place()
        except (Mismatch, NotOpened, ReferenceRaises, UsageError, _Unbounded):
            return Place()
        except Exception as error:
            with running(CANDIDATE):
                ensure_foreign(error)
            return Place()
        if answer is not None:
            known = answer.module or (answer.beside and subject.traits.whole_model)
            return answer if known else Place()
    return Place()


def _plain_cases(subject: Pair, failed: Sequence[Case]) -> Iterator[Case]:
    """The smallest failing case and the largest without dropout, in eval mode and then in the mode that they have."""
    largest = max(failed, key=lambda case: case.batch_size * case.seq_len * case.n_embd * max(1, case.n_layer))
    plain = [
        case.but(training=training, attn_pdrop=0.0, resid_pdrop=0.0, steps="")
        for case in (failed[0], largest)
        for training in (False, case.training)
    ]
    yield from (case for case in dict.fromkeys(plain) if not subject.domain or subject.domain.allows(case))


class _Search:
    """One case, on which submodules are compared."""

    def __init__(self, model: Problem) -> None:
        self.model = model
        self._ratios: dict[Key, float] = {}
        self._left = _MOST

    def place(self) -> Place | None:
        """Where the two sides begin to differ; None if they do not."""
        forward, backward = self._whole()
        if not (forward or backward):
            return None
        self._calls = self._recorded(REFERENCE, self.model.reference)
        self._candidate_calls = self._recorded(CANDIDATE, self.model.candidate)
        inner: dict[Key, list[Key]] = {}
        for key, call in self._calls.items():
            if call.around:
                inner.setdefault(call.around[-1], []).append(key)
        if forward:
            key, clear = innermost(ROOT, inner, self._answers(gradients=False))
            beside = self._beside(key, inner[key]) if clear and inner.get(key) else ""
        else:
            backwards = {around: keys[::-1] for around, keys in inner.items()}
            key, _ = innermost(ROOT, backwards, self._answers(gradients=True))
            beside = ""
        ratios: dict[str, float] = {}
        for name, ratio in ((key[0], self._ratios[key]) for key in self._calls if key in self._ratios):
            ratios[name] = max(ratio, ratios.get(name, 0.0))
        return Place(key[0], beside, ratios)

    def _whole(self) -> tuple[bool, bool]:
        """Whether outputs differ, and whether gradients do."""
        model = self.model
        truth = model.truth(gradients=True)
        results = self._run(CANDIDATE, model, model.candidate, gradients=True)
        of_gradients = {name: name.startswith(_GRADIENT) for name in truth.values}

        def wrong(gradients: bool) -> bool:
            names = [name for name, is_one in of_gradients.items() if is_one == gradients]
            return self._ratio(model, truth, results, names, model.reference, gradients=True) > 1.0

        return wrong(False), wrong(True)

    def _recorded(self, side: str, module: nn.Module) -> dict[Key, Call]:
        def run() -> object:
            return self._run(side, self.model, module, gradients=True)

        return {call.key: call for call in recorded(module, run)}

    @staticmethod
    def _run(side: str, problem: Problem, module: nn.Module, *, gradients: bool) -> Results:
        """The results of a run with autograd, in which a fault may show that is not there without it."""
        upstream: dict[str, Tensor] | None = None if gradients else {}
        with global_state.preserved(), exits_as_errors(), running(side):
            results = problem.run(module, problem.inputs, gradients=True, upstream=upstream)
        return {name: value for name, value in results.items() if gradients or not name.startswith(_GRADIENT)}

    def _ratio(
        self,
        problem: Problem,
        truth: Truth,
        results: Results,
        names: Sequence[str],
        original: nn.Module,
        *,
        gradients: bool,
    ) -> float:
        def run_reference() -> Results:
            return self._run(REFERENCE, problem, original, gradients=gradients)

        try:
            return compare_all(problem, truth, results, run_reference, names).ratio or 0.0
        except Mismatch as mismatch:
            return mismatch.ratio

    def _answers(self, *, gradients: bool) -> Callable[[Key], bool | None]:
        """A function that says whether a submodule is wrong; None if the two cannot be compared."""
        answers: dict[Key, bool | None] = {}

        def wrong(key: Key) -> bool | None:
            if key not in answers:
                answers[key] = self._wrong(key, gradients) if self._shared(key) else None
            return answers[key]

        return wrong

    def _shared(self, key: Key) -> bool:
        """Whether the candidate calls its submodule of this name as often as the original does."""
        counts = [sum(other[0] == key[0] for other in calls) for calls in (self._calls, self._candidate_calls)]
        return counts[0] == counts[1]

    def _wrong(self, key: Key, gradients: bool) -> bool | None:
        try:
            return self._compared(key, gradients)
        except (Mismatch, UsageError):
            return None
        except Exception as error:  # it is called in another way, or needs what the module around it prepares
            if isinstance(error, _Unbounded):
                raise
            with running(CANDIDATE):
                ensure_foreign(error)
            return None

    def _compared(self, key: Key, gradients: bool) -> bool | None:
        call = self._calls[key]
        if gradients and not call.upstream:
            return None  # nothing comes back to it, or a checkpoint hides what does
        part = problem_of(call, self.model)
        original = self.model.reference.get_submodule(call.name)
        reference_results = self._run(REFERENCE, part, original, gradients=gradients)
        candidate_results = self._run(CANDIDATE, part, part.candidate, gradients=gradients)
        again = {name: reference_results.get(name) for name in call.outputs}
        repeats = same_bits(again, dict(call.outputs))
        names, whole = self._comparable(part, original, list(reference_results))
        if repeats and same_bits(*({n: of.get(n) for n in names} for of in (reference_results, candidate_results))):
            return False if whole else None
        if not self._left:
            raise _Unbounded
        self._left -= 1
        truth = part.truth(gradients=gradients)
        names = [name for name in names if name in truth.values]
        if not repeats and self._ratio(part, truth, dict(call.outputs), [*again], original, gradients=gradients) > 1.0:
            return None
        ratio = self._ratio(part, truth, candidate_results, names, original, gradients=gradients)
        if ratio > 1.0:
            known = self._ratio(part, truth, reference_results, names, original, gradients=gradients) <= 1.0
            if not (known and self._repeats(key)):
                return None
        self._ratios[key] = max(ratio, self._ratios.get(key, 0.0))
        return True if ratio > 1.0 else False if whole else None

    def _comparable(self, part: Problem, original: nn.Module, names: Sequence[str]) -> tuple[list[str], bool]:
        """The names of results that both sides have, and whether that is all: parameters of the two may differ."""
        theirs = {name: p.detach() for name, p in part.candidate.named_parameters()}
        same = {
            f"{_GRADIENT}{name}"
            for name, p in original.named_parameters()
            if name in theirs and same_bits({"": p.detach()}, {"": theirs[name]})
        }
        parameters = {f"{_GRADIENT}{name}" for name, _ in original.named_parameters()}
        left = [name for name in names if name not in parameters or name in same]
        return left, len(left) == len(names)

    def _repeats(self, key: Key) -> bool:
        """Whether the candidate's submodule gives the same alone as inside: else it needs what is around it."""
        call = self._candidate_calls[key]
        alone = problem_of(call, self.model)
        results = self._run(CANDIDATE, alone, alone.candidate, gradients=False)
        return same_bits({name: results.get(name) for name in call.outputs}, dict(call.outputs))

    def _beside(self, key: Key, inner: Sequence[Key]) -> str:
        """Between which of its submodules, all of which are right, a module goes wrong."""
        whole = self.model if key == ROOT else problem_of(self._calls[key], self.model)
        first: dict[str, int] = {}
        relative = []
        for name, number in inner:
            first.setdefault(name, number)
            relative.append((name.removeprefix(f"{key[0]}.") if key[0] else name, number - first[name]))
        part = inner_outputs(whole, relative)
        truth = part.truth(gradients=False)
        results = self._run(CANDIDATE, part, part.candidate, gradients=False)
        original = self.model.reference.get_submodule(key[0])
        reference_results = self._run(REFERENCE, part, original, gradients=False)
        if self._ratio(part, truth, reference_results, [*truth.values], original, gradients=False) > 1.0:
            return ""  # the original does something else with autograd
        for at, (name, _) in enumerate(inner):
            names = [label for label in truth.values if label.startswith(f"{at}: ")]
            if self._ratio(part, truth, results, names, original, gradients=False) > 1.0:
                return f"before {name}"
        return f"after {inner[-1][0]}"
