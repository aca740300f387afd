"""Values: outputs, gradients and the logits of a whole model are the oracle's within the budget."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from equivcheck.cases.case import Case, generator
from equivcheck.cases.strategies import MODEL_REGIMES, CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.further_results import each_result
from equivcheck.checks.base.targets import uncounted, without_targets
from equivcheck.checks.base.within import within
from equivcheck.pairs.backward_pass import dense, flow_back
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.weight_transfer import named_back, names_holding
from equivcheck.report.catalogue import MODELS, PARTS
from equivcheck.runtime.rng import seeded

__all__ = ["gradients", "logits", "output"]


def output(pair: Pair, case: Case) -> CaseResult:
    """Outputs are the original's up to rounding: under no_grad, in inference mode, with autograd, call after call."""
    return each_result(pair, case, _compare_outputs)


def _compare_outputs(problem: Problem) -> CaseResult:
    reference = problem.run(problem.reference, problem.inputs, gradients=False)
    truth = problem.truth(gradients=False)

    def inferred(module: nn.Module) -> Results:
        with torch.inference_mode():
            return problem.run(module, problem.inputs, gradients=False)

    def run_reference() -> Results:
        return problem.run(problem.reference, problem.inputs, gradients=False)

    worst = CaseResult()
    for how, run in (
        ("", lambda m: problem.run(m, problem.inputs, gradients=False)),
        ("in inference mode ", inferred),
        ("", lambda m: problem.run(m, problem.inputs, gradients=True)),
    ):
        candidate_results = candidate_run(problem, run)
        with within(how, separator=""):
            result = compare_all(
                problem,
                truth,
                candidate_results,
                run_reference,
                tuple(truth.values),
                reference=None if how else reference,
            )
        worst = CaseResult.worst((worst, result))
    return worst


def _with_gradients(problem: Problem, *, outputs: bool) -> CaseResult:
    reference = problem.run(problem.reference, problem.inputs, gradients=True)
    truth = problem.truth(gradients=True)
    candidate_results = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
    names = dict.fromkeys((*truth.values, *candidate_results))
    result = compare_all(
        problem,
        truth,
        candidate_results,
        lambda: problem.run(problem.reference, problem.inputs, gradients=True),
        [name for name in names if outputs or name.startswith("grad ")],
        reference=reference,
    )
    return CaseResult.worst((result, _compare_few_wanted(problem)))


def _compare_few_wanted(problem: Problem) -> CaseResult:
    """Compare outputs and gradients when only some inputs and parameters need a gradient."""
    truth = problem.truth(gradients=True)
    wanted = _wanted(problem)
    candidate_results = candidate_run(problem, lambda m: _run_wanting(problem, m, wanted))
    names = [name for name in truth.values if not name.startswith("grad ") or name.removeprefix("grad ") in wanted]
    with within(f"where {', '.join(wanted) or 'nothing'} alone {'need' if len(wanted) > 1 else 'needs'} a gradient"):
        return compare_all(
            problem, truth, candidate_results, lambda: _run_wanting(problem, problem.reference, wanted), names
        )


def _wanted(problem: Problem) -> Sequence[str]:
    """Names that need a gradient: all inputs, all parameters, or a random choice of both, as the seed decides."""
    case = problem.case
    parameters = [name for name, p in problem.reference.named_parameters() if p.requires_grad]
    every = [*problem.names, *parameters]
    if problem.names and parameters and case.seed % 3 < 2:
        return (problem.names, parameters)[case.seed % 3]
    source = generator(case, "wanted")
    size = int(torch.randint(len(every), (), generator=source))
    chosen = set(torch.randperm(len(every), generator=source)[:size].tolist())
    return [name for at, name in enumerate(every) if at in chosen]


def _run_wanting(problem: Problem, module: nn.Module, wanted: Sequence[str]) -> Results:
    """As `Problem.run` with gradients, but only of the inputs and parameters that `wanted` names."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    leaves = [x.detach() for x in problem.inputs]
    named = dict(zip(problem.names, [x for x in leaves if x.is_floating_point()], strict=False))
    parameters = [name for name in wanted if name not in named]
    module_names = names_holding(module, parameters)
    try:
        for name, tensor in (*trained.items(), *named.items()):
            tensor.requires_grad_(name in (module_names if name in trained else wanted))
            tensor.grad = None
        with seeded(problem.case.seed, problem.device):
            out = problem.outputs(module, leaves)
            roots = [(v, problem.upstream[n]) for n, v in out.items() if v.requires_grad and n in problem.upstream]
            flow_back(roots)
        results: Results = {name: value.detach() for name, value in out.items()}
        parameter_gradients = named_back(
            module, {name: dense(p.grad) for name, p in trained.items() if name in module_names}
        )
        results |= {f"grad {name}": parameter_gradients.get(name) for name in parameters}
        return results | {f"grad {name}": x.grad for name, x in named.items() if name in wanted}
    finally:
        for p in trained.values():
            p.requires_grad_()
            p.grad = None


def gradients(pair: Pair, case: Case) -> CaseResult:
    """Gradients of all or some inputs and parameters, for a random upstream one, are the original's up to rounding."""
    return each_result(pair, case, partial(_with_gradients, outputs=False), gradients=True)


def logits(pair: Pair, case: Case) -> CaseResult:
    """In a GPT, logits with and without targets, loss and parameter gradients are the original's up to rounding."""
    problem = pair.within_gpt().problem(case)
    result = _with_gradients(problem, outputs=True)
    return (
        result
        if pair.traits.within_gpt
        else CaseResult.together((result, without_targets(problem), uncounted(problem)))
    )


_OF_A_MODEL = CaseSpace(
    max_seq_len=130,
    max_heads=4,
    max_head_size=24,
    regimes=MODEL_REGIMES,
    layouts=("contiguous", "expanded"),
    n_layers=(1, 2, 3, 4),
)
_BY_VALUE: dict[str, Any] = {
    "more_on_gpu": True,
    "fine": True,
    "by_features": True,
    "beyond": PARTS,
    "covering": PARTS,
}

CHECKS = (
    Check.of("output", output, **_BY_VALUE),
    Check.of("gradients", gradients, **_BY_VALUE),
    Check.of("logits", logits, _OF_A_MODEL, deep=True, beyond=MODELS, covering=MODELS),
)
