"""The pair to verify, and the problems of its cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, arrange_heads_last
from equivcheck.cases.domain import EVERYWHERE, Domain
from equivcheck.cases.domain_solving import nearest
from equivcheck.cases.tensors import projections_known, randomise, upstream
from equivcheck.errors import UnfitResult
from equivcheck.gpt import GPT
from equivcheck.pairs.adaptation import NO_ADAPTATION, Adaptation
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.function_module import FunctionModule
from equivcheck.pairs.kinds import KINDS, SAMPLE, Kind
from equivcheck.pairs.named_outputs import Outputs, further_output, guarded, model_outputs, tensor_output
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.reference import Original
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, foreign
from equivcheck.pairs.to_device import to_device
from equivcheck.pairs.weight_transfer import Transfer, Weights, carry_over
from equivcheck.pairs.write_guard import Guard
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.patch_guard import classes_restored
from equivcheck.runtime.rng import seeded

__all__ = ["SAMPLE", "Pair"]

Factory = Callable[..., Any]

_MODERATE = 2**18  # scores

MAX_LAYERS = 8
"""An upper bound on the layers of a case."""


@dataclass(frozen=True)
class Pair:
    """A pair and its kind, which makes problems of cases on a device.

    Attributes:
        reference: The factory or function of the original.
        candidate: The factory or function of the candidate.
        kind: The name of the kind; one of `KINDS`.
        device: The device on which the pair is judged.
        reference_name: The original's name in messages.
        candidate_name: The candidate's name in messages.
        transfer: Transfers weights to the candidate; None if parameters have the same names.
        options: Of functions: the options that both take.
        features: Of functions: the `cases.features.FEATURES` in which both run.
        ignored_options: Of functions: the options that change nothing in the original.
        scale_optional: Of functions: whether both run without a scale.
        learns_mask: Of functions: whether both take an additive mask that is learned.
        heads_last: Of functions: whether the user's take (B, T, H, D); the pair's take (B, H, T, D) in any case.
        reference_alone: Of functions: the options that the original takes and the candidate does not.
        notes: Facts about the pair for the report.
        adaptation: The user's functions; the factories and the transfer already apply them.
        memory: The cache of truths and weights.
        oracle: The user's oracle, of the form of `reference`; None if the original itself runs in float64.
        oracle_name: The name of the user's oracle in messages.
        oracle_device: The device on which the oracle runs cases of moderate size; None for `device`.
        oracle_elsewhere: Whether it runs there alone, so that all cases have their oracle there.
        switched_at_import: The settings of the process that the import of the candidate's module switched.
        domain: The cases that the original is meant for.
        refused_features: Of functions: what the candidate alone refuses of masks and sizes of keys and values, in words.
        anchor: A case with which the original runs, and the candidate if there is one.
        further_results: The number of results besides the first in the tuple that the original returns.
    """

    reference: Factory
    candidate: Factory
    kind: str
    device: torch.device
    reference_name: str
    candidate_name: str
    transfer: Transfer | None = None
    options: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    ignored_options: frozenset[str] = frozenset()
    scale_optional: bool = False
    learns_mask: bool = False
    heads_last: bool = False
    reference_alone: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    adaptation: Adaptation = NO_ADAPTATION
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)
    oracle: Factory | None = None
    oracle_name: str = ""
    oracle_device: torch.device | None = None
    oracle_elsewhere: bool = False
    switched_at_import: tuple[str, ...] = ()
    domain: Domain = EVERYWHERE
    anchor: Case = SAMPLE
    refused_features: tuple[str, ...] = ()
    further_results: int = 0

    @property
    def traits(self) -> Kind:
        """The kind, with its properties."""
        return KINDS[self.kind]

    @property
    def sample(self) -> Case:
        """A small case of the kind, in the domain."""
        return self.inside(self.anchor if self.traits.whole_model else self.anchor.but(n_layer=0))

    def inside(self, case: Case) -> Case:
        """The case, or one near it that is in the domain; the case itself if the domain has none."""
        return (nearest(case, self.domain) or case) if self.domain else case

    def with_candidate(self, candidate: Factory, name: str) -> "Pair":
        """The same reference with another candidate of the form of the original (a `replacement` becomes a `model`)."""
        kind = self.traits.original
        return replace(self, candidate=candidate, candidate_name=name, kind=kind, transfer=None, switched_at_import=())

    def of_oracle(self) -> "Pair":
        """The same pair with the user's oracle in the place of the original, where it runs; without one, this pair."""
        if self.oracle is None:
            return self
        where = self.oracle_device if self.oracle_elsewhere and self.oracle_device else self.device
        return replace(self, reference=self.oracle, oracle=None, device=where, oracle_device=None, memory=Memory())

    def rebuilt(self, change: Callable[[Any], Any]) -> "Pair":
        """The same pair, built from configs changed by `change`, with an empty memory."""
        reference, candidate, oracle = self.reference, self.candidate, self.oracle
        return replace(
            self,
            reference=lambda config: reference(change(config)),
            candidate=candidate if self.traits.replaces else lambda config: candidate(change(config)),
            oracle=None if oracle is None else lambda config: oracle(change(config)),
            memory=Memory(),
        )

    def within_gpt(self) -> "Pair":
        """The pair of attentions as a pair of GPTs that differ in attention alone; a pair of another kind as it is."""
        if not self.traits.within_gpt:
            return self
        oracle = self.oracle
        places = tuple(f"blocks.{layer}.attn." for layer in range(MAX_LAYERS))
        return replace(
            self,
            reference=lambda config: GPT(config, attention=self.reference),
            candidate=lambda config: GPT(config, attention=self.candidate),
            oracle=None if oracle is None else lambda config: GPT(config, attention=oracle),
            kind="model",
            transfer=None if self.transfer is None else self.transfer.inside(places),
        )

    @cached_property
    def sharpened_by_name(self) -> bool:
        """Whether the weights of queries and keys can be sharpened: the names of their projections are known."""
        if self.traits.function:
            return False
        with seeded(0, torch.device("cpu")):
            names = [name for name, _ in self.reference(self.inside(self.anchor).config()).named_parameters()]
        return projections_known(names)

    def as_module(self, function: Factory, case: Case) -> FunctionModule:
        """A function as a module with the options of a case, on the CPU."""
        return FunctionModule(function, case, self.scale_optional, self.learns_mask).train(case.training)

    def build_reference(self, case: Case, device: torch.device | None = None) -> nn.Module:
        """The reference with the case's random weights, dtype and mode, on `device`, by default the pair's."""
        with seeded(case.seed, self.device):
            if self.traits.function:
                return self.as_module(self.reference, case).to(device or self.device)
            with foreign(REFERENCE):
                module: nn.Module = self.reference(case.config())
        # weights are drawn in float64 and rounded once, on the CPU, whatever dtype and device the factory used
        with foreign(REFERENCE):
            module = module.to(device="cpu", dtype=case.torch_dtype)
        with clock.in_part(clock.DRAWING):
            randomise(module, case)
        where = device or self.device
        if where.type != "cpu":
            # a copy to a GPU without blocking has read its source when this returns
            module = module.to(device=where, non_blocking=True)
        return module.train(case.training)

    def build_oracle(self, case: Case, device: torch.device | None = None) -> nn.Module:
        """The user's oracle with the original's weights, in the case's dtype and mode, on `device`.

        By default it is on the pair's device, or on the one where it alone runs.
        """
        assert self.oracle is not None, "a pair without an oracle of the user has the original in its place"
        where = device or (self.oracle_device if self.oracle_elsewhere else None) or self.device
        if self.traits.function:
            return self.as_module(self.oracle, case).to(where)
        state = self.build_reference(case, torch.device("cpu")).state_dict()
        with seeded(case.seed, self.device), foreign(REFERENCE):
            module: nn.Module = self.oracle(case.config())
            module = module.to(device="cpu", dtype=case.torch_dtype)
            module.load_state_dict(state, strict=True)
        return module.to(where).train(case.training)

    def build_candidate(self, case: Case, make_reference: Callable[[], nn.Module]) -> nn.Module:
        """The candidate with an original's weights.

        Its exceptions propagate; a call of sys.exit becomes a RuntimeError.

        Args:
            case: The case.
            make_reference: Builds the original that gives the weights, or that is replaced.
        """
        with exits_as_errors(), seeded(case.seed + 1, self.device):
            if self.traits.function:
                return self.as_module(self.candidate, case).to(self.device)
            if self.traits.replaces:
                reference = make_reference()
                # attributes that it sets on classes must not reach the originals of other cases
                with classes_restored(reference), foreign(CANDIDATE):
                    replaced = self.candidate(reference)
                if not isinstance(replaced, nn.Module):
                    with foreign(CANDIDATE):
                        raise UnfitResult(f"the replacement returned {type(replaced).__name__} instead of the model")
                return replaced
            with foreign(CANDIDATE):
                module: nn.Module = self.candidate(case.config())
                module = module.to(device=self.device, dtype=case.torch_dtype, non_blocking=True)
            weights = make_reference.weights() if isinstance(make_reference, Original) else Weights.of(make_reference())
            with foreign(CANDIDATE):
                carry_over(self.transfer, weights, module, case.config())
                return module.train(case.training)

    def laid_out(self, x: Tensor, case: Case) -> Tensor:
        """A tensor (B, H, T, D), arranged by the case's layout as the user's functions get it; others as they are."""
        return arrange_heads_last(x, case.layout) if self.heads_last and x.dim() == 4 else x

    def problem(self, case: Case, result: int = 0) -> Problem:
        """The problem of a case; the candidate is built when a check first uses it.

        Args:
            case: The case.
            result: The number of the result to compare, where an attention returns several.

        Raises:
            UnfitResult: A result besides the first is no tensor of floating-point numbers.
        """
        beacon.note_case(case.id)
        with clock.in_part(clock.DRAWING):
            inputs, names, shapes = self.traits.inputs(case, lambda: self.sharpened_by_name)
            inputs = tuple(to_device(self.laid_out(x, case), self.device) for x in inputs)
            flowing = {
                name: to_device(self.laid_out(upstream(case, name, shape), case), self.device)
                for name, shape in shapes.items()
            }
        if self.traits.whole_model:
            # half precision cannot hold the gradients of a mean over B*T tokens: scale the loss as a loss scaler does
            scale = float(case.batch_size * case.seq_len)
            flowing = {"loss": torch.tensor(scale, dtype=case.torch_dtype, device=self.device)}
        outputs = model_outputs if self.traits.whole_model else tensor_output
        if result:
            outputs = partial(further_output, result)
            flowing = {"output": self._upstream_of(case, outputs, inputs)}
        # a replacement shares its original with a model; an attention does not share its own with a GPT around it
        key = (self.traits.original, case, result)
        steady = dict(zip(names or ("idx", "targets"), inputs, strict=False))
        guard = Guard(steady | {f"upstream {name}": value for name, value in flowing.items()})
        return Problem(
            case=case,
            device=self.device,
            make_reference=Original(
                partial(self.build_reference, case),
                self.memory,
                key,
                None if self.oracle is None else partial(self.build_oracle, case),
            ),
            make_candidate=partial(self.build_candidate, case),
            inputs=inputs,
            names=names,
            outputs=partial(guarded, outputs, guard, self.memory.subclasses, tuple(steady)),
            upstream=flowing,
            memory=self.memory,
            memory_key=key,
            guard=guard,
            heads_last=self.heads_last,
            domain=self.domain,
            oracle_device=self.oracle_device if self.oracle_elsewhere or _is_moderate(case) else None,
        )

    def _upstream_of(self, case: Case, outputs: Outputs, inputs: Sequence[Tensor]) -> Tensor:
        """A random upstream gradient of the result that the original gives."""
        module = self.build_reference(case)
        with seeded(case.seed, self.device), torch.no_grad(), foreign(REFERENCE):
            value = outputs(module, inputs)["output"]
        if not value.is_floating_point():
            raise UnfitResult(f"it has numbers of {value.dtype}, which have no rounding error")
        return to_device(upstream(case, "further output", value.shape), self.device)


def _is_moderate(case: Case) -> bool:
    return case.batch_size * case.n_head * case.seq_len**2 <= _MODERATE
