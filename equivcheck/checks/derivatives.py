"""Derivatives beyond the first backward pass: second ones, forward mode, vectorised maps and per-sample gradients."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.checks.base.under_transforms import Transform, compare_transformed, plain_pass
from equivcheck.errors import Mismatch
from equivcheck.pairs.named_outputs import Shell
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import failure, foreign
from equivcheck.pairs.weight_transfer import named_back, named_over, original_shapes

__all__ = ["derivatives", "original_has"]

Tensors = dict[str, Tensor]


def derivatives(pair: Pair, case: Case) -> CaseResult:
    """Second derivatives, `torch.func.jvp`, `vmap` and per-sample gradients are the oracle's, or refused loudly."""
    problem = pair.problem(case)
    plain_pass(problem)
    results: list[CaseResult] = []
    failed: list[Mismatch] = []
    for what, (transform, plainly) in _TRANSFORMS.items():
        try:
            results.append(compare_transformed(problem, what, transform, plainly))
        except Mismatch as error:
            failed.append(error)
    if failed:  # the message names every transform that failed
        worst = max(failed, key=lambda error: error.ratio)
        raise Mismatch("\n".join(map(str, failed)), ratio=worst.ratio, where=worst.where)
    return CaseResult.together(results)


def _direction(problem: Problem, name: str, like: Tensor) -> Tensor:
    """A random direction of differentiation, the same for the candidate and the oracle."""
    draw = torch.randn(like.shape, generator=generator(problem.case, f"direction {name}"), dtype=torch.float64)
    return draw.to(problem.case.torch_dtype).to(like)


def _directions(problem: Problem, module: nn.Module, given: Tensors, parameters: Tensors) -> Tensors:
    """A direction for each input and parameter; a transfer of weights carries over their directions, too."""
    inputs = {name: _direction(problem, name, x) for name, x in given.items()}
    if not parameters:
        return inputs
    like = next(iter(parameters.values()))
    of_reference = {
        name: _direction(problem, name, like.new_empty(shape)) for name, shape in original_shapes(module).items()
    }
    return inputs | {name: value for name, value in named_over(module, of_reference).items() if name in parameters}


def _named(problem: Problem, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensors]:
    """The floating inputs and the trainable parameters, by name."""
    floats = [x for x in inputs if x.is_floating_point()]
    given = dict(zip(problem.names, floats, strict=True)) if problem.names else {}
    return given, {name: p for name, p in module.named_parameters() if p.requires_grad}


def _weighted(out: Mapping[str, Tensor], upstream: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(value * upstream[name]).sum() for name, value in out.items() if name in upstream]).sum()


def _functional(problem: Problem, module: nn.Module) -> Callable[[Tensors, Sequence[Tensor]], Tensors]:
    """The named outputs as a function of the parameters and the inputs."""
    shell = Shell(module, problem.outputs)

    def function(parameters: Tensors, inputs: Sequence[Tensor]) -> Tensors:
        inner = {f"inner.{name}": value for name, value in parameters.items()}
        outputs: Tensors = torch.func.functional_call(shell, inner, tuple(inputs))
        return outputs

    return function


def second(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], upstream: Mapping[str, Tensor]) -> Tensors:
    """Gradients of a random combination of all first derivatives in inputs, parameters and the upstream gradient."""
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    given, parameters = _named(problem, module, leaves)
    flowing = {name: value.detach().requires_grad_() for name, value in upstream.items()}
    wanted = given | parameters
    total = _weighted(problem.outputs(module, leaves), flowing)
    first = torch.autograd.grad(total, list(wanted.values()), create_graph=True, allow_unused=True)
    directions = _directions(problem, module, given, parameters)
    combined = [(g * directions[name]).sum() for name, g in zip(wanted, first, strict=True) if g is not None]
    # not torch.autograd.grad: it silently ignores that a function is marked as once differentiable
    torch.stack(combined).sum().backward()
    gradients = {name: x.grad for name, x in given.items()}
    gradients |= {f"upstream {name}": x.grad for name, x in flowing.items()}
    gradients |= named_back(module, {name: p.grad for name, p in parameters.items()})
    return {f"second grad {name}": value.detach() for name, value in gradients.items() if value is not None}


def forward_mode(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], _: Mapping[str, Tensor]) -> Tensors:
    """Directional derivatives of the outputs, for random directions of inputs and parameters, by `torch.func.jvp`."""
    given, parameters = _named(problem, module, [x.detach() for x in inputs])
    function = _functional(problem, module)
    primals = ({name: p.detach() for name, p in parameters.items()}, given)
    directions = _directions(problem, module, given, parameters)
    tangents = tuple({name: directions[name] for name in part} for part in primals)

    def run(parameters: Tensors, given: Tensors) -> Tensors:
        return function(parameters, list(given.values()) or inputs)

    moved = torch.func.jvp(run, primals, tangents)[1]
    return {f"tangent of {name}": value for name, value in moved.items()}


def twice_backward(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], _: Mapping[str, Tensor]) -> Tensors:
    """The same as `forward_mode`, by two backward passes: the gradient in v of Jᵀv times a direction."""
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    given, parameters = _named(problem, module, leaves)
    wanted = given | parameters
    out = problem.outputs(module, leaves)
    flowing = {name: torch.zeros_like(value).requires_grad_() for name, value in out.items()}
    back = torch.autograd.grad(
        list(out.values()), list(wanted.values()), list(flowing.values()), create_graph=True, allow_unused=True
    )
    directions = _directions(problem, module, given, parameters)
    combined = [(g * directions[name]).sum() for name, g in zip(wanted, back, strict=True) if g is not None]
    moved = torch.autograd.grad(torch.stack(combined).sum(), list(flowing.values()))
    return {f"tangent of {name}": value for name, value in zip(flowing, moved, strict=True)}


def mapped(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], _: Mapping[str, Tensor]) -> Tensors:
    """Outputs of two batches in one `torch.func.vmap`; the second is the first with its positions reversed."""
    both = [torch.stack((x, x.flip(1))) for x in inputs]
    with torch.no_grad():
        out = torch.func.vmap(lambda *given: problem.outputs(module, given))(*both)
    return {f"mapped {name}": value for name, value in out.items()}


def one_by_one(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], _: Mapping[str, Tensor]) -> Tensors:
    """The same as `mapped`, in two calls."""
    with torch.no_grad():
        outs = [problem.outputs(module, given) for given in (inputs, [x.flip(1) for x in inputs])]
    return {f"mapped {name}": torch.stack([out[name] for out in outs]) for name in outs[0]}


def per_sample(
    problem: Problem, module: nn.Module, inputs: Sequence[Tensor], upstream: Mapping[str, Tensor]
) -> Tensors:
    """The gradient of every parameter and input for each sample by itself, by `torch.func.vmap` of `grad`."""
    given, parameters = _named(problem, module, [x.detach() for x in inputs])
    function = _functional(problem, module)
    parameters = {name: p.detach() for name, p in parameters.items()}
    whole = {name: value for name, value in upstream.items() if value.dim() == 0}
    rows = {name: value for name, value in upstream.items() if value.dim() > 0}

    def weighted(parameters: Tensors, row: Sequence[Tensor], flowing: Tensors) -> Tensor:
        out = function(parameters, [x.unsqueeze(0) for x in row])
        return _weighted({name: value.squeeze(0) for name, value in out.items()}, whole | flowing)

    argnums = (0, 1) if given else (0,)
    gradient = torch.func.grad(weighted, argnums=argnums)
    gradients = torch.func.vmap(gradient, in_dims=(None, 0, 0 if rows else None))(parameters, tuple(inputs), rows)
    each = [named_back(module, {n: g[at] for n, g in gradients[0].items()}) for at in range(inputs[0].shape[0])]
    results = {
        f"per-sample grad {name}": torch.stack([value for row in each if (value := row[name]) is not None])
        for name, first in each[0].items()
        if first is not None
    }
    if given:
        results |= {f"per-sample grad {name}": value for name, value in zip(given, gradients[1], strict=True)}
    return results


def sample_by_sample(
    problem: Problem, module: nn.Module, inputs: Sequence[Tensor], upstream: Mapping[str, Tensor]
) -> Tensors:
    """The same as `per_sample`, by one backward pass for each sample."""
    rows = []
    for at in range(inputs[0].shape[0]):
        leaves = [x[at : at + 1].detach().requires_grad_(x.is_floating_point()) for x in inputs]
        given, parameters = _named(problem, module, leaves)
        flowing = {name: value if value.dim() == 0 else value[at : at + 1] for name, value in upstream.items()}
        wanted = given | parameters
        total = _weighted(problem.outputs(module, leaves), flowing)
        gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True, materialize_grads=True)
        rows.append([g.squeeze(0) if name in given else g for name, g in zip(wanted, gradients, strict=True)])
    return {
        f"per-sample grad {name}": torch.stack(column)
        for name, column in zip(wanted, zip(*rows, strict=True), strict=True)
    }


_TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "second derivatives": (second, second),
    "torch.func.jvp": (forward_mode, twice_backward),
    "torch.func.vmap": (mapped, one_by_one),
    "per-sample gradients": (per_sample, sample_by_sample),
}
"""The transform of the candidate, and a plain way to the same values for the oracle, by name."""


def original_has(pair: Pair, what: str) -> bool:
    """Whether the original itself runs under a transform in a wide dtype: fused kernels have no second derivative."""
    for dtype in ("float64", "float32"):
        problem = pair.problem(pair.inside(pair.anchor).but(dtype=dtype))

        def run(problem: Problem = problem) -> None:
            with foreign():
                _TRANSFORMS[what][0](problem, problem.reference, problem.inputs, problem.upstream)

        if failure(run) is None:  # in no dtype: the check notes that there is nothing to compare
            return True
    return False


CHECKS = (Check.of("derivatives", derivatives, TRANSFORMED),)
