"""The oracle of a pair: the user's, or the original itself, and the device on which it runs."""

import functools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.errors import UsageError
from equivcheck.pairs.factories import factory_of
from equivcheck.pairs.forward import Function, adapt, tensor_of
from equivcheck.pairs.function_options import HOW_TO_CALL_IT, may_take_qkv, normal, options_of
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sequence_axis import heads_last, mixed_along

__all__ = ["with_oracle_device", "with_users_factory", "with_users_function"]

_SAME = 2.0**-40  # of the largest value: two devices round float64 differently
_CPU = torch.device("cpu")


def with_oracle_device(subject: Pair) -> Pair:
    """The same pair, with its oracle on the CPU if the pair is on another device, and the CPU suits it.

    A small case launches a few thousand kernels with little work each: the CPU is ten times as quick, if the results
    agree. An oracle that runs on the CPU alone runs there in every case.
    """
    if subject.device == _CPU:
        return subject
    there = _values(subject)
    elsewhere = replace(subject, oracle_device=_CPU, oracle_elsewhere=there is None)
    here = _values(elsewhere)
    if here is None:
        return subject
    if there is None:
        return elsewhere
    # relative to the largest of all: the gradient of a key's bias is zero but for rounding, and has no scale
    greatest = max(float(value.abs().max()) for value in there.values())
    same = there.keys() == here.keys() and all(
        float((value.cpu() - here[name]).abs().max()) <= _SAME * greatest for name, value in there.items()
    )
    return elsewhere if same else subject


def _values(subject: Pair) -> dict[str, Tensor] | None:
    try:
        return subject.problem(subject.sample.but(dtype="float64")).oracle_values(gradients=True)
    except Exception:
        return None  # a kernel for another device or dtype


def with_users_factory(subject: Pair, inputs: Function, outputs: Function) -> Pair:
    """The pair of modules with the user's oracle, built, called and given weights as the original is.

    Args:
        subject: The pair, whose kind is known.
        inputs: Turns one tensor into the arguments of the original's forward.
        outputs: Takes the tensor to compare out of the result of forward.

    Raises:
        UsageError: The oracle cannot be built, or does not take the original's weights.
    """
    given = subject.adaptation.oracle
    if given is None:
        return subject
    name = subject.adaptation.oracle_name
    factory = factory_of(given, subject.adaptation.config, name)
    # it may return a plain tensor where the original returns several things
    taken = subject.adaptation.outputs or (outputs if subject.traits.whole_model else tensor_of)
    subject = replace(subject, oracle=_module_of(adapt(factory, inputs, taken), name), oracle_name=name)
    try:
        subject.build_oracle(subject.sample)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the oracle {name} does not stand in for {subject.reference_name}: {type(error).__name__}: "
            f"{line_of(error)[:300]}; give a factory like the original, whose parameters have the same names"
        ) from error
    return subject


def with_users_function(subject: Pair, taken: Collection[str]) -> Pair:
    """The pair of functions with the user's oracle, as a function of (B, H, T, D): it is asked for its layout itself.

    Args:
        subject: The pair, whose kind is known.
        taken: The options that the original is called with.

    Raises:
        UsageError: The oracle is no function of q, k, v, or does not take these options.
    """
    given = subject.adaptation.oracle
    if given is None:
        return subject
    name = subject.adaptation.oracle_name
    if not may_take_qkv(given):
        raise UsageError(f"the oracle {name} is no function of q, k, v, and the original is: {HOW_TO_CALL_IT}")
    options = options_of(given, name)
    # a function that groups heads needs no option for it
    if missing := sorted(set(taken) - set(options) - {"enable_gqa"}):
        raise UsageError(
            f"the oracle {name} does not take {missing[0]}, which the original is called with: "
            "give one with the original's options"
        )
    function = _plain(normal(given, {option: options[option] for option in options if option in taken}))
    if mixed_along(subject, function, [subject.device, _CPU]) == (1,):
        function = heads_last(function)
    return replace(subject, oracle=function, oracle_name=name)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def taken(*tensors: Tensor, **options: Any) -> Any:
        return tensor_of(function(*tensors, **options))

    return taken


def _module_of(factory: Callable[..., Any], name: str) -> Callable[..., nn.Module]:
    def made(config: Any) -> nn.Module:
        module = factory(config)
        if not isinstance(module, nn.Module):
            raise UsageError(f"the oracle {name} returned {type(module).__name__} instead of a module")
        return module

    return made
