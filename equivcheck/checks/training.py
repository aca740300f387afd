"""Training: the same weights, batches and optimizer give the same losses, gradients and weights, step by step.

Rounding alone makes two trainings drift apart. The drift is measured on the original: several trainings in float64
perturb every operation as in the budget, the optimizer's too, and their spread is the band. AdamW divides a gradient by
its size, so a gradient of mere rounding error would move a weight by a whole step of random sign. The `eps` here is far
above rounding: steps are smooth in the gradients, and errors stay proportional.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.tensors import tokens
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import GENERATED
from equivcheck.checks.base.within import within
from equivcheck.checks.dropout.exact import compare_exactly, must_open
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.numerics.oracle import Widened, math_backend
from equivcheck.numerics.quantiles import student_quantile
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.perturbed_runs import in_turn
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import foreign
from equivcheck.pairs.weight_transfer import gradients_of, named_back
from equivcheck.runtime import clock
from equivcheck.runtime.rng import seeded

__all__ = ["training"]

_STEPS = 5
_MOVED, _NORMS = "movement of ", "norms of grad "
_RATE, _EPS = 1e-2, 1e-2
_FEW, _MANY = 4, 12  # trainings of the perturbed original: enough to pass, and enough to fail
_TELLS = 0.1  # of the movement: a wider band shows nothing
_SEEDS = 8  # trainings with dropout, of each

Batches = Sequence[tuple[Tensor, Tensor]]


def training(pair: Pair, case: Case) -> CaseResult:
    """Under AdamW, losses, gradient norms and weights stay within the original's band of rounding, step by step."""
    inside = pair.within_gpt()
    problem = inside.problem(case.but(training=True))
    if case.attn_pdrop or case.resid_pdrop:
        return _with_dropout(inside, problem)
    batches = [tokens(case.but(seed=case.seed + step)) for step in range(_STEPS)]
    batches = [(idx.to(problem.device), targets.to(problem.device)) for idx, targets in batches]
    candidate_results = candidate_run(problem, lambda module: _trained(problem, module, batches))

    def run_reference() -> Results:
        return dict(_trained(problem, problem.make_reference(), batches))

    truth = problem.memory.recall((problem.memory_key, "training"), lambda: _truth(problem, batches))
    moved = math.sqrt(sum(float(v.square().sum()) for n, v in truth.values.items() if n.startswith(_MOVED)))
    band = _norm({n: d[0] for n, d in truth.sample(refined=False).deviations.items()})
    if not band <= _TELLS * moved:
        return CaseResult(
            notes=("the band of rounding is too near to the movement of the weights to tell",),
            judged=False,
            reason="rounding",
        )
    movements = f"in {_STEPS} steps the weights moved by {moved:.3g}, rounding alone by {band:.2g}"
    try:
        return compare_all(problem, truth, dict(candidate_results), run_reference, truth.values)
    except Mismatch:
        distance = _norm(
            {n: candidate_results[n].to(problem.judged_on, torch.float64) - truth.values[n] for n in truth.values}
        )
        with within(f"{movements}, and the candidate is {distance:.2g} from the oracle", separator=":\n"):
            raise


def _norm(results: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(d.square().sum()) for n, d in results.items() if n.startswith(_MOVED)))


def _trained(
    problem: Problem,
    module: nn.Module,
    batches: Batches,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Tensor]:
    """Loss and norm of each gradient at every step, (steps,), and the movement of each weight from start to end."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    everything = dict(module.named_parameters())
    before = {name: p.detach().clone() for name, p in everything.items()}
    losses: list[Tensor] = []
    norms: dict[str, list[Tensor]] = {name: [] for name in named_back(module, named)}
    with seeded(problem.case.seed, problem.device), around():
        # one tensor at a time: each operation of the optimizer can be perturbed
        optimizer = torch.optim.AdamW(named.values(), lr=_RATE, eps=_EPS, foreach=False)
        for batch in batches:
            loss = problem.outputs(module, batch)["loss"]
            optimizer.zero_grad(set_to_none=True)
            with foreign():
                loss.backward()
            losses.append(loss.detach().clone())
            gradients = gradients_of(module)
            zero = torch.zeros_like(losses[-1])
            for name in (*norms, *(gradients.keys() - norms.keys())):  # forward may freeze parameters, or thaw them
                gradient = gradients.get(name)
                norm = zero if gradient is None else torch.linalg.vector_norm(gradient)
                norms.setdefault(name, [zero] * (len(losses) - 1)).append(norm)
            optimizer.step()
    results = {"losses": torch.stack(losses)}
    results |= {f"{_NORMS}{name}": torch.stack(values).detach() for name, values in norms.items()}
    moved = named_back(module, {name: p.detach() - before[name] for name, p in everything.items()})
    return results | {f"{_MOVED}{name}": movement for name, movement in moved.items() if movement is not None}


def _truth(problem: Problem, batches: Batches) -> Truth:
    batches = [(idx.to(problem.judged_on), targets.to(problem.judged_on)) for idx, targets in batches]

    def oracle() -> nn.Module:
        return problem.original_in_float64()[0]

    with clock.in_part(clock.ORACLE), math_backend(), Widened():
        values = _trained(problem, oracle(), batches)
    # a frozen weight has no norm
    values = {name: value for name, value in values.items() if name.replace(_MOVED, _NORMS) in values}

    def perturbed(count: int) -> Sample:
        def run(noise: torch.Generator) -> Mapping[str, Tensor]:
            return _trained(problem, oracle(), batches, lambda: problem.rounding(noise, 1))

        with math_backend():
            return in_turn(problem, values, count, run)

    return Truth(values, perturbed, first=_FEW, many=_MANY)


def _with_dropout(pair: Pair, problem: Problem) -> CaseResult:
    """Compare one step exactly, under the candidate's masks, and the losses of several trainings in distribution."""
    notes: tuple[str, ...] = ()
    try:
        must_open(pair, problem.case)
        result, _ = compare_exactly(problem, candidate_run(problem, lambda m: m, reference=problem.make_reference))
    except NotOpened as error:
        result = CaseResult()
        notes = (f"masks cannot be read off, and training with dropout was judged by its losses alone: {error}",)
    batches = [tuple(x.to(problem.device) for x in tokens(problem.case.but(seed=step))) for step in range(_STEPS)]

    def losses(module: nn.Module, seed: int) -> Tensor:
        with_seed = replace(problem, case=problem.case.but(seed=seed))
        return _trained(with_seed, module, batches)["losses"].double()  # type: ignore[arg-type]  # pairs

    reference_losses = torch.stack([losses(problem.make_reference(), seed) for seed in range(_SEEDS)])  # (seeds, steps)
    candidate_losses = candidate_run(
        problem,
        lambda _: torch.stack([losses(problem.another_candidate(), seed) for seed in range(_SEEDS)]),
        reference=lambda: reference_losses,
    )
    _same_losses(reference_losses, candidate_losses)
    return replace(result, notes=(*result.notes, *notes))


def _same_losses(reference_losses: Tensor, candidate_losses: Tensor) -> None:
    """Welch's test at every step, for losses (seeds, steps): masks may differ, but not their distribution."""
    count, steps = reference_losses.shape
    spread = ((reference_losses.var(0) + candidate_losses.var(0)) / count).sqrt()
    allowed = student_quantile(FALSE_ALARM / steps, count - 1) * spread
    off = (reference_losses.mean(0) - candidate_losses.mean(0)).abs()
    judged = (spread != 0) & torch.isfinite(reference_losses.mean(0))
    over = judged & ~(off <= allowed)  # a loss that is not finite is over, too
    if bool(over.any()):
        step = int(torch.where(over, torch.nan_to_num(off / allowed, nan=math.inf), 0.0).argmax())
        raise Mismatch(
            f"with dropout the loss at step {step + 1} is {float(candidate_losses.mean(0)[step]):.6g} on average, "
            f"and {float(reference_losses.mean(0)[step]):.6g} in the original: "
            f"chance allows {float(allowed[step]):.2g} more or less",
            where="losses",
        )


_TRAINED = GENERATED.but(max_batch_size=2, training=True, train_rates=(0.0, 0.0, 0.2))

CHECKS = (Check.of("training", training, _TRAINED, slow=True, whole=True),)
