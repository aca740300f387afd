"""Causes of functions: readings of the problem are tried, and one that explains the whole difference is named.

A reading is attention in plain operations with every choice fixed: the alignment of the causal mask, the meaning of
True, the key head that a query head reads, the output of a query that sees no key. The readings that the original
follows are found first. A change of one choice that puts the candidate within budget on every failing case is the whole
difference.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.function_module import FunctionModule
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, running
from equivcheck.report.diagnosis import Cause

__all__ = ["Reading", "attention", "causes_of_options"]

_CASES = 6  # failing ones that one reading must explain, all of them
_SAME = 1e-9  # of the largest value, in float64

_CHOICES: dict[str, dict[str, str]] = {
    "corner": {
        "top-left": "the causal mask is aligned top-left, as torch does",
        "bottom-right": "the causal mask is aligned bottom-right, as flash-attn does",
        "none": "is_causal is ignored",
    },
    "mask": {
        "as given": "the mask is read as torch reads it: True is seen",
        "inverted": "the boolean mask is inverted: True is hidden",
        "ignored": "the mask is ignored",
        "added": "the boolean mask is added to the scores as 0 and 1",
        "scaled": "the additive mask is multiplied by the scale",
    },
    "heads": {
        "interleaved": "grouped heads are interleaved: query head i reads key head i // (H / Hkv)",
        "tiled": "grouped heads are tiled: query head i reads key head i % Hkv",
        "first": "all query heads read the first key head",
    },
    "empty": {
        "nan": "a query that sees no key gives NaN",
        "zero": "a query that sees no key gives zeros",
        "mean": "a query that sees no key gives the mean of all values",
        "mean of the earlier": "a query that sees no key gives the mean of the values that are not in its future",
    },
    "scale": {
        "given": "the scale is the one given",
        "default": "the scale is ignored: scores are divided by the root of the head size",
        "none": "the scores are not scaled",
        "twice": "the scores are scaled twice",
    },
}
"""The choices, and each of their values in words."""


@dataclass(frozen=True)
class Reading:
    """One way to read the arguments of a function of q, k, v: a value for each of the choices."""

    corner: str = "top-left"
    mask: str = "as given"
    heads: str = "interleaved"
    empty: str = "nan"
    scale: str = "given"

    def others(self) -> Iterator[tuple[tuple[str, ...], "Reading"]]:
        """The readings that differ in one choice, then those in two that go together, each with these choices."""
        for choices in (*((choice,) for choice in _CHOICES), ("corner", "empty"), ("mask", "empty")):
            for values in itertools.product(*(_CHOICES[choice] for choice in choices)):
                if all(value != getattr(self, choice) for choice, value in zip(choices, values, strict=True)):
                    yield choices, replace(self, **dict(zip(choices, values, strict=True)))


def attention(
    reading: Reading,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool,
    dropout_p: float,
    scale: float,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention in plain operations as `reading` defines it, without dropout: (B, H, T, Dv)."""
    group = q.size(1) // k.size(1)
    if group > 1:
        heads = torch.arange(q.size(1), device=q.device)
        read = {"interleaved": heads // group, "tiled": heads % k.size(1), "first": heads * 0}[reading.heads]
        k, v = k[:, read], v[:, read]
    T, S = q.size(-2), k.size(-2)
    size = {"given": scale, "default": q.size(-1) ** -0.5, "none": 1.0, "twice": scale * scale}[reading.scale]
    scores = (q @ k.transpose(-2, -1)) * size  # (B, H, T, S)
    later = hidden = torch.zeros(T, S, dtype=torch.bool, device=q.device)
    if is_causal and reading.corner != "none":
        later = hidden = ~torch.ones_like(hidden).tril(0 if reading.corner == "top-left" else S - T)
    if attn_mask is not None and reading.mask != "ignored":
        if attn_mask.dtype is not torch.bool:
            added = attn_mask * (size if reading.mask == "scaled" else 1.0)
            hidden = hidden | (attn_mask == -math.inf)
            scores = scores + added.masked_fill(attn_mask == -math.inf, 0.0)
        elif reading.mask == "added":
            scores = scores + attn_mask.to(scores.dtype)
        else:
            hidden = hidden | (attn_mask if reading.mask == "inverted" else ~attn_mask)
    empty = hidden.all(-1, keepdim=True)  # queries that see no key
    scores = scores.masked_fill(hidden if reading.empty == "nan" else hidden & ~empty, -math.inf)
    if reading.empty.startswith("mean"):
        scores = scores.masked_fill(empty, 0.0)
    if reading.empty == "mean of the earlier":
        scores = scores.masked_fill(later, -math.inf)
    y: Tensor = scores.softmax(-1) @ v
    return y.masked_fill(empty, 0.0) if reading.empty == "zero" else y


def causes_of_options(subject: Pair, failed: Sequence[Case], *, gradients: bool) -> tuple[Cause, ...]:
    """The readings that explain the whole difference; none if none does.

    Args:
        subject: The pair; only functions have readings.
        failed: The failing cases, the smallest first.
        gradients: Whether the reading must explain the gradients, too.
    """
    if not subject.traits.function or not failed:
        return ()
    some = [case for case in failed if not (case.training and case.attn_pdrop)]
    # the smallest, and the largest: many readings fit small ones
    some = [*some[:1], *sorted(some[1:], key=lambda c: -c.seq_len * (c.kv_len or c.seq_len))][:_CASES]
    bases = [r for r in _usual() if all(_follows(subject, case, r) for case in some)] if some else []
    if not bases or all(_explains(subject, case, bases[0], gradients) for case in some):
        return ()
    # the original may follow several readings on these cases: the simplest difference is one choice from any of them
    tried = sorted(((base, *other) for base in bases for other in base.others()), key=lambda t: len(t[1]))
    explained: dict[str, tuple[int, Cause]] = {}
    for base, choices, reading in tried:
        if min((count for count, _ in explained.values()), default=len(choices)) < len(choices):
            break
        if any(_differ(subject, case, base, reading) for case in some) and all(
            _explains(subject, case, reading, gradients) for case in some
        ):
            candidate_words, reference_words = ([_CHOICES[c][getattr(r, c)] for c in choices] for r in (reading, base))
            words = f"{', and '.join(candidate_words)}; in the original {', and '.join(reference_words)}"
            chosen = {choice: getattr(reading, choice) for choice in choices}
            explained.setdefault(words, (len(choices), Cause("+".join(choices), words, chosen)))
    return tuple(cause for _, cause in explained.values())


def _usual() -> Iterator[Reading]:
    for corner in ("top-left", "bottom-right", "none"):
        for empty in _CHOICES["empty"]:
            for heads in ("interleaved", "tiled"):
                yield Reading(corner=corner, empty=empty, heads=heads)


def _reading_of(subject: Pair, case: Case, reading: Reading) -> Problem:
    """The case with the attention of `reading` in the place of the original."""
    return replace(
        subject.problem(case),
        make_reference=lambda: (
            FunctionModule(partial(attention, reading), case, learned=subject.learns_mask)
            .train(case.training)
            .to(subject.device)
        ),
        memory=Memory(),
        oracle_device=None,
        memory_key=("reading", reading, case),
    )


def _differ(subject: Pair, case: Case, one: Reading, other: Reading) -> bool:
    values = [_reading_of(subject, case, r).oracle_values(gradients=False)["output"] for r in (one, other)]
    return not _alike(*values)


def _follows(subject: Pair, case: Case, reading: Reading) -> bool:
    try:
        reference_output = subject.problem(case).oracle_values(gradients=False)["output"]
    except Exception:
        return False
    return _alike(reference_output, _reading_of(subject, case, reading).oracle_values(gradients=False)["output"])


def _alike(one: Tensor, other: Tensor) -> bool:
    other = other.to(one.device)  # the original's truth may have been computed on the CPU
    if one.shape != other.shape or not torch.equal(one.isnan(), other.isnan()):
        return False
    error = (one - other).nan_to_num().abs()
    return float(error.max()) <= _SAME * max(float(one.nan_to_num().abs().max()), 1e-300)


def _explains(subject: Pair, case: Case, reading: Reading, gradients: bool) -> bool:
    """Whether the candidate computes what `reading` computes on the case."""
    problem = _reading_of(subject, case, reading)

    def run(which: Any) -> Any:
        return problem.run(which, problem.inputs, gradients=gradients)

    try:
        truth = problem.truth(gradients=gradients)
        with running(CANDIDATE):
            results = run(problem.candidate)
        output = results["output"]
        if output is None or not torch.equal(output.isnan(), truth.values["output"].isnan()):
            return False
        compare_all(problem, truth, results, lambda: run(problem.reference), truth.values)
    except Mismatch:
        return False
    except Exception as error:  # no reading explains a candidate that does not run
        ensure_foreign(error)
        return False
    return True
