"""The kind of a reference that is no function: recognised by its signature and by a trial."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.errors import UsageError
from equivcheck.pairs.anchors import samples
from equivcheck.pairs.factories import HOW_TO_BUILD
from equivcheck.pairs.forward import (
    HOW_TO_CALL,
    HOW_TO_COMPARE,
    Function,
    Unwrapping,
    adapt_module,
    arguments_of,
    takes_three,
    tensor_of,
    three_times,
)
from equivcheck.pairs.kinds import KINDS, Kind, replacement_of
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.masks_not_passed import masks_not_passed
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["find_kind", "inputs_of"]


def find_kind(subject: Pair) -> tuple[str, Function, Function, tuple[str, ...], Case]:
    """The kind of the reference, and the functions that adapt its forward to one tensor in and one out.

    Returns:
        The name of the kind; the functions `inputs` and `outputs` of `adapt`, each None if forward needs none; notes on
        what forward takes and is not given; and a case with which the reference runs.

    Raises:
        UsageError: The reference fits no kind.
    """
    first: UsageError | None = None
    for anchor in samples():
        try:
            return *_kind_on(subject, subject.inside(anchor)), anchor
        except UsageError as error:
            first = first or error
            if error.__cause__ is None:
                break  # the original raised nothing: another size changes nothing
    assert first is not None, "there are samples"
    raise first


def _kind_on(subject: Pair, sample: Case) -> tuple[str, Function, Function, tuple[str, ...]]:
    """The kind of the reference by a trial with one sample."""
    fits = (
        "a factory takes a config and returns an nn.Module of x (B, T, C) or of token ids (B, T), "
        "a function takes q, k, v; see the kinds in the README"
    )
    module = _built(subject, sample, fits)
    adaptation = subject.adaptation
    inputs = inputs_of(module, subject, subject.reference_name)
    adapt_module(module, inputs, adaptation.outputs)
    errors: list[str] = []
    raised: Exception | None = None
    for device, dtype in _placements(subject.device, sample.torch_dtype):
        trial = _Trial()
        recognised = _recognised(subject, module.to(device, dtype), sample, trial)
        if recognised is not None:
            kind, result, value = recognised
            # `model_outputs` takes the result of a model apart
            plain = isinstance(result, Tensor) or kind.whole_model
            notes = masks_not_passed(module, partial(arguments_of, inputs, value))
            return kind.name, inputs, adaptation.outputs if plain else Unwrapping.of(result), notes
        errors, raised = errors or trial.errors, raised or trial.raised  # those on the CPU say most
    how = "" if adaptation.inputs or adaptation.outputs else f"; {HOW_TO_CALL}; or {HOW_TO_COMPARE}"
    raise UsageError(f"{subject.reference_name} fits no kind: {'; '.join(errors)}; {fits}{how}") from raised


@dataclass
class _Trial:
    """Why a module fits no kind on a device: what each kind of input gave, and the first exception."""

    errors: list[str] = field(default_factory=list)
    raised: Exception | None = None


def _placements(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[torch.device, torch.dtype]]:
    """Where an original is tried, in which dtype: kernels run on a GPU alone, and in half precision alone."""
    yield torch.device("cpu"), dtype
    if device.type != "cpu":
        yield device, dtype
    yield device, torch.bfloat16
    yield device, torch.float16


def _recognised(subject: Pair, module: nn.Module, sample: Case, trial: _Trial) -> tuple[Kind, Any, Tensor] | None:
    """The kind that a module fits as it stands on its device, its result and the input; None, with reasons in `trial`."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    tried = [(kind, kind.tried_with(sample)) for kind in KINDS.values() if kind.tried_with is not None]
    for kind, x in tried:
        value = x.to(like.device, like.dtype if x.is_floating_point() else None)
        try:
            with seeded(0, subject.device), torch.no_grad(), foreign(REFERENCE):
                result = module(value)
        except UsageError:
            if kind is tried[-1][0]:
                raise
            continue
        except Exception as error:
            ensure_foreign(error)
            trial.raised = trial.raised or error
            trial.errors.append(f"on {kind.name} input it raised {type(error).__name__}: {line_of(error)}")
            continue
        y = tensor_of(result)
        if isinstance(y, Tensor) and kind.fits(value, y):
            replacing = replacement_of(kind)
            replaces = replacing is not None and _replaces(subject.candidate, sample)
            return (replacing if replacing is not None and replaces else kind), result, value
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        trial.errors.append(f"on {kind.name} input it returned {shape}")
    return None


def _built(subject: Pair, sample: Case, fits: str) -> nn.Module:
    name = subject.reference_name
    try:
        with seeded(0, subject.device), foreign(REFERENCE):
            module = subject.reference(sample.config())
    except UsageError:
        raise
    except Exception as error:
        ensure_foreign(error)
        how = "" if subject.adaptation.config else f"; {HOW_TO_BUILD}"
        raise UsageError(
            f"{name} fits no kind: called with a config it raised {type(error).__name__}: {line_of(error)}; {fits}{how}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{name} fits no kind: called with a config it returned {type(module).__name__}; {fits}")
    return module.eval()


def inputs_of(module: nn.Module, subject: Pair, name: str, *, judged: bool = False) -> Function:
    """The function that turns one tensor into the arguments of a module's forward; None if forward takes the tensor.

    Args:
        module: A built module.
        subject: The pair, whose user may have given the function.
        name: The name of the module in messages.
        judged: Whether it is the candidate's, whose calls may raise for other required parameters.
    """
    if subject.adaptation.inputs is not None:
        return subject.adaptation.inputs
    return three_times if takes_three(module, name, judged=judged) else None


def _positional(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _replaces(candidate: Callable[..., Any], sample: Case) -> bool:
    """Whether the candidate takes a model rather than a config: by the name of its parameter, else by a trial."""
    names = _positional(candidate)
    if inspect.isclass(candidate) and issubclass(candidate, nn.Module):
        return False
    if names and names[0] in ("config", "cfg", "conf", "args"):
        return False
    if names and names[0] in ("model", "module", "net", "gpt", "network"):
        return True
    try:
        with exits_as_errors(), seeded(0, torch.device("cpu")), foreign(CANDIDATE):
            built: Any = candidate(sample.config())  # type: ignore[call-arg]  # narrowed to object by the test above
            return not isinstance(built, nn.Module)
    except Exception:
        return True
