"""Which kind of pair two objects are: found by their signatures and by trying, and made a Subject."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.errors import UsageError
from equivcheck.loading import find_device, line_of, load, name_of
from equivcheck.problem import seeded
from equivcheck.subject import SAMPLE, Subject

__all__ = ["KINDS", "resolve"]

KINDS = ("module", "function", "model", "replacement")


def resolve(reference: Any, candidate: Any, *, kind: str, device: str) -> Subject:
    """Load both, find the kind where it is `auto`, and the device; a UsageError where the pair fits no kind."""
    if kind not in ("auto", *KINDS):
        raise UsageError(f"unknown kind {kind!r}: allowed are auto, {', '.join(KINDS)}")
    where = find_device(device)
    names = name_of(reference), name_of(candidate)
    pair = []
    for given, name in zip((reference, candidate), names, strict=True):
        found = load(given) if isinstance(given, str) else given
        if not callable(found):
            raise UsageError(
                f"{name} is {type(found).__name__}, which cannot be called: give a class, a factory or a function"
            )
        pair.append(found)
    subject = Subject(pair[0], pair[1], kind, where, *names)
    found_kind = _find_kind(subject)
    if kind not in ("auto", found_kind) and not {kind, found_kind} <= {"model", "replacement"}:
        raise UsageError(
            f"kind {kind!r} was asked for, and {names[0]} looks like a {found_kind}: leave --kind out, or give the right one"
        )
    return Subject(pair[0], pair[1], found_kind if kind == "auto" else kind, where, *names).with_oracle_beside()


def _find_kind(subject: Subject) -> str:
    parameters = _positional(subject.reference)
    if [name[:1] for name in parameters[:3]] == ["q", "k", "v"] and not inspect.isclass(subject.reference):
        missing = [n for n in ("is_causal", "dropout_p", "scale") if not _accepts(subject.reference, n)]
        if missing:
            raise UsageError(
                f"{subject.reference_name} takes q, k, v and not {', '.join(missing)}: "
                "a function is f(q, k, v, *, is_causal, dropout_p, scale)"
            )
        return "function"
    fits = (
        "a factory takes a config and returns an nn.Module of x (B, T, C) or of token ids (B, T), "
        "a function takes q, k, v; see the kinds in the README"
    )
    try:
        with seeded(0, subject.device):
            module = subject.reference(SAMPLE.config())
    except Exception as error:
        raise UsageError(
            f"{subject.reference_name} fits no kind: called with a config it raised "
            f"{type(error).__name__}: {line_of(error)}; {fits}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{subject.reference_name} fits no kind: called with a config it returned {type(module).__name__}; {fits}"
        )
    module = module.eval()
    x = torch.linspace(-2, 2, 6 * SAMPLE.n_embd).view(2, 3, -1)
    errors = []
    for kind, value in (("module", x), ("model", torch.zeros(2, 3, dtype=torch.long))):
        try:
            with seeded(0, subject.device), torch.no_grad():
                y = module.to("cpu")(value)
        except Exception as error:
            errors.append(f"on {kind} input it raised {type(error).__name__}: {line_of(error)}")
            continue
        y = y[0] if isinstance(y, tuple | list) and y else y
        if isinstance(y, Tensor) and (y.dim() == 3 if kind == "model" else y.shape == x.shape):
            return "replacement" if kind == "model" and _replaces(subject.candidate) else kind
        errors.append(f"on {kind} input it returned {tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}")
    raise UsageError(f"{subject.reference_name} fits no kind: {'; '.join(errors)}; {fits}")


def _positional(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _accepts(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


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
        with seeded(0, torch.device("cpu")):
            made: Any = candidate(SAMPLE.config())  # type: ignore[call-arg]  # narrowed to object by the test above
            return not isinstance(made, nn.Module)
    except Exception:
        return True
