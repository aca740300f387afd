"""The pair to verify, and the problems that its cases make."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.cases.tensors import projections_known, randomise, upstream
from equivcheck.errors import UnfitResult
from equivcheck.gpt import GPT
from equivcheck.pairs.adaptation import NOTHING_SAID, Adaptation
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.function_module import FunctionModule
from equivcheck.pairs.kinds import KINDS, SAMPLE, Kind
from equivcheck.pairs.named_outputs import guarded, model_outputs, tensor_output
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.reference import Original
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, foreign
from equivcheck.pairs.to_device import to_device
from equivcheck.pairs.weight_transfer import Transfer, Weights, carry_over
from equivcheck.pairs.write_guard import Guard
from equivcheck.runtime import beacon
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.patch_guard import classes_restored
from equivcheck.runtime.rng import seeded

__all__ = ["SAMPLE", "Pair"]

Factory = Callable[..., Any]

_MODERATE = 2**18  # scores
_SAME = 2.0**-40  # of the greatest: two devices round float64 differently

MAX_LAYERS = 8
"""More than any case has."""


@dataclass(frozen=True)
class Pair:
    """A pair and its kind, ready to make problems of cases on a device.

    `oracle_device` is where the oracle of cases of moderate size runs.
    """

    reference: Factory
    candidate: Factory
    kind: str
    device: torch.device
    reference_name: str
    candidate_name: str
    transfer: Transfer | None = None  # None: by the same names
    options: frozenset[str] = frozenset()  # of a function: those that both take
    features: frozenset[str] = frozenset()  # of a function: `functions.FEATURES` in which both run
    ignored_options: frozenset[str] = frozenset()  # of the options: those that the original takes no notice of
    scale_optional: bool = False  # of a function: whether both run where the scale is left out
    learns_mask: bool = False  # of a function: whether both take an additive mask that is learned
    reference_alone: tuple[str, ...] = ()  # of a function: options that the original takes and the candidate does not
    notes: tuple[str, ...] = ()  # what was found out about the pair, and is worth telling
    adaptation: Adaptation = NOTHING_SAID  # what the user said; the factories and the transfer have it in them
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)
    oracle_device: torch.device | None = None
    switched_at_import: tuple[str, ...] = ()  # settings of the process, by the candidate's module

    @property
    def traits(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.kind]

    def with_candidate(self, candidate: Factory, name: str) -> "Pair":
        """The same reference with another candidate of the same kind (a `replacement` becomes the model it makes)."""
        kind = self.traits.original
        return replace(self, candidate=candidate, candidate_name=name, kind=kind, transfer=None, switched_at_import=())

    def rebuilt(self, change: Callable[[Any], Any]) -> "Pair":
        """The same pair, built from configs that went through `change`; it remembers no truths of the unchanged one."""
        reference, candidate = self.reference, self.candidate
        return replace(
            self,
            reference=lambda config: reference(change(config)),
            candidate=candidate if self.traits.replaces else lambda config: candidate(change(config)),
            memory=Memory(),
        )

    def within_gpt(self) -> "Pair":
        """The pair of attentions as a pair of GPTs that differ in nothing else; a pair of anything else as it is."""
        if not self.traits.within_gpt:
            return self
        places = tuple(f"blocks.{layer}.attn." for layer in range(MAX_LAYERS))
        return replace(
            self,
            reference=lambda config: GPT(config, attention=self.reference),
            candidate=lambda config: GPT(config, attention=self.candidate),
            kind="model",
            transfer=None if self.transfer is None else self.transfer.inside(places),
        )

    @cached_property
    def sharpened_by_name(self) -> bool:
        """Whether the projections of queries and keys have names by which their weights can be sharpened."""
        if self.traits.function:
            return False
        with seeded(0, torch.device("cpu")):
            names = [name for name, _ in self.reference(SAMPLE.config()).named_parameters()]
        return projections_known(names)

    def as_module(self, function: Factory, case: Case) -> FunctionModule:
        """A function with the options of a case, on the CPU."""
        return FunctionModule(function, case, self.scale_optional, self.learns_mask).train(case.training)

    def build_reference(self, case: Case, device: torch.device | None = None) -> nn.Module:
        """The reference with the case's random weights, dtype and mode, on `device` or on the pair's."""
        with seeded(case.seed, self.device):
            if self.traits.function:
                return self.as_module(self.reference, case).to(device or self.device)
            with foreign(REFERENCE):
                module: nn.Module = self.reference(case.config())
        # weights are made in float64 and rounded once, on the CPU, whatever dtype and device the factory made them in
        with foreign(REFERENCE):
            module = module.to(device="cpu", dtype=case.torch_dtype)
        randomise(module, case)
        where = device or self.device
        if where.type != "cpu":
            # what is copied to a GPU without blocking has been read before this returns
            module = module.to(device=where, non_blocking=True)
        return module.train(case.training)

    def build_candidate(self, case: Case, make_reference: Callable[[], nn.Module]) -> nn.Module:
        """The candidate with an original's weights; raises what a user would see raised, a RuntimeError for sys.exit."""
        with exits_as_errors(), seeded(case.seed + 1, self.device):
            if self.traits.function:
                return self.as_module(self.candidate, case).to(self.device)
            if self.traits.replaces:
                reference = make_reference()
                # what it sets on classes must not reach the originals of other cases
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

    def problem(self, case: Case) -> Problem:
        """The case made real; the candidate is only built when a check asks for it."""
        beacon.note_case(case.id)
        inputs, names, shapes = self.traits.inputs(case, lambda: self.sharpened_by_name)
        inputs = tuple(to_device(x, self.device) for x in inputs)
        flowing = {name: to_device(upstream(case, name, shape), self.device) for name, shape in shapes.items()}
        if self.traits.whole_model:
            # a mean over B*T tokens gives gradients that half precision cannot hold: scaled as a loss scaler would
            scale = float(case.batch_size * case.seq_len)
            flowing = {"loss": torch.tensor(scale, dtype=case.torch_dtype, device=self.device)}
        # a replacement's original is a model's; an attention's is not that of the GPT around it
        key = (self.traits.original, case)
        steady = dict(zip(names or ("idx", "targets"), inputs, strict=False))
        guard = Guard(steady | {f"upstream {name}": value for name, value in flowing.items()})
        outputs = model_outputs if self.traits.whole_model else tensor_output
        return Problem(
            case=case,
            device=self.device,
            make_reference=Original(partial(self.build_reference, case), self.memory, key),
            make_candidate=partial(self.build_candidate, case),
            inputs=inputs,
            names=names,
            outputs=partial(guarded, outputs, guard, self.memory.subclasses, tuple(steady)),
            upstream=flowing,
            memory=self.memory,
            memory_key=key,
            guard=guard,
            oracle_device=self.oracle_device if case.batch_size * case.n_head * case.seq_len**2 <= _MODERATE else None,
        )

    def with_oracle_beside(self) -> "Pair":
        """The same pair, with the oracle on the CPU where that is another device and gives the same there.

        A small case is a few thousand launches of kernels that have nothing to do: the CPU is ten times as quick.
        """
        cpu = torch.device("cpu")
        if self.device == cpu:
            return self
        case = self.traits.sample.but(dtype="float64")
        try:
            there = self.problem(case).oracle_values(gradients=True)
            here = replace(self, oracle_device=cpu).problem(case).oracle_values(gradients=True)
        except Exception:
            return self  # a kernel for this device only; what else is wrong with it shows where it is judged
        # of the greatest of all: what is zero but for rounding, such as the gradient of a key's bias, has no size of its own
        greatest = max(float(value.abs().max()) for value in there.values())
        same = there.keys() == here.keys() and all(
            float((value.cpu() - here[name]).abs().max()) <= _SAME * greatest for name, value in there.items()
        )
        return replace(self, oracle_device=cpu) if same else self
