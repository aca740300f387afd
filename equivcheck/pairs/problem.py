"""A case made real: reference, candidate and oracle with the same weights, their inputs, and what running them gives."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from equivcheck.cases.case import REPEATING, Case
from equivcheck.errors import NotOpened
from equivcheck.numerics.detached_max import Maxima, same_without
from equivcheck.numerics.error_model import ErrorModel
from equivcheck.numerics.monte_carlo import Rounding
from equivcheck.numerics.oracle import Greatest, Widened, spelled_out, to_float64
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.reference import Original
from equivcheck.pairs.sides import REFERENCE, finding_truth, foreign, running
from equivcheck.pairs.weight_transfer import gradients_of
from equivcheck.pairs.write_guard import Guard
from equivcheck.runtime.device import type_of
from equivcheck.runtime.exits import held_back
from equivcheck.runtime.rng import seeded

__all__ = [
    "Problem",
    "Results",
    "Shell",
    "backward",
    "dense",
    "flow_back",
]

Results = dict[str, Tensor | None]
Outputs = Callable[[nn.Module, Sequence[Tensor]], dict[str, Tensor]]
Around = Callable[[nn.Module, torch.device], AbstractContextManager[object]]

_LARGE, _FEW = (
    2**15,
    2,
)  # from so many scores on, two first runs are enough: there are more elements to learn the spread from


def backward(roots: Sequence[tuple[Tensor, Tensor]], module: nn.Module) -> None:
    """A backward pass from values with their upstream gradients into the leaves' `.grad`; the module's are left empty.

    Not `torch.autograd.grad`: a right attention may refuse that and train as well as any, as reentrant activation
    checkpointing does.
    """
    flow_back(roots)
    for parameter in module.parameters():
        parameter.grad = None


def flow_back(roots: Sequence[tuple[Tensor, Tensor]], *, retain_graph: bool = False) -> None:
    """A backward pass from values with their upstream gradients; what it raises is the pair's."""
    if roots:
        with foreign():
            torch.autograd.backward(
                [value for value, _ in roots], [gradient for _, gradient in roots], retain_graph=retain_graph
            )


def dense(gradient: Tensor | None) -> Tensor | None:
    """A gradient in the layout in which it is compared: that of an embedding may be sparse."""
    return gradient if gradient is None or gradient.layout == torch.strided else gradient.to_dense()


@dataclass
class Problem:
    """What a check runs: three modules that hold the same weights, and inputs made from the case's seed.

    `names` are those of the floating inputs; `outputs` turns a forward pass into named tensors; `upstream` has the
    gradient that flows into each of them; `around_reference` is entered around each run of the original on a device: dropout
    masks are put in there. The oracle runs on `oracle_device`, by default the one of the problem: what is small is quicker on
    the CPU.
    """

    case: Case
    device: torch.device
    make_reference: Callable[[], nn.Module]
    make_candidate: Callable[[Callable[[], nn.Module]], nn.Module]
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]
    outputs: Outputs
    upstream: Mapping[str, Tensor]
    memory: Memory
    memory_key: Hashable
    guard: Guard
    around_reference: Around | None = None
    oracle_device: torch.device | None = None

    @property
    def judged_on(self) -> torch.device:
        """Where the oracle runs, and where results are compared with it."""
        return self.oracle_device or self.device

    def within(self, original: nn.Module, device: torch.device | None = None) -> AbstractContextManager[object]:
        """What is around a run of the original, which is on `device` (by default the problem's)."""
        return (
            nullcontext() if self.around_reference is None else self.around_reference(original, device or self.device)
        )

    @cached_property
    def reference(self) -> nn.Module:
        """The original with the case's weights, dtype, device and mode."""
        return self.make_reference()

    @cached_property
    def candidate(self) -> nn.Module:
        """The candidate with the reference's weights; raises whatever building it raises."""
        return self.another_candidate()

    def another_candidate(self) -> nn.Module:
        """A candidate that nothing has run."""
        return self.make_candidate(self.make_reference)

    def run(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        *,
        gradients: bool,
        upstream: Mapping[str, Tensor] | None = None,
    ) -> Results:
        """Named outputs of one forward pass and, with `gradients`, of one backward pass: inputs and parameters alike.

        Every run starts from the case's generator state, with the module's own mode, and leaves no gradient behind.
        """
        with held_back(), seeded(self.case.seed, self.device):
            if not gradients:
                with torch.no_grad():
                    return self._taken_over(self.outputs(module, inputs))
            leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
            with foreign():
                parameters = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
            for _, parameter in parameters:
                parameter.grad = None
            flowing = self.upstream if upstream is None else upstream
            with self.guard.over(module, self.named_inputs(leaves) | {f"upstream {n}": g for n, g in flowing.items()}):
                out = self.outputs(module, leaves)
                roots = [(v, flowing[name]) for name, v in out.items() if v.requires_grad and name in flowing]
                results = self._taken_over(out)
                flow_back(roots)
            for name, leaf in zip(self.names, [x for x in leaves if x.is_floating_point()], strict=False):
                results[f"grad {name}"] = dense(leaf.grad)
            results |= {f"grad {name}": dense(gradient) for name, gradient in gradients_of(module).items()}
            for _, parameter in parameters:
                parameter.grad = None
            return results

    def _taken_over(self, values: Mapping[str, Tensor]) -> Results:
        """Copies of results, once the device has done all that it was given: what writes to them later changes nothing."""
        type_of(self.device).synchronize(self.device)
        return {name: value.detach().clone() for name, value in values.items()}

    def named_inputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The inputs of a pass by what they are called in messages."""
        names = self.names or ("idx", "targets")
        return dict(zip(names, inputs, strict=False))

    def original_in_float64(self, device: torch.device | None = None) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """An original of its own and the inputs in float64, on `device`, by default where the oracle runs.

        It is built there if that is all there is to it: to bring weights back from a GPU takes longer than a small oracle.
        """
        where, make = device or self.judged_on, self.make_reference
        return to_float64(make(where) if isinstance(make, Original) else make(), self.inputs, where)

    def oracle_values(self, *, gradients: bool) -> dict[str, Tensor]:
        """What the original gives in float64."""
        return self._oracle(gradients)[0]

    def may_overflow(self) -> bool:
        """Whether right implementations may overflow on the way: a number in the original is too large for the dtype.

        Scores are taken as they are before they are scaled, as many compute them.
        """
        scale = self.case.head_size**-0.5 if self.case.scale is None else abs(self.case.scale)
        mode = Greatest()
        self._oracle(True, widened=mode)
        return mode.greatest > min(1.0, scale or 1.0) * torch.finfo(self.case.torch_dtype).max

    def _oracle(
        self, gradients: bool, maxima: Maxima | None = None, widened: Widened | None = None
    ) -> tuple[dict[str, Tensor], nn.Module, tuple[Tensor, ...], dict[str, Tensor]]:
        oracle, inputs = self.original_in_float64()
        upstream = {name: value.to(self.judged_on, torch.float64) for name, value in self.upstream.items()}
        # an original that writes to its inputs must not be perturbed on what it has written
        unchanged = self.guard.over(
            oracle, self.named_inputs(inputs) | {f"upstream {n}": g for n, g in upstream.items()}
        )
        with (
            finding_truth("the oracle"),
            running(REFERENCE),
            unchanged,
            self.within(oracle, self.judged_on),
            spelled_out(),
            maxima or nullcontext(),
            widened or Widened(),
        ):
            found = self.run(oracle, inputs, gradients=gradients, upstream=upstream)
        # a tensor that the original does not use has no gradient, and nothing to compare
        return {name: value for name, value in found.items() if value is not None}, oracle, inputs, upstream

    def truth(self, *, gradients: bool) -> Truth:
        """The oracle's results, from an original of its own: what a forward pass leaves behind in a module stays there."""
        return self.memory.recall((self.memory_key, gradients), lambda: self._truth(gradients))

    def _truth(self, gradients: bool) -> Truth:
        maxima = Maxima()
        widened = Widened()
        values, oracle, inputs, upstream = self._oracle(gradients, maxima, widened)
        coarse = any(torch.finfo(d).eps > torch.finfo(self.case.torch_dtype).eps for d in widened.asked)
        detached = False
        if maxima.met:
            detached = same_without(values, self._oracle(gradients, Maxima(detached=True))[0])

        def perturbed(count: int) -> Sample:
            noise = torch.Generator(device=self.judged_on).manual_seed(self.case.seed * 64 + count)
            detaching = Maxima(detached=True) if detached else nullcontext()
            with finding_truth("a perturbed run"), running(REFERENCE), spelled_out(), detaching:
                try:
                    return self._together(oracle, inputs, upstream, values, noise, count, gradients)
                except NotOpened:
                    raise
                except Exception:
                    # vmap refuses what depends on values, or writes to buffers: such an original runs in a loop
                    noise.manual_seed(self.case.seed * 64 + count)
                    return self._in_turn(oracle, inputs, upstream, values, noise, count, gradients)

        c = self.case
        large = c.batch_size * c.n_head * c.seq_len**2 > _LARGE
        first = _FEW if large else Truth.first
        return Truth(values, perturbed, first=first, coarse=coarse, may_overflow=self.may_overflow)

    def rounding(self, noise: torch.Generator, runs: int) -> Rounding:
        """The mode in which `runs` runs at once are perturbed as rounding in the case's dtype may perturb them."""
        case = self.case
        model = ErrorModel(
            case.torch_dtype,
            self.device,
            noise,
            subnormal=case.regime == "tiny",
            coherent=case.regime in REPEATING or case.layout == "expanded",
            runs=runs,
        )
        return Rounding(model)

    def _in_turn(
        self,
        oracle: nn.Module,
        inputs: Sequence[Tensor],
        upstream: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
        noise: torch.Generator,
        count: int,
        gradients: bool,
    ) -> Sample:
        """Perturbed runs, one after the other."""
        runs = []
        named = self.named_inputs(inputs) | {f"upstream {n}": g for n, g in upstream.items()}
        for _ in range(count):
            unchanged = self.guard.over(oracle, named)
            with running(REFERENCE), unchanged, self.within(oracle, self.judged_on), self.rounding(noise, 1):
                runs.append(self.run(oracle, inputs, gradients=gradients, upstream=upstream))
        stacked = {name: torch.stack([_present(run[name]) for run in runs]) for name in values}
        return Sample(count, {name: stacked[name] - values[name] for name in values})

    def _together(
        self,
        oracle: nn.Module,
        inputs: Sequence[Tensor],
        upstream: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
        noise: torch.Generator,
        count: int,
        gradients: bool,
    ) -> Sample:
        """The same perturbed runs as one, with a dimension for the runs in front of everything: each has its own errors."""

        def repeated(x: Tensor) -> Tensor:
            return x.detach().expand(count, *x.shape).clone().requires_grad_(gradients)

        parameters = {name: repeated(p) for name, p in oracle.named_parameters() if p.requires_grad}
        leaves = [repeated(x) if x.is_floating_point() else x for x in inputs]
        shell = Shell(oracle, self.outputs)

        def forward(held: dict[str, Tensor], *given: Tensor) -> dict[str, Tensor]:
            inner = {f"inner.{name}": value for name, value in held.items()}
            found: dict[str, Tensor] = torch.func.functional_call(shell, inner, given)
            return found

        dims = tuple(0 if x.is_floating_point() else None for x in inputs)
        flowing = torch.set_grad_enabled(gradients)
        within = self.within(oracle, self.judged_on)
        with within, seeded(self.case.seed, self.device), flowing, self.rounding(noise, count):
            out = torch.func.vmap(forward, in_dims=(0, *dims), randomness="different")(parameters, *leaves)
            results = {name: value.detach() for name, value in out.items()}
            if gradients:
                named = dict(zip(self.names, [x for x in leaves if x.is_floating_point()], strict=False))
                wanted = {f"grad {name}": leaf for name, leaf in (named | parameters).items()}
                roots = [(value, upstream[name]) for name, value in out.items() if name in upstream]
                grads = torch.autograd.grad(
                    [value for value, _ in roots],
                    list(wanted.values()),
                    [gradient.expand(count, *gradient.shape) for _, gradient in roots],
                    allow_unused=True,
                )
                results |= {name: g for name, g in zip(wanted, grads, strict=True) if g is not None}
        return Sample(count, {name: results[name] - value for name, value in values.items()})


class Shell(nn.Module):
    """A module whose forward gives the named outputs of the one inside."""

    def __init__(self, inner: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.inner, self.outputs = inner, outputs

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.outputs(self.inner, inputs)


def _present(value: Tensor | None) -> Tensor:
    assert value is not None, "the original gave this tensor before and now it does not"
    return value
