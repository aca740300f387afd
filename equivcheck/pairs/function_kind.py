"""A pair of functions of q, k, v: the options and features that both have, and options that the original ignores."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.cases.domain_solving import nearest
from equivcheck.cases.features import FEATURES, feature_domain, mask_features, tried_with
from equivcheck.errors import UsageError
from equivcheck.pairs.anchors import samples
from equivcheck.pairs.forward import Unwrapping
from equivcheck.pairs.function_options import HOW_TO_CALL_IT, OPTIONS, may_take_qkv, normal, options_of
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.oracle_choice import with_oracle_device, with_users_function
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.sequence_axis import turned
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, foreign, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime.rng import seeded

__all__ = ["as_functions"]

_CASE = Case(batch_size=2, seq_len=8, n_head=2, head_size=4, block_size=8, seed=1)
_DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which a function is tried, until it runs in one: kernels take half precision alone."""
_OPTION_CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # an option: two cases that differ in it alone
    "dropout_p": ({"training": True, "attn_pdrop": 0.5}, {"training": True}),
    "scale": ({"scale": 0.25}, {"scale": 1.0}),
    "attn_mask": ({"mask": "some"}, {}),
}


def as_functions(subject: Pair, allowed: frozenset[str] | None = None) -> Pair:
    """The pair as functions of the contract's names, with the options and features that both have.

    Args:
        subject: The pair; its reference takes q, k, v.
        allowed: The only options to use; None for all.

    Raises:
        UsageError: The candidate is no function of q, k, v, or the original needs an argument that is not known.
    """
    if not may_take_qkv(subject.candidate):
        raise UsageError(
            f"{subject.reference_name} is a function of q, k, v, and {subject.candidate_name} is not: {HOW_TO_CALL_IT}"
        )
    options = [
        options_of(subject.reference, subject.reference_name),
        options_of(subject.candidate, subject.candidate_name, judged=True),
    ]
    # an option that only one of them takes stays at its default in both
    shared = frozenset(options[0]) & frozenset(options[1])
    shared = shared if allowed is None else shared & allowed
    names = [{option: name for option, name in taken.items() if option in shared} for taken in options]
    original = subject.reference
    subject = replace(
        subject,
        kind="function",
        reference=normal(subject.reference, names[0]),
        candidate=normal(subject.candidate, names[1]),
        options=shared,
        reference_alone=tuple(name for name in OPTIONS if name in options[0] and name not in shared),
        notes=tuple(
            f"not judged, because only one of the two takes it: {name}"
            for name in OPTIONS
            if (name in options[0]) != (name in options[1])
        ),
    )
    subject = with_oracle_device(with_users_function(subject, shared))
    if _anchor(subject) is None:  # it may need an option that the candidate does not take
        subject = replace(subject, reference=normal(original, options[0]))
        subject = with_oracle_device(with_users_function(subject, frozenset(options[0])))
    subject = turned(_unwrapped(subject))
    subject = replace(subject, anchor=_anchor(subject, both=True) or _anchor(subject) or SAMPLE)
    if subject.anchor != SAMPLE:
        subject = with_oracle_device(subject)
    ignored = _ignored_options(subject)
    ignored_notes = (
        f"changes nothing in the original, and must change nothing in the candidate: {name}" for name in ignored
    )
    notes = (*subject.notes, *ignored_notes)
    subject = _with_features(replace(subject, ignored_options=frozenset(ignored), notes=notes))
    subject = _with_learned_mask(subject)
    tried = replace(subject, scale_optional="scale" in subject.options)
    left_out = subject.inside(subject.anchor).but(seed=1)  # an odd seed leaves the scale out
    return subject if any(_refusal(tried, left_out, which) for which in ("reference", "candidate")) else tried


def _anchor(subject: Pair, *, both: bool = False) -> Case | None:
    """The first sample with which the original runs, or both sides; None if there is none."""
    sides = ("reference", "candidate") if both else ("reference",)
    for causal in (True, False) if "is_causal" in subject.options else (True,):
        for case in samples(is_causal=causal):
            if not any(_refusal(subject, subject.inside(case), which) for which in sides):
                return case
    return None


def _unwrapped(subject: Pair) -> Pair:
    """The pair whose results are unwrapped if the original returns the tensor in a tuple; else the pair as it is."""
    for sample in samples():
        problem = subject.problem(subject.inside(sample))
        try:
            with seeded(0, subject.device), torch.no_grad(), foreign(REFERENCE):
                result = problem.reference(*problem.inputs)
        except Exception as error:  # `usable_dtypes` reports an original that does not run
            ensure_foreign(error)
            continue
        if isinstance(result, Tensor):
            break
        take = Unwrapping.of(result)
        return replace(
            subject,
            reference=_taking(take, subject.reference),
            candidate=_taking(take, subject.candidate),
            further_results=take.further,
        )
    return subject


def _taking(take: Unwrapping, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def taken(*tensors: Tensor, **options: Any) -> Any:
        return take(function(*tensors, **options))

    return taken


def _with_features(subject: Pair) -> Pair:
    """The pair with the features in which both run, and a note on each in which only the original runs."""
    features: list[str] = []
    notes: list[str] = []
    refusals: list[str] = []
    for name, (words, tried) in FEATURES.items():
        # masks with values of another size: some kernels refuse both together
        fields = tried | ({"value_size": 3} if "mask" in tried and "value size" in features else {})
        if ("mask" in fields and "attn_mask" not in subject.options) or (
            not fields.get("is_causal", True) and "is_causal" not in subject.options
        ):
            continue
        if "mask" in fields and not mask_features(fields["mask"], is_causal=fields.get("is_causal", True)) <= {
            *features,
            name,
        }:
            continue  # a note tells already that it refuses all such masks
        case = _with(subject, fields)
        if case is None:
            continue  # it is outside of the domain
        refused = [_refusal(subject, case, which) for which in ("reference", "candidate")]
        if not any(refused):
            features.append(name)
        elif not refused[0]:
            refusals.append(f"the candidate refuses {words}: {refused[1]}")
            notes.append(
                f"not judged, because the candidate refuses it and the original does not: {words} ({refused[1]})"
            )
    return replace(
        subject,
        features=frozenset(features),
        notes=(*subject.notes, *notes),
        refused_features=tuple(refusals),
    )


def _with(subject: Pair, fields: Mapping[str, Any]) -> Case | None:
    """A small case in the domain that has a feature; None if there is none."""
    case = tried_with(subject.anchor, fields)
    return (
        case
        if not subject.domain
        else nearest(case, subject.domain & feature_domain(fields), features=frozenset(FEATURES))
    )


def _with_learned_mask(subject: Pair) -> Pair:
    """The pair with a learned additive mask, if the original gives its gradient and the candidate accepts it."""
    additive = [FEATURES[n][1] for n in ("additive", "causal additive", "bias by heads") if n in subject.features]
    tried = replace(subject, learns_mask=True)
    cases = [case for fields in additive if (case := _with(subject, fields)) is not None]
    if not cases or not all(_has_gradient(tried, case) for case in cases):
        return subject
    refused = next((reason for case in cases if (reason := _refusal(tried, case, "candidate"))), "")
    if not refused:
        return tried
    feature = "the gradient of an additive mask"
    note = f"not judged, because the candidate refuses it and the original does not: {feature} ({refused})"
    return replace(subject, notes=(*subject.notes, note))


def _has_gradient(subject: Pair, case: Case) -> bool:
    for dtype in _DTYPES:
        problem = subject.problem(case.but(dtype=dtype))
        try:
            results = problem.run(problem.reference, problem.inputs, gradients=True)
        except Exception as error:
            ensure_foreign(error)
            continue
        return results.get("grad attn_mask") is not None
    return False


def _refusal(subject: Pair, case: Case, which: str) -> str:
    """The reason why a side fails on a case in its dtype and each of `_DTYPES`; empty if it runs in one of them."""
    reason = ""
    for dtype in dict.fromkeys((case.dtype, *_DTYPES)):
        if subject.domain and not subject.domain.allows(case.but(dtype=dtype)):
            continue
        try:
            problem = subject.problem(case.but(dtype=dtype))
            with running(CANDIDATE if which == "candidate" else REFERENCE):
                output = problem.run(getattr(problem, which), problem.inputs, gradients=True)["output"]
            if output is not None and output.shape == problem.upstream["output"].shape:
                if which == "reference":
                    problem.oracle_values(gradients=False)
                return ""
            reason = "a result of another shape"
        except Overwritten:
            return ""  # it runs
        except Exception as error:
            ensure_foreign(error)
            reason = f"{type(error).__name__}: {line_of(error)[:80]}"
    return reason


def _ignored_options(subject: Pair) -> list[str]:
    """The shared options that change nothing in the original; an option that it refuses is not among them."""
    return [
        name
        for name, cases in _OPTION_CASES.items()
        if name in subject.options and not _changes_output(subject, *cases)
    ]


def _changes_output(subject: Pair, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    usual = subject.inside(_CASE if subject.anchor == SAMPLE else subject.anchor.but(seed=1))
    for dtype in dict.fromkeys((usual.dtype, *_DTYPES)):
        cases = [usual.but(dtype=dtype).but(**fields) for fields in (one, other)]
        if not all(subject.domain.allows(case) for case in cases):
            continue  # nothing is asked of it there
        outputs = []
        try:
            for case in cases:
                problem = subject.problem(case)
                outputs.append(problem.run(problem.reference, problem.inputs, gradients=False)["output"])
        except Exception:
            continue
        first_output, second_output = (torch.nan_to_num(value) for value in outputs if value is not None)
        return not torch.equal(first_output, second_output)
    return True
