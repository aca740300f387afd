"""Features of functions of q, k, v beyond the plain case, and the features that a mask needs."""

from collections.abc import Mapping
from typing import Any

from equivcheck.cases.domain import Domain

__all__ = ["FEATURES", "MASK_SHAPES", "feature_domain", "mask_features", "tried_with"]

_SMALL = 4  # the head size of the sample for which the fields of `FEATURES` are written

FEATURES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "lengths": ("keys of another number than queries", {"kv_len": 5, "is_causal": False}),
    "causal lengths": ("causal, keys of another number than queries", {"kv_len": 5}),
    # two heads of keys, because one would broadcast
    "heads": ("fewer heads of keys and values than of queries", {"n_head": 4, "kv_heads": 2}),
    "value size": ("values of another size than queries", {"value_size": 3}),
    "boolean": ("a boolean mask", {"mask": "some", "is_causal": False}),
    "causal boolean": ("causal with a boolean mask", {"mask": "some"}),
    "additive": ("an additive mask", {"mask": "additive", "is_causal": False}),
    "causal additive": ("causal with an additive mask", {"mask": "additive"}),
    "mask by heads": ("a boolean mask for each head", {"mask": "heads", "is_causal": False}),
    "plain mask": ("a boolean mask of two dimensions", {"mask": "plane", "is_causal": False}),
    "bias by heads": ("an additive mask for each head", {"mask": "bias", "is_causal": False}),
}
"""Each feature in words, and the fields of a case that tries it."""


MASK_SHAPES: Mapping[str, str] = {"mask by heads": "heads", "plain mask": "plane", "bias by heads": "bias"}
"""The features that are a shape of masks, and the mask of a case that has it."""


def tried_with(sample: Any, fields: Mapping[str, Any]) -> Any:
    """The case that tries a feature beside a sample; beside one of usual sizes its sizes are usual, too.

    Args:
        sample: A case with which both sides run.
        fields: The fields of the feature in `FEATURES`.
    """
    usual = {"kv_len": 2 * sample.seq_len, "value_size": sample.head_size // 2}
    changes = {} if sample.head_size <= _SMALL else {name: usual[name] for name in fields if name in usual}
    causal = {"is_causal": True} if {"kv_len", "mask"} & fields.keys() else {}  # unless the feature says otherwise
    return sample.but(**causal | dict(fields) | changes)


def mask_features(mask: str, *, is_causal: bool) -> set[str]:
    """The features that a mask of a case needs."""
    kind = "additive" if mask in ("additive", "both", "bias") else "boolean"
    return {f"causal {kind}" if is_causal else kind, *(name for name, shape in MASK_SHAPES.items() if shape == mask)}


def feature_domain(fields: Mapping[str, Any]) -> Domain:
    """The cases that have a feature which the case of these fields tries."""
    other = {"kv_len": "seq_len", "kv_heads": "n_head", "value_size": "head_size"}
    conditions = [f"{name} != {other[name]}" for name in fields if name in other]
    conditions.append("is_causal" if fields.get("is_causal", True) else "not is_causal")
    conditions.append(f"mask == {fields.get('mask', '')!r}")
    return Domain.parse(" and ".join(conditions))
