"""Which kind of pair two objects are: found by their signatures and by trying, and made a Pair."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.errors import UsageError
from equivcheck.pairs.adaptation import Adaptation
from equivcheck.pairs.factories import HOW_TO_BUILD, factory_of
from equivcheck.pairs.forward import (
    HOW_TO_CALL,
    HOW_TO_COMPARE,
    Function,
    adapt,
    adapt_module,
    takes_three,
    tensor_of,
    three_times,
    unwrapping,
)
from equivcheck.pairs.function_kind import as_functions
from equivcheck.pairs.function_options import takes_qkv
from equivcheck.pairs.given import Given
from equivcheck.pairs.loading import line_of, load, load_candidate, name_of
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.projection_matching import differs, find_transfer
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, foreign
from equivcheck.pairs.weight_transfer import HOW_TO_TRANSFER, Transfer, named_back
from equivcheck.report.catalogue import KINDS
from equivcheck.runtime import beacon, global_state, working_folder
from equivcheck.runtime.device import find_device
from equivcheck.runtime.exits import held_back
from equivcheck.runtime.rng import seeded

__all__ = ["IMPORTING", "resolve"]

IMPORTING = "importing"
"""The step at which a side is when it is imported."""


def resolve(
    reference: Any,
    candidate: Any,
    *,
    kind: str,
    device: str,
    adaptation: Mapping[str, Given] | None = None,
    between: Callable[[Any], None] = lambda reference: None,
    allowed: frozenset[str] | None = None,
) -> Pair:
    """Load both, find the kind where it is `auto`, and the device; a UsageError where the pair fits no kind.

    `between` is given the reference, which is loaded then, before the candidate is. Of the options that two functions share,
    those `allowed` are used, by default all.

    `adaptation` has the arguments of `Adaptation.of`.
    """
    if kind not in ("auto", *KINDS):
        raise UsageError(f"unknown kind {kind!r}: allowed are auto, {', '.join(KINDS)}")
    where = find_device(device)
    names = name_of(reference), name_of(candidate)
    root = working_folder.current()  # the pair may change it while it is loaded
    pair: list[Any] = []
    switched: tuple[str, ...] = ()
    for side, given, name in zip((REFERENCE, CANDIDATE), (reference, candidate), names, strict=True):
        found = given
        beacon.note_side(side)
        if isinstance(given, str):
            beacon.note_step(IMPORTING)
            # the original's settings are those that it was trained with
            found, switched = load_candidate(given, root) if pair else (load(given, root), ())
            beacon.note_step(beacon.NOTHING)
        if not callable(found):
            raise UsageError(
                f"{name} is {type(found).__name__}, which cannot be called: give a class, a factory or a function"
            )
        if not pair:
            between(found)
        pair.append(found)
    beacon.note_case(SAMPLE.id)
    said = Adaptation.of(root, **adaptation or {})
    subject = Pair(pair[0], pair[1], kind, where, *names, adaptation=said, switched_at_import=switched)
    with global_state.kept():  # what a candidate switches where it is tried must be seen where it is judged
        return _tried(subject, kind, allowed)


def _tried(subject: Pair, kind: str, allowed: frozenset[str] | None) -> Pair:
    said, names = subject.adaptation, (subject.reference_name, subject.candidate_name)
    if takes_qkv(subject.reference):
        found_kind = "function"
        beacon.note_kind(found_kind)
        subject = as_functions(subject, allowed)
        if said.given:
            raise UsageError(f"{said.given[0]}= is for modules and models, and {names[0]} is a function")
    else:
        subject = replace(subject, reference=factory_of(subject.reference, said.config, names[0]))
        found_kind, inputs, outputs = _find_kind(subject)
        beacon.note_kind(found_kind)
        subject = replace(subject, reference=adapt(subject.reference, inputs, outputs))
    if kind not in ("auto", found_kind) and not {kind, found_kind} <= {"model", "replacement"}:
        raise UsageError(
            f"kind {kind!r} was asked for, and {names[0]} looks like a {found_kind}: leave --kind out, or give the right one"
        )
    subject = replace(subject, kind=found_kind if kind == "auto" else kind)
    if subject.kind in ("module", "model"):
        subject = _with_candidate_tried(subject, outputs)
    return subject.with_oracle_beside()


def _find_kind(subject: Pair) -> tuple[str, Function, Function]:
    """The kind of the reference, and what makes its forward take one tensor and give one, where it does not."""
    fits = (
        "a factory takes a config and returns an nn.Module of x (B, T, C) or of token ids (B, T), "
        "a function takes q, k, v; see the kinds in the README"
    )
    module = _built(subject, subject.reference, subject.reference_name, fits)
    said = subject.adaptation
    inputs = _inputs(module, subject, subject.reference_name)
    adapt_module(module.to("cpu"), inputs, said.outputs)
    x = torch.linspace(-2, 2, 6 * SAMPLE.n_embd).view(2, 3, -1)
    errors = []
    for kind, value in (("module", x), ("model", torch.zeros(2, 3, dtype=torch.long))):
        try:
            with seeded(0, subject.device), torch.no_grad(), foreign(REFERENCE):
                found = module(value)
        except UsageError:
            if kind == "model":
                raise
            continue
        except Exception as error:
            ensure_foreign(error)
            errors.append(f"on {kind} input it raised {type(error).__name__}: {line_of(error)}")
            continue
        y = tensor_of(found)
        if isinstance(y, Tensor) and kind == "module" and y.shape == x.shape:
            return kind, inputs, said.outputs if isinstance(found, Tensor) else unwrapping(found)
        if isinstance(y, Tensor) and kind == "model" and y.dim() == 3:
            return ("replacement" if _replaces(subject.candidate) else kind), inputs, said.outputs
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        errors.append(f"on {kind} input it returned {shape}")
    how = "" if said.inputs or said.outputs else f"; {HOW_TO_CALL}; or {HOW_TO_COMPARE}"
    raise UsageError(f"{subject.reference_name} fits no kind: {'; '.join(errors)}; {fits}{how}")


def _built(subject: Pair, factory: Callable[..., Any], name: str, fits: str) -> nn.Module:
    try:
        with seeded(0, subject.device), foreign(REFERENCE):
            module = factory(SAMPLE.config())
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


def _inputs(module: nn.Module, subject: Pair, name: str, *, judged: bool = False) -> Function:
    if subject.adaptation.inputs is not None:
        return subject.adaptation.inputs
    return three_times if takes_three(module, name, judged=judged) else None


def _with_candidate_tried(subject: Pair, outputs: Function) -> Pair:
    """The pair with its candidate built and called in the same forms, and a transfer where weights need one.

    What a candidate raises where the forms are known is a difference, and left to the checks.
    """
    said = subject.adaptation
    factory = factory_of(subject.candidate, said.config, subject.candidate_name, judged=True)
    try:
        with held_back(), seeded(0, subject.device), foreign(CANDIDATE):
            module = factory(SAMPLE.config())
    except UsageError:
        raise
    except Exception as error:
        ensure_foreign(error)
        return replace(subject, candidate=factory)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{subject.candidate_name} is no {subject.kind}: called with a config it returned {type(module).__name__}"
        )
    inputs = _inputs(module, subject, subject.candidate_name, judged=True)
    subject = replace(subject, candidate=adapt(factory, inputs, outputs))
    if callable(said.transfer):
        return _with_transfer_tried(replace(subject, transfer=Transfer(said.transfer, declared=True)))
    with seeded(0, subject.device):
        reference = subject.reference(SAMPLE.config())
    if not differs(reference, module):
        return subject
    found = find_transfer(reference, module, SAMPLE.config(), functools.partial(_distance, subject))
    if said.transfer and found is None:
        raise UsageError(f"transfer='auto' found no projection that stands against several: {HOW_TO_TRANSFER}")
    return replace(subject, transfer=found and replace(found, declared=said.transfer is not None))


def _with_transfer_tried(subject: Pair) -> Pair:
    problem = subject.problem(SAMPLE.but(dtype="float64"))
    assert subject.transfer is not None
    try:
        candidate = problem.candidate
    except UsageError:
        raise
    except Exception as error:
        told = f"transfer= does not fit: {type(error).__name__}: {line_of(error)}"
        raise UsageError(f"{told}; {HOW_TO_TRANSFER}") from error
    ones = {name: torch.ones_like(p) for name, p in candidate.named_parameters()}
    try:
        back = named_back(candidate, ones)
    except Exception as error:
        raise UsageError(
            f"transfer= cannot bring gradients back: {line_of(error)}; make it of cat, chunk, view and the like, "
            "without detach or .data"
        ) from error
    lost = [name for name, value in back.items() if value is None]
    if lost:
        raise UsageError(f"transfer= does not carry {', '.join(lost)} over: {HOW_TO_TRANSFER}")
    return subject


def _distance(subject: Pair, transfer: Transfer) -> tuple[float, float]:
    """How far apart the two are on one token and on several, in shares of the largest value, with weights carried over so."""
    found = []
    for length in (1, 5):
        case = SAMPLE.but(dtype="float64", seq_len=length)
        problem = replace(subject, transfer=transfer).problem(case)
        name = "logits" if subject.kind == "model" else "output"
        try:
            own = problem.run(problem.reference, problem.inputs, gradients=False)[name]
            mine = problem.run(problem.candidate, problem.inputs, gradients=False)[name]
            assert own is not None
            assert mine is not None
            found.append(float((own - mine).abs().max() / own.abs().max()))
        except Exception as error:  # whatever does not run with these weights does not agree
            if not isinstance(error, AssertionError):
                ensure_foreign(error)
            found.append(math.inf)
    return found[0], found[1]


def _positional(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _replaces(candidate: Callable[..., Any]) -> bool:
    """Whether the candidate takes a model rather than a config: by its parameter's name or annotation, else by trying."""
    names = _positional(candidate)
    if inspect.isclass(candidate) and issubclass(candidate, nn.Module):
        return False
    if names and names[0] in ("config", "cfg", "conf", "args"):
        return False
    if names and names[0] in ("model", "module", "net", "gpt", "network"):
        return True
    try:
        with held_back(), seeded(0, torch.device("cpu")), foreign(CANDIDATE):
            made: Any = candidate(SAMPLE.config())  # type: ignore[call-arg]  # narrowed to object by the test above
            return not isinstance(made, nn.Module)
    except Exception:
        return True
