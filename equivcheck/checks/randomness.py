"""Dropout: the joint distribution of outputs and gradients under random masks is the original's, in every mode.

One sequence is repeated along the batch, so that one forward and backward pass gives thousands of independent masks. What a
mask does to outputs and input gradients shows in their means and covariances: the rate, the scaling, what is dropped, masks
shared over heads, queries, batch or calls, and a backward pass with another mask or another factor than the forward pass.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from equivcheck.budget import unit_roundoff
from equivcheck.cases import Case, generator
from equivcheck.checks.holding import Held, Pair, candidate_run
from equivcheck.comparison import FALSE_ALARM, Mismatch, student_quantile
from equivcheck.problem import Problem, seeded

__all__ = ["dropout", "modes"]

_BATCH, _CALLS = 16384, 4  # 65536 masks: a rate of 0.1 that is really 0.09 is some nine standard errors away
_WITHIN = "within a sample"
_NEARLY = 0.1  # a correlation between samples of the original that counts as none
_QUICK_BATCH = 4096
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
    drawn: bool  # the generator moved


def _moments(problem: Problem, module: nn.Module, *, batch: int, calls: int, gradients: bool) -> _Moments:
    case = problem.case
    inputs = [x[:1].expand(batch, *x.shape[1:]).contiguous() for x in problem.inputs]
    flowing = {n: g[:1].expand(batch, *g.shape[1:]).contiguous() for n, g in problem.upstream.items() if g.dim() > 1}
    samples = []
    with seeded(case.seed, problem.device):
        before = _state(problem.device)
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
        drawn = not torch.equal(before, _state(problem.device))
    z = torch.stack(samples)  # (calls, batch, M)
    mean = z.mean((0, 1))  # (M,)
    d = z - mean
    pairs = {_WITHIN: d, "between neighbours in the batch": d.roll(1, 1)}
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
    return _Moments(count, mean, a.square().mean(0), products, errors, repeats, drawn)


def _same(problem: Problem, own: _Moments, mine: _Moments, *, random: bool) -> float:
    """The worst deviation in units of what chance allows; a Mismatch where one is beyond."""
    dtype = problem.case.torch_dtype
    still = not bool(own.variance.any())
    rounding = (_ROUNDINGS * 4 if still else _ROUNDINGS) * unit_roundoff(dtype)
    if mine.drawn and not own.drawn and not random:
        raise Mismatch("the generator was drawn from, and the original draws nothing here", where="generator")
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
        its = mine.products[name]
        if name != _WITHIN:
            # two samples or calls are independent; a candidate that shows it is right where the original's generator
            # is a little less so (torch 2.11 on CUDA showed a covariance of -0.01 once)
            nearly = product.abs() <= _NEARLY * spread.unsqueeze(0) * spread.unsqueeze(1)
            product = torch.where(nearly & (its.abs() <= allowed), its, product)
        worst = max(worst, _judge(f"the covariance {name}", product, its, allowed, problem))
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
    return _same(problem, own, box[0], random=True)


def dropout(pair: Pair, case: Case) -> Held:
    """In train mode the outputs and input gradients have the original's distribution over dropout masks."""
    problem = pair.problem(case.but(training=True, batch_size=1))
    worst = _compare(problem, batch=_BATCH, calls=_CALLS, gradients=True)
    _generator_is_used(problem, problem.reference, problem.candidate)
    return Held(worst, "the distribution over masks")


def _generator_is_used(problem: Problem, reference: nn.Module, candidate: nn.Module) -> None:
    """The same generator state in gives the same result out, and what is drawn next is not what a reseeding would draw."""

    def two_runs(module: nn.Module) -> bool:
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
        return torch.equal(*states)

    if candidate_run(problem, lambda _: two_runs(candidate)) and not two_runs(reference):
        raise Mismatch("after a forward pass the generator is in the same state whatever it was before: it is reseeded")


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _drops(module: nn.Module) -> list[str]:
    return [name for name, sub in module.named_modules() if isinstance(sub, nn.Dropout)]


@dataclass
class _Beside:
    """Reference and candidate side by side, through the same steps."""

    problem: Problem
    reference: nn.Module
    candidate: nn.Module
    length: int
    told: list[str] = field(default_factory=list)

    def both(self, told: str, action: Callable[[nn.Module], object]) -> None:
        """Do the same to both, the original first; what only the candidate raises is a Mismatch."""
        self.told.append(told)
        action(self.reference)
        try:
            action(self.candidate)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise Mismatch(f"the candidate raises {type(error).__name__}: {text}; the original does it") from error

    def inputs(self) -> tuple[Tensor, ...]:
        """The problem's inputs, cut to the length of the moment."""
        return tuple(x[:, : self.length] for x in self.problem.inputs)

    def copied(self) -> None:
        """Both are deep copies from now on, where the original can be copied."""
        try:
            copies = copy.deepcopy(self.reference)
        except Exception:
            return
        self.both("deepcopy", lambda m: copy.deepcopy(m))
        self.reference, self.candidate = copies, copy.deepcopy(self.candidate)


def modes(pair: Pair, case: Case) -> Held:
    """Whatever is switched or changed, in any order, the candidate obeys as the original does.

    Modes, rates, a submodule alone, weights, the length, a deep copy, inference mode before training.
    """
    problem = pair.problem(case.but(training=True, batch_size=1))
    candidate_run(problem, lambda module: module)
    beside = _Beside(problem, problem.reference, problem.candidate, case.seq_len)
    source = generator(case, "modes")
    names = [n for n in _drops(problem.reference) if n in _drops(problem.candidate)]
    worst = 0.0
    order = torch.randperm(len(_STEPS), generator=source).tolist()
    # what is made and kept in inference mode cannot be trained with later: that shows if it comes first
    order = [0, *order] if order[0] % 2 else order
    for step in order:
        choice = [int(torch.randint(60, (), generator=source)) for _ in range(2)]
        try:
            _STEPS[step](beside, names[choice[0] % len(names)] if names else "", choice[1])
            worst = max(worst, _beside(beside, gradients=bool(choice[0] % 2)))
        except Mismatch as error:
            raise Mismatch(
                f"after {', '.join(beside.told)}: {error}",
                ratio=error.ratio,
                where=beside.told[-1] if beside.told else "",
            ) from error
    beside.both("train()", nn.Module.train)
    _generator_is_used(problem, beside.reference, beside.candidate)
    return Held(worst, "the distribution over masks")


def _beside(b: _Beside, *, gradients: bool) -> float:
    """Compare the distributions of the moment; one of a single point where nothing is random."""
    cut = replace(
        b.problem,
        inputs=b.inputs(),
        upstream={n: g[..., : b.length, :] if g.dim() > 1 else g for n, g in b.problem.upstream.items()},
    )
    own = _moments(cut, b.reference, batch=_QUICK_BATCH, calls=1, gradients=gradients)
    box: list[_Moments] = []

    def run(_: nn.Module) -> None:
        box.append(_moments(cut, b.candidate, batch=_QUICK_BATCH, calls=1, gradients=gradients))

    candidate_run(b.problem, run)
    random = any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in b.reference.modules())
    return _same(cut, own, box[0], random=random)


def _inference(b: _Beside, name: str, choice: int) -> None:
    with torch.inference_mode():
        b.both("a call in inference mode", lambda m: b.problem.outputs(m, b.inputs()))


def _train(b: _Beside, name: str, choice: int) -> None:
    b.both("train()", nn.Module.train)


def _eval(b: _Beside, name: str, choice: int) -> None:
    b.both("eval()", nn.Module.eval)


def _rate(b: _Beside, name: str, choice: int) -> None:
    if name:
        rate = (0.0, 0.2, 0.6)[choice % 3]
        b.both(f"{name}.p = {rate}", lambda m: setattr(m.get_submodule(name), "p", rate))


def _alone(b: _Beside, name: str, choice: int) -> None:
    if name:
        mode = not b.reference.get_submodule(name).training
        b.both(f"{name}.train({mode})", lambda m: m.get_submodule(name).train(mode))


def _weights(b: _Beside, name: str, choice: int) -> None:
    def changed(module: nn.Module) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.75)

    b.both("weights times 0.75", changed)


def _length(b: _Beside, name: str, choice: int) -> None:
    b.length = 1 + choice % b.problem.case.seq_len
    b.told.append(f"T = {b.length}")


def _copy(b: _Beside, name: str, choice: int) -> None:
    # what a forward pass with autograd leaves in a module cannot be copied, in the original either
    with torch.no_grad():
        b.both("a call", lambda m: b.problem.outputs(m, b.inputs()))
    b.copied()
    _weights(b, name, choice)


_STEPS: tuple[Callable[[_Beside, str, int], None], ...] = (
    _inference, _train, _eval, _rate, _alone, _weights, _length, _copy, _train, _eval, _rate, _length, _weights,
)  # fmt: skip
