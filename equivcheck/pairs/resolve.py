"""Loads two objects and makes a Pair of their kind."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.pairs.adaptation import Adaptation
from equivcheck.pairs.candidate_trial import with_candidate_tried
from equivcheck.pairs.declared_domain import declared_domain
from equivcheck.pairs.factories import factory_of
from equivcheck.pairs.forward import Unwrapping, adapt
from equivcheck.pairs.function_kind import as_functions
from equivcheck.pairs.function_options import takes_qkv
from equivcheck.pairs.given import Given
from equivcheck.pairs.kind_finding import find_kind
from equivcheck.pairs.kinds import KINDS, SAMPLE
from equivcheck.pairs.loading import load, load_candidate, name_of
from equivcheck.pairs.oracle_choice import with_oracle_device, with_users_factory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE
from equivcheck.runtime import beacon, global_state, working_folder
from equivcheck.runtime.device import find_device
from equivcheck.runtime.nearest_name import did_you_mean

__all__ = ["IMPORTING", "resolve"]

IMPORTING = "importing"
"""The step of a side during its import."""


def resolve(
    reference: Any,
    candidate: Any,
    *,
    kind: str,
    device: str,
    adaptation: Mapping[str, Given] | None = None,
    between: Callable[[Any], None] = lambda reference: None,
    allowed: frozenset[str] | None = None,
    domain: str | Callable[..., Any] | None = None,
) -> Pair:
    """Load both sides, and make a pair of them.

    Args:
        reference: The original, or its import string.
        candidate: The candidate, or its import string.
        kind: The name of the kind, or `auto`.
        device: The name of the device, or `auto`.
        adaptation: The arguments of `Adaptation.of`.
        between: Called with the reference after it is loaded and before the candidate is.
        allowed: The only options of functions to use, by default all that both take.
        domain: The cases that the original is meant for, as the user declares them; None for all.

    Raises:
        UsageError: A side cannot be loaded or called, or the pair fits no kind.
    """
    if kind not in ("auto", *KINDS):
        nearest = did_you_mean(kind, ("auto", *KINDS))
        raise UsageError(f"unknown kind {kind!r}: allowed are auto, {', '.join(KINDS)}{nearest}")
    where = find_device(device)
    names = name_of(reference), name_of(candidate)
    root = working_folder.current()  # the pair may change it while it is loaded
    pair: list[Any] = []
    switched: tuple[str, ...] = ()
    for side, given, name in zip((REFERENCE, CANDIDATE), (reference, candidate), names, strict=True):
        target = given
        beacon.note_side(side)
        if isinstance(given, str):
            beacon.note_step(IMPORTING)
            # settings that the original's import switches stay: it was trained with them
            target, switched = load_candidate(given, root) if pair else (load(given, root), ())
            beacon.note_step(beacon.NOTHING)
        if not callable(target):
            raise UsageError(
                f"{name} is {type(target).__name__}, which cannot be called: give a class, a factory or a function"
            )
        if not pair:
            between(target)
        pair.append(target)
    user_functions = Adaptation.of(root, **adaptation or {})
    meant = declared_domain(domain, device=where.type, root=root)
    subject = Pair(
        pair[0], pair[1], kind, where, *names, adaptation=user_functions, switched_at_import=switched, domain=meant
    )
    beacon.note_case(subject.inside(SAMPLE).id)
    with global_state.preserved():  # settings that a candidate switches in its trial must be seen when it is judged
        return _tried(subject, kind, allowed)


def _tried(subject: Pair, kind: str, allowed: frozenset[str] | None) -> Pair:
    adaptation, names = subject.adaptation, (subject.reference_name, subject.candidate_name)
    if takes_qkv(subject.reference):
        recognised_kind = "function"
        beacon.note_kind(recognised_kind)
        subject = as_functions(subject, allowed)
        if adaptation.given:
            raise UsageError(f"{adaptation.given[0]}= is for modules and models, and {names[0]} is a function")
    else:
        subject = replace(subject, reference=factory_of(subject.reference, adaptation.config, names[0]))
        recognised_kind, inputs, outputs, notes, anchor = find_kind(subject)
        beacon.note_kind(recognised_kind)
        notes = (*subject.notes, *notes)
        subject = replace(
            subject,
            reference=adapt(subject.reference, inputs, outputs),
            notes=notes,
            anchor=anchor,
            further_results=outputs.further if isinstance(outputs, Unwrapping) else 0,
        )
    if kind not in ("auto", recognised_kind) and not all(KINDS[name].whole_model for name in (kind, recognised_kind)):
        raise UsageError(
            f"kind {kind!r} was asked for, and {names[0]} looks like a {recognised_kind}: "
            "leave --kind out, or give the right one"
        )
    subject = replace(subject, kind=recognised_kind if kind == "auto" else kind)
    if subject.traits.function:
        return subject
    subject = with_users_factory(subject, inputs, outputs)
    if subject.traits.from_config:
        subject = with_candidate_tried(subject, outputs)
    return with_oracle_device(subject)
