"""Two objects are loaded, and made a Pair of the kind that they are of."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.pairs.adaptation import Adaptation
from equivcheck.pairs.candidate_trial import with_candidate_tried
from equivcheck.pairs.factories import factory_of
from equivcheck.pairs.forward import adapt
from equivcheck.pairs.function_kind import as_functions
from equivcheck.pairs.function_options import takes_qkv
from equivcheck.pairs.given import Given
from equivcheck.pairs.kind_finding import find_kind
from equivcheck.pairs.kinds import KINDS, SAMPLE
from equivcheck.pairs.loading import load, load_candidate, name_of
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE
from equivcheck.runtime import beacon, global_state, working_folder
from equivcheck.runtime.device import find_device

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
    with global_state.preserved():  # what a candidate switches where it is tried must be seen where it is judged
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
        found_kind, inputs, outputs = find_kind(subject)
        beacon.note_kind(found_kind)
        subject = replace(subject, reference=adapt(subject.reference, inputs, outputs))
    if kind not in ("auto", found_kind) and not all(KINDS[name].whole_model for name in (kind, found_kind)):
        raise UsageError(
            f"kind {kind!r} was asked for, and {names[0]} looks like a {found_kind}: leave --kind out, or give the right one"
        )
    subject = replace(subject, kind=found_kind if kind == "auto" else kind)
    if subject.traits.from_config:
        subject = with_candidate_tried(subject, outputs)
    return subject.with_oracle_beside()
