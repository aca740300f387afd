"""Dropout: the joint distribution of outputs and gradients under random masks is the original's, in every mode.

One sequence is repeated along the batch, so that one forward and backward pass gives thousands of independent masks. What a
mask does to outputs and input gradients shows in their means and covariances: the rate, the scaling, what is dropped, masks
shared over heads, queries, batch or calls, and a backward pass with another mask or another factor than the forward pass.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivcheck.budget import unit_roundoff
from equivcheck.cases import Case, generator
from equivcheck.checks.holding import Held, Pair, candidate_run, hold
from equivcheck.comparison import FALSE_ALARM, Mismatch, student_quantile
from equivcheck.problem import Problem, seeded

__all__ = ["dropout", "modes"]

_BATCH, _CALLS = 16384, 4  # 65536 masks: a rate of 0.1 that is really 0.09 is some nine standard errors away
_QUICK_BATCH = 8192
_ROUNDINGS = 16  # roundings between two right implementations of one mean; a statistic needs no sharper a budget


@dataclass(frozen=True)
class _Moments:
    """Means, and second moments within a sample, between neighbours in the batch, and between successive calls."""

    count: int
    mean: Tensor  # (M,)
    variance: Tensor  # (M,)
    products: dict[str, Tensor]  # (M, M) each
    errors: dict[str, Tensor]  # squared standard errors of the products
    repeats: bool  # the second call gave the first one's results


def _moments(problem: Problem, module: nn.Module, *, batch: int, calls: int, gradients: bool) -> _Moments:
    case = problem.case
    inputs = [x[:1].expand(batch, *x.shape[1:]).contiguous() for x in problem.inputs]
    flowing = {n: g[:1].expand(batch, *g.shape[1:]).contiguous() for n, g in problem.upstream.items() if g.dim() > 1}
    samples = []
    with seeded(case.seed, problem.device):
        for _ in range(calls):
            leaves = [x.detach().requires_grad_(gradients) if x.is_floating_point() else x for x in inputs]
            with torch.set_grad_enabled(gradients):
                out = problem.outputs(module, leaves)
            value = out.get("output", out.get("logits"))
            assert value is not None
            parts = [value.detach()]
            if gradients and flowing and value.requires_grad:
                floats = [x for x in leaves if x.is_floating_point()]
                found = torch.autograd.grad(value, floats, next(iter(flowing.values())), allow_unused=True)
                parts += [torch.zeros_like(x) if g is None else g for x, g in zip(floats, found, strict=True)]
            samples.append(torch.cat([p.reshape(batch, -1).double() for p in parts], dim=1))  # (batch, M)
    z = torch.stack(samples)  # (calls, batch, M)
    mean = z.mean((0, 1))  # (M,)
    d = z - mean
    pairs = {"within a sample": d, "between neighbours in the batch": d.roll(1, 1)}
    if calls > 1:
        pairs["between successive calls"] = d.roll(1, 0)
    count = batch * calls
    a = d.reshape(count, -1)
    products, errors = {}, {}
    for name, other in pairs.items():
        b = other.reshape(count, -1)
        products[name] = a.T @ b / count
        errors[name] = ((a * a).T @ (b * b) / count - products[name].square()).clamp_min(0) / count
    repeats = calls > 1 and torch.equal(z[0], z[1])
    return _Moments(count, mean, a.square().mean(0), products, errors, repeats)


def _same(problem: Problem, own: _Moments, mine: _Moments) -> float:
    """The worst deviation in units of what chance allows; a Mismatch where one is beyond."""
    dtype = problem.case.torch_dtype
    rounding = _ROUNDINGS * unit_roundoff(dtype)
    if not bool(torch.isfinite(own.mean).all()):
        return 0.0
    if not bool(torch.isfinite(mine.mean).all()):
        raise Mismatch("with dropout on, the results are not finite, and the original's are", where="finiteness")
    if mine.repeats and not own.repeats:
        raise Mismatch("every call draws the same dropout mask; the original's differ from call to call", where="calls")
    entries = own.mean.numel() * (1 + 3 * own.mean.numel())
    quantile = student_quantile(FALSE_ALARM / entries, math.inf)
    size = own.mean.abs().max() + own.variance.max().sqrt()
    allowed = quantile * ((own.variance + mine.variance) / own.count).sqrt() + rounding * size
    worst = _judge("the mean", own.mean, mine.mean, allowed, problem)
    spread = own.variance.sqrt()
    for name, product in own.products.items():
        chance = quantile * (own.errors[name] + mine.errors[name]).sqrt()
        allowed = chance + rounding * size * (spread.unsqueeze(0) + spread.unsqueeze(1)) + rounding**2 * size**2
        worst = max(worst, _judge(f"the covariance {name}", product, mine.products[name], allowed, problem))
    return worst


def _judge(what: str, own: Tensor, mine: Tensor, allowed: Tensor, problem: Problem) -> float:
    off = (own - mine).abs()
    ratios = torch.where(off == 0, torch.zeros_like(off), off / allowed)
    worst = float(ratios.max())
    if worst > 1:
        flat = int(ratios.reshape(-1).argmax())
        raise Mismatch(
            f"with dropout on, {what} of outputs and input gradients is not the original's: {float(mine.reshape(-1)[flat]):.6g}, "
            f"and {float(own.reshape(-1)[flat]):.6g} in the original; chance allows a difference of "
            f"{float(allowed.reshape(-1)[flat]):.3g} ({int((ratios > 1).sum())} of {ratios.numel()} entries beyond)",
            ratio=worst,
            where=what,
        )
    return worst


def _compare(problem: Problem, *, batch: int, calls: int, gradients: bool) -> float:
    own = _moments(problem, problem.reference, batch=batch, calls=calls, gradients=gradients)
    box: list[_Moments] = []

    def run(module: nn.Module) -> dict[str, Tensor | None]:
        box.append(_moments(problem, module, batch=batch, calls=calls, gradients=gradients))
        return {}

    candidate_run(problem, run)
    return _same(problem, own, box[0])


def dropout(pair: Pair, case: Case) -> Held:
    """In train mode the outputs and input gradients have the original's distribution over dropout masks."""
    problem = pair.problem(case.but(training=True, batch_size=1))
    worst = _compare(problem, batch=_BATCH, calls=_CALLS, gradients=True)
    _generator_is_used(problem)
    return Held(worst, "the distribution over masks")


def _generator_is_used(problem: Problem) -> None:
    """The same generator state in gives the same result out, and what is drawn next is not what a reseeding would draw."""
    def two_runs(module: nn.Module) -> dict[str, Tensor | None]:
        states = []
        for seed in (problem.case.seed, problem.case.seed + 1):
            with seeded(seed, problem.device):
                first = problem.outputs(module, problem.inputs)
                states.append(_state(problem.device))
            with seeded(seed, problem.device):
                second = problem.outputs(module, problem.inputs)
            for name, value in first.items():
                if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(second[name])):
                    raise Mismatch("the same generator state gives two different results", where=name)
        return {"same": torch.tensor(float(torch.equal(*states)))}

    own = two_runs(problem.reference)["same"]
    mine = candidate_run(problem, two_runs)["same"]
    if mine is not None and own is not None and bool(mine) and not bool(own):
        raise Mismatch("after a forward pass the generator is in the same state whatever it was before: it is reseeded")


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _drops(module: nn.Module) -> list[str]:
    return [name for name, sub in module.named_modules() if isinstance(sub, nn.Dropout)]


def modes(pair: Pair, case: Case) -> Held:
    """Whatever is switched, in any order, the candidate obeys as the original does: modes, rates, a submodule alone."""
    problem = pair.problem(case.but(training=True, batch_size=1))
    source = generator(case, "modes")
    names = [n for n in _drops(problem.reference) if n in _drops(problem.candidate)] if problem.names != ("q", "k", "v") else []
    told: list[str] = []
    worst = 0.0
    for _ in range(5):
        step = int(torch.randint(5, (), generator=source))
        name = names[int(torch.randint(len(names), (), generator=source))] if names else ""
        rate = (0.0, 0.2, 0.6)[int(torch.randint(3, (), generator=source))]
        switch: Callable[[nn.Module], object]
        if step == 0 or (step > 2 and not name):
            told.append("train()")
            switch = nn.Module.train
        elif step < 3:
            told.append("eval()")
            switch = nn.Module.eval
        elif step == 3:
            told.append(f"{name}.p = {rate}")
            switch = lambda m, name=name, rate=rate: setattr(m.get_submodule(name), "p", rate)  # noqa: E731
        else:
            told.append(f"{name}.train(not {name}.training)")
            switch = lambda m, name=name: m.get_submodule(name).train(not m.get_submodule(name).training)  # noqa: E731
        switch(problem.reference)
        switch(problem.candidate)
        try:
            worst = max(worst, _compare(problem, batch=_QUICK_BATCH, calls=1, gradients=False))
        except Mismatch as error:
            raise Mismatch(f"after {', '.join(told)}: {error}", ratio=error.ratio, where=told[-1]) from error
    problem.reference.eval()
    problem.candidate.eval()
    return Held(worst, "the distribution over masks")
