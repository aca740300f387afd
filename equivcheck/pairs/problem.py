"""The problem of a case: reference, candidate and oracle with the same weights, their inputs, and their results."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.domain import EVERYWHERE, Domain
from equivcheck.cases.words import REPEATING
from equivcheck.numerics.detached_max import Maxima, same_without
from equivcheck.numerics.error_model import ErrorModel
from equivcheck.numerics.monte_carlo import Rounding
from equivcheck.numerics.oracle import Greatest, Widened, math_backend, to_float64
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.backward_pass import dense, flow_back
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.named_outputs import Outputs
from equivcheck.pairs.perturbed_runs import Oracle, perturbed_runs
from equivcheck.pairs.reference import Original, oracle_instead
from equivcheck.pairs.sides import REFERENCE, finding_truth, foreign, running
from equivcheck.pairs.weight_transfer import gradients_of
from equivcheck.pairs.write_guard import Guard
from equivcheck.runtime import clock
from equivcheck.runtime.device import type_of
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["Problem", "Results"]

Results = dict[str, Tensor | None]
Around = Callable[[nn.Module, torch.device], AbstractContextManager[object]]

# above `_LARGE` scores, `_FEW` first runs are enough: more elements show the spread
_LARGE, _FEW = 2**15, 2


@dataclass
class Problem:
    """The modules of a case, which have the same weights, and inputs made from the case's seed.

    Attributes:
        case: The case.
        device: The device on which the pair is judged.
        make_reference: Builds an original.
        make_candidate: Builds a candidate, given a function that builds an original.
        inputs: The inputs of forward.
        names: The names of the floating-point inputs.
        outputs: Runs a forward pass and returns its results by name.
        upstream: The upstream gradients by the names of results.
        memory: The cache of truths.
        memory_key: The key of this problem in the cache.
        guard: Compares inputs and parameters before and after each pass.
        around_reference: Makes a context of each run of the original on a device, which puts dropout masks in.
        oracle_device: The device of the oracle, by default `device`: small cases are quicker on the CPU.
        heads_last: Whether the user's functions take (B, T, H, D): memory layouts are meant so.
        domain: Parts of the case that are run by themselves stay inside of it.
        rounds_to: The dtype of the rounding in perturbed runs, if that is not the case's.
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
    heads_last: bool = False
    domain: Domain = EVERYWHERE
    rounds_to: torch.dtype | None = None

    def part_of_length(self, length: int) -> int:
        """The length inside of the domain that is nearest to this one; the whole length if no shorter one is inside."""
        whole = self.case.seq_len
        if length >= whole:
            return whole
        near = sorted(range(1, whole), key=lambda other: (abs(other - length), other))
        return next((other for other in near if self.allows(seq_len=other)), whole)

    def allows(self, **fields: int) -> bool:
        """Whether the case with these fields is in the domain."""
        return not self.domain or self.domain.allows(self.case.but(**fields))

    @property
    def judged_on(self) -> torch.device:
        """The device on which the oracle runs, and on which results are compared with it."""
        return self.oracle_device or self.device

    def within(self, original: nn.Module, device: torch.device | None = None) -> AbstractContextManager[object]:
        """The context of a run of the original, which is on `device`, by default the problem's."""
        return (
            nullcontext() if self.around_reference is None else self.around_reference(original, device or self.device)
        )

    @cached_property
    def reference(self) -> nn.Module:
        """The original with the case's weights, dtype, device and mode."""
        return self.make_reference()

    @cached_property
    def candidate(self) -> nn.Module:
        """The candidate with the reference's weights; exceptions of its construction propagate."""
        return self.another_candidate()

    def another_candidate(self) -> nn.Module:
        """A new candidate that has not run."""
        return self.make_candidate(self.make_reference)

    def run(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        *,
        gradients: bool,
        upstream: Mapping[str, Tensor] | None = None,
    ) -> Results:
        """The results of one forward pass and, with `gradients`, the gradients of inputs and parameters.

        Every run starts from the case's state of the generator, in the module's mode, and leaves no `.grad` behind.

        Args:
            module: The module to run.
            inputs: Its inputs.
            gradients: Whether a backward pass follows.
            upstream: The upstream gradients by the names of results; by default the problem's.

        Returns:
            Outputs by name, and gradients as `grad NAME`; None for an input or parameter that is not used.
        """
        with exits_as_errors(), seeded(self.case.seed, self.device):
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
        """Copies of results after their devices have finished their work, so that later writes do not change them."""
        for device in {value.device for value in values.values()}:  # the oracle's are mostly on the CPU
            type_of(device).synchronize(device)
        return {name: value.detach().clone() for name, value in values.items()}

    def as_user_sees(self, edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """An edit of how a tensor lies in memory, applied to it as the user's functions get it."""
        if not self.heads_last:
            return edit
        return lambda x: edit(x.transpose(-3, -2)).transpose(-3, -2) if x.dim() == 4 else edit(x)

    def named_inputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The inputs of a pass by their names in messages."""
        names = self.names or ("idx", "targets")
        return dict(zip(names, inputs, strict=False))

    def original_in_float64(self, device: torch.device | None = None) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """A new original, or the user's oracle in its place, and the inputs in float64, by default where the oracle is.

        An `Original` is built on that device: a copy of weights from a GPU takes longer than a small oracle.
        """
        where, make = device or self.judged_on, self.make_reference
        with clock.in_part(clock.ORACLE), oracle_instead():
            original = make(where) if isinstance(make, Original) else make()
            return to_float64(original, self.inputs, where)

    @property
    def has_users_oracle(self) -> bool:
        """Whether the truth is not the original's, but that of an oracle that the user gave."""
        return isinstance(self.make_reference, Original) and self.make_reference.build_oracle is not None

    def oracle_values(self, *, gradients: bool) -> dict[str, Tensor]:
        """The results of the original in float64."""
        return self._oracle(gradients).values

    def may_overflow(self) -> bool:
        """Whether correct implementations may overflow: a number in the original is too large for the dtype.

        Scores count before they are scaled, as many implementations compute them.
        """
        scale = self.case.head_size**-0.5 if self.case.scale is None else abs(self.case.scale)
        mode = Greatest()
        self._oracle(True, widened=mode)
        return mode.greatest > min(1.0, scale or 1.0) * torch.finfo(self.case.torch_dtype).max

    def _oracle(self, gradients: bool, maxima: Maxima | None = None, widened: Widened | None = None) -> Oracle:
        oracle, inputs = self.original_in_float64()
        upstream = {name: value.to(self.judged_on, torch.float64) for name, value in self.upstream.items()}
        # perturbed runs of an original that writes to its inputs must not start from the written values
        unchanged = self.guard.over(
            oracle, self.named_inputs(inputs) | {f"upstream {n}": g for n, g in upstream.items()}
        )
        with (
            clock.in_part(clock.ORACLE),
            finding_truth("the oracle"),
            running(REFERENCE),
            unchanged,
            self.within(oracle, self.judged_on),
            math_backend(),
            maxima or nullcontext(),
            widened or Widened(),
        ):
            results = self.run(oracle, inputs, gradients=gradients, upstream=upstream)
        # a tensor that the original does not use has no gradient to compare
        values = {name: value for name, value in results.items() if value is not None}
        return Oracle(oracle, inputs, upstream, values)

    def truth(self, *, gradients: bool) -> Truth:
        """The oracle's results, from a new original: state that a forward pass leaves in it affects no other run."""
        return self.memory.recall((self.memory_key, gradients), lambda: self._truth(gradients))

    def _truth(self, gradients: bool) -> Truth:
        maxima = Maxima()
        widened = Widened()
        oracle = self._oracle(gradients, maxima, widened)
        detached = False
        if maxima.met:
            detached = same_without(oracle.values, self._oracle(gradients, Maxima(detached=True)).values)

        def perturbed(problem: Problem, count: int) -> Sample:
            detaching = Maxima(detached=True) if detached else nullcontext()
            with finding_truth("a perturbed run"), running(REFERENCE), math_backend(), detaching:
                return perturbed_runs(problem, oracle, count, gradients=gradients)

        c = self.case
        large = c.batch_size * c.n_head * c.seq_len**2 > _LARGE
        options: dict[str, Any] = {"first": _FEW if large else Truth.first, "may_overflow": self.may_overflow}
        truth = Truth(oracle.values, partial(perturbed, self), **options)
        if (narrower := self.narrower(widened)) is not None:
            truth.narrower = Truth(
                oracle.values, partial(perturbed, narrower), rounds_to=narrower.rounding_in, **options
            )
        return truth

    def narrower(self, widened: Widened) -> "Problem | None":
        """The problem with the rounding of the narrowest dtype that the original's code asks for; None if none is."""
        narrowest = max((self.case.torch_dtype, *widened.asked), key=lambda dtype: torch.finfo(dtype).eps)
        return None if narrowest is self.case.torch_dtype else replace(self, rounds_to=narrowest)

    @property
    def rounding_in(self) -> str:
        """The name of the dtype in whose rounding runs are perturbed."""
        return str(self.rounds_to or self.case.torch_dtype).removeprefix("torch.")

    def rounding(self, noise: torch.Generator, runs: int) -> Rounding:
        """The mode that perturbs `runs` runs at once as rounding in the case's dtype may perturb them."""
        case = self.case
        model = ErrorModel(
            self.rounds_to or case.torch_dtype,
            self.device,
            noise,
            subnormal=case.regime == "tiny",
            coherent=case.regime in REPEATING or case.layout == "expanded",
            runs=runs,
        )
        return Rounding(model)
