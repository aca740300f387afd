"""The limits of what a caller may give: a rate of exactly 1, and a batch without samples."""

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import failure

__all__ = ["limits"]


def limits(pair: Pair, case: Case) -> CaseResult:
    """At a dropout rate of exactly 1 results are the oracle's, and a batch without samples gives one without samples.

    A limit at which the original raises, or gives values that are not finite, is asked of nobody.
    """
    results = []
    with finding("rate"):
        results += [_at_a_rate_of_one(pair, case, name) for name in _rates(pair)]
    with finding("batch"):
        results.append(_without_samples(pair.problem(case)))
    return CaseResult.together(results) if results else CaseResult()


def _rates(pair: Pair) -> tuple[str, ...]:
    if pair.traits.function:
        return ("attn_pdrop",) if "dropout_p" in pair.options else ()
    return "attn_pdrop", "resid_pdrop"


def _at_a_rate_of_one(pair: Pair, case: Case, name: str) -> CaseResult:
    """Compare with the oracle where everything is dropped: nothing is random then."""
    dropping = case.but(training=True, attn_pdrop=0.0, resid_pdrop=0.0).but(**{name: 1.0})
    problem = pair.problem(dropping)
    reference_results: list[Results] = []

    def original() -> None:
        reference_results.append(problem.run(problem.reference, problem.inputs, gradients=True))

    if failure(original) is not None or not _finite(reference_results[0]):
        return CaseResult(judged=False, applies=False)
    with within(f"at {name}=1"):
        candidate_results = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
        truth = problem.truth(gradients=True)
        names = dict.fromkeys((*truth.values, *candidate_results))
        return compare_all(problem, truth, candidate_results, lambda: reference_results[0], names)


def _finite(results: Results) -> bool:
    return all(bool(value.isfinite().all()) for value in results.values() if value is not None)


def _without_samples(problem: Problem) -> CaseResult:
    """Compare shape and dtype of the result for an empty batch, and that gradients flow back."""
    inputs = tuple(x[:0] for x in problem.inputs)  # (0, ...)

    def run(module: nn.Module) -> dict[str, Tensor]:
        results = problem.run(module, inputs, gradients=False)
        return {name: value for name, value in results.items() if value is not None and value.dim()}

    reference_results: list[dict[str, Tensor]] = []
    if failure(lambda: reference_results.append(run(problem.reference))) is not None:
        return CaseResult(judged=False, applies=False)
    with within("for a batch without samples"):
        candidate_results = candidate_run(problem, run)
        for name, reference_value in reference_results[0].items():
            candidate_value = candidate_results.get(name, torch.empty(()))
            if (candidate_value.shape, candidate_value.dtype) != (reference_value.shape, reference_value.dtype):
                raise Mismatch(
                    f"{name} is {tuple(candidate_value.shape)} {candidate_value.dtype}, "
                    f"and {tuple(reference_value.shape)} {reference_value.dtype} in the original",
                    where=name,
                )
    return CaseResult()


CHECKS = (Check.of("limits", limits, SMALL),)
