"""Readings of heads, scales, the softmax and gradients, and all readings in the order in which they are tried."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equivcheck.engine.causes.carrier import Core, Edit
from equivcheck.engine.causes.mask_readings import mask_readings
from equivcheck.engine.causes.reading import Family, Reading, Rows

__all__ = ["continuous", "gradients", "listed_readings"]


def _heads(rows: Rows) -> Iterator[Reading]:
    if rows.heads < 2:
        return
    if rows.groups > 1:
        count = rows.heads // rows.groups
        tiled = [h % count * rows.groups for h in range(rows.heads)]
        yield _reads("heads-tiled", f"grouped heads are tiled: query head i reads key head i % {count}", tiled)
    yield _reads("first-head-read", "all query heads read the first key head", [0] * rows.heads)
    for group in (2, 4, 8):
        if rows.groups == 1 and rows.heads % group == 0:
            shared = [h // group * group for h in range(rows.heads)]
            yield _reads("heads-shared", f"{group} query heads read one key head", shared, {"heads": group})
    last = [*range(rows.heads - 2), rows.heads - 1, rows.heads - 2]
    yield _reads("heads-exchanged", "the last two key heads are exchanged", last)
    yield _reads("heads-shifted", "each query head reads the key head before it", [h - 1 for h in range(rows.heads)])


def _reads(name: str, words: str, heads: list[int], parameters: Mapping[str, Any] | None = None) -> Reading:
    def read(x: Tensor) -> Tensor:
        wanted = [h % len(heads) for h in heads]
        return x[..., wanted, :, :] if x.dim() > 3 and x.size(-3) == len(heads) else x

    return Reading(name, words, Edit(keys=read, values=read), parameters or {})


def _softmaxes(rows: Rows) -> Iterator[Reading]:
    yield Reading(
        "softmax-over-queries",
        "the softmax is taken over the queries",
        Edit(probabilities=lambda p, core: _over_queries(p, core)),
        needs_scale=True,
    )
    yield Reading(
        "one-added-to-the-sum",
        "one is added to the sum of the softmax",
        Edit(probabilities=lambda p, core: _added(p, core)),
        needs_scale=True,
    )


def _over_queries(p: Tensor, core: Core) -> Tensor:
    assert core.scale is not None, "the reading needs the scale"
    masked = (core.scores * core.scale).masked_fill(~(p > 0), -math.inf)
    none = ~(p > 0).any(-2, keepdim=True)
    return masked.masked_fill(none, 0.0).softmax(-2).masked_fill(none, 0.0)


def _added(p: Tensor, core: Core) -> Tensor:
    assert core.scale is not None, "the reading needs the scale"
    sums = (core.scores * core.scale).masked_fill(~(p > 0), -math.inf).logsumexp(-1, keepdim=True)
    return p / (1 + (-sums).exp())


def _scaled(factor: float) -> Edit:
    return Edit(scores=lambda s, core: s * factor)


def _named_scales(rows: Rows) -> Iterator[Reading]:
    if rows.scale is None or rows.scale == 0:
        return
    named = {
        1.0: "the scores are not scaled",
        rows.scale**2: "the scores are scaled twice",
        rows.width**-0.5: "the scores are divided by the root of the whole width",
    }
    for scale, words in named.items():
        factor = scale / rows.scale
        if abs(factor - 1) > 1e-6:
            yield Reading("scale", words, _scaled(factor), {"factor": factor})


def _shared(factor: float) -> Edit:
    return Edit(probabilities=lambda p, core: p * factor)


def _outputs(rows: Rows) -> Iterator[Reading]:
    if 0 < rows.rate < 1:
        keep = 1 - rows.rate
        for factor, words in ((1 / keep, "divided by"), (keep, "multiplied by")):
            yield Reading(
                "rescaled-without-dropout",
                f"probabilities are {words} the share that dropout keeps, although nothing is dropped",
                _shared(factor),
                {"factor": factor},
            )


def listed_readings(rows: Rows) -> Iterator[Reading]:
    """The readings whose parameters are read off where results differ, the usual ones first."""
    for family in (mask_readings, _named_scales, _heads, _outputs, _softmaxes):
        yield from family(rows)


def _number(value: float) -> str:
    return f"{value:.6g}"


def continuous(rows: Rows) -> Iterator[Family]:
    """The families whose number changes the output."""
    yield Family(
        "scale",
        lambda f: Reading(
            "scale",
            f"the scores are multiplied by {_number(f)}",
            _scaled(f),
            {"factor": f},
        ),
    )
    if rows.scale is not None:
        yield Family(
            "cap",
            lambda cap: Reading(
                "cap",
                f"the scores are capped at {_number(cap)} by tanh",
                Edit(scores=lambda s, core: cap * torch.tanh(s * (core.scale or 1.0) / cap) / (core.scale or 1.0)),
                {"cap": cap},
            ),
            smallest=1e-1,
            largest=1e3,
        )
    yield Family(
        "output-scaled",
        lambda f: Reading(
            "output-scaled",
            f"the product of probabilities and values is multiplied by {_number(f)}",
            Edit(output=lambda y: y * f),
            {"factor": f},
        ),
    )


def gradients() -> Iterator[Family]:
    """The families whose number changes gradients alone."""
    for name in ("queries", "keys", "values", "scores", "probabilities"):
        yield Family("gradient", partial(_gradient, name))


def _gradient(name: str, factor: float) -> Reading:
    edits = {
        "queries": Edit(queries=lambda x: _with_gradient(x, factor)),
        "keys": Edit(keys=lambda x: _with_gradient(x, factor)),
        "values": Edit(values=lambda x: _with_gradient(x, factor)),
        "scores": Edit(scores=lambda x, core: _with_gradient(x, factor)),
        "probabilities": Edit(probabilities=lambda x, core: _with_gradient(x, factor)),
    }
    return Reading("gradient", _gradient_words(name, factor), edits[name], {"of": name, "factor": factor})


def _with_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values to the last bit, with a gradient times a factor."""
    return x.detach() + (x - x.detach()) * factor


def _gradient_words(name: str, factor: float) -> str:
    if factor == 0:
        return f"no gradient reaches the {name}"
    return f"the gradient of the {name} is multiplied by {_number(factor)}"
