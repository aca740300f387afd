"""A pair of functions of q, k, v: what both of them take, what they can do, and what the original takes notice of."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.cases.features import FEATURES, mask_features
from equivcheck.errors import UsageError
from equivcheck.pairs.forward import Function, unwrapping
from equivcheck.pairs.function_options import HOW_TO_CALL_IT, OPTIONS, may_take_qkv, normal, options_of
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, foreign, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime.rng import seeded

__all__ = ["as_functions"]

_CASE = Case(batch_size=2, seq_len=8, n_head=2, head_size=4, block_size=8, seed=1)
_WAYS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # an option: two cases that differ in it alone
    "dropout_p": ({"training": True, "attn_pdrop": 0.5}, {"training": True}),
    "scale": ({"scale": 0.25}, {"scale": 1.0}),
    "attn_mask": ({"mask": "some"}, {}),
}


def as_functions(subject: Pair, allowed: frozenset[str] | None = None) -> Pair:
    """The pair as functions of the contract's names, with the options that both take, or those of them that are `allowed`."""
    if not may_take_qkv(subject.candidate):
        raise UsageError(
            f"{subject.reference_name} is a function of q, k, v, and {subject.candidate_name} is not: {HOW_TO_CALL_IT}"
        )
    options = [
        options_of(subject.reference, subject.reference_name),
        options_of(subject.candidate, subject.candidate_name, judged=True),
    ]
    # what only one of them takes is left at its default in both
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
    if _refuses(subject, SAMPLE, "reference"):  # it may need one of its options: the candidate is called without
        subject = replace(subject, reference=normal(original, options[0]))
    subject = _unwrapped(subject)
    ignored = _ignored_options(subject)
    told = (f"changes nothing in the original, and must change nothing in the candidate: {name}" for name in ignored)
    subject = _with_features(replace(subject, ignored_options=frozenset(ignored), notes=(*subject.notes, *told)))
    subject = _learning(subject)
    tried = replace(subject, scale_optional="scale" in subject.options)
    left_out = SAMPLE.but(seed=1)  # an one of those that leave it out
    return subject if any(_refuses(tried, left_out, which) for which in ("reference", "candidate")) else tried


def _unwrapped(subject: Pair) -> Pair:
    """The pair with the tensor taken out of what both return, where the original returns it in a tuple; as it is otherwise."""
    problem = subject.problem(SAMPLE)
    try:
        with seeded(0, subject.device), torch.no_grad(), foreign(REFERENCE):
            found = problem.reference(*problem.inputs)
    except Exception as error:  # where it runs at all is found out with the dtypes
        ensure_foreign(error)
        return subject
    if isinstance(found, Tensor):
        return subject
    take = unwrapping(found)
    return replace(subject, reference=_taking(take, subject.reference), candidate=_taking(take, subject.candidate))


def _taking(take: Function, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def taken(*tensors: Tensor, **options: Any) -> Any:
        assert take is not None
        return take(function(*tensors, **options))

    return taken


def _with_features(subject: Pair) -> Pair:
    """The pair with the features in which both run; where only the original does, that is a note."""
    found: list[str] = []
    notes: list[str] = []
    for name, (words, tried) in FEATURES.items():
        # masks with values of another size: some kernels refuse both together
        fields = tried | ({"value_size": 3} if "mask" in tried and "value size" in found else {})
        if ("mask" in fields and "attn_mask" not in subject.options) or (
            not fields.get("is_causal", True) and "is_causal" not in subject.options
        ):
            continue
        if "mask" in fields and not mask_features(fields["mask"], is_causal=fields.get("is_causal", True)) <= {
            *found,
            name,
        }:
            continue  # that it refuses all such masks has been noted
        refused = [_refuses(subject, SAMPLE.but(**fields), which) for which in ("reference", "candidate")]
        if not any(refused):
            found.append(name)
        elif not refused[0]:
            notes.append(
                f"not judged, because the candidate refuses it and the original does not: {words} ({refused[1]})"
            )
    return replace(subject, features=frozenset(found), notes=(*subject.notes, *notes))


def _learning(subject: Pair) -> Pair:
    """The pair with an additive mask that is learned, where the original has a gradient for it and the candidate takes one."""
    additive = [FEATURES[n][1] for n in ("additive", "causal additive", "bias by heads") if n in subject.features]
    tried = replace(subject, learns_mask=True)
    cases = [SAMPLE.but(**fields) for fields in additive]
    if not cases or not all(_has_gradient(tried, case) for case in cases):
        return subject
    refused = next((told for case in cases if (told := _refuses(tried, case, "candidate"))), "")
    if not refused:
        return tried
    words = "the gradient of an additive mask"
    note = f"not judged, because the candidate refuses it and the original does not: {words} ({refused})"
    return replace(subject, notes=(*subject.notes, note))


def _has_gradient(subject: Pair, case: Case) -> bool:
    problem = subject.problem(case)
    try:
        found = problem.run(problem.reference, problem.inputs, gradients=True).get("grad attn_mask")
    except Exception as error:
        ensure_foreign(error)
        return False
    return found is not None


def _refuses(subject: Pair, case: Case, which: str) -> str:
    """What one of the two raises on a case, in any dtype that the other kernels of its kind are made for."""
    told = ""
    for dtype in ("float32", "bfloat16"):
        try:
            problem = subject.problem(case.but(dtype=dtype))
            with running(CANDIDATE if which == "candidate" else REFERENCE):
                found = problem.run(getattr(problem, which), problem.inputs, gradients=True)["output"]
            if found is not None and found.shape == problem.upstream["output"].shape:
                if which == "reference":
                    problem.oracle_values(gradients=False)
                return ""
            told = "a result of another shape"
        except Overwritten:
            return ""  # it runs
        except Exception as error:
            ensure_foreign(error)
            told = f"{type(error).__name__}: {line_of(error)[:80]}"
    return told


def _ignored_options(subject: Pair) -> list[str]:
    """Those of the options that both take that change nothing in the original; one that it refuses is not among them."""
    return [name for name, ways in _WAYS.items() if name in subject.options and not _felt(subject, *ways)]


def _felt(subject: Pair, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    found = []
    try:
        for fields in (one, other):
            problem = subject.problem(_CASE.but(**fields))
            found.append(problem.run(problem.reference, problem.inputs, gradients=False)["output"])
    except Exception:
        return True
    first, second = (torch.nan_to_num(value) for value in found if value is not None)
    return not torch.equal(first, second)
