"""The names that a domain may use: what each means, its type, and its value in a case."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from equivcheck.cases.words import LAYOUTS, MASKS, REGIMES
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["DEFINED_BY", "DEVICES", "FLAG", "NAMES", "NUMBER", "TEXT", "WORDS", "value_of", "values_of", "with_causes"]

NUMBER, TEXT, FLAG = "a number", "a text", "true or false"
"""The types of values."""

NAMES: Mapping[str, str] = {
    "head_size": NUMBER,
    "seq_len": NUMBER,
    "kv_len": NUMBER,
    "n_head": NUMBER,
    "kv_heads": NUMBER,
    "value_size": NUMBER,
    "batch_size": NUMBER,
    "block_size": NUMBER,
    "n_embd": NUMBER,
    "dtype": TEXT,
    "device": TEXT,
    "is_causal": FLAG,
    "mask": TEXT,
    "training": FLAG,
    "attn_pdrop": NUMBER,
    "resid_pdrop": NUMBER,
    "scale": NUMBER,
    "n_layer": NUMBER,
    "vocab_size": NUMBER,
    "layout": TEXT,
    "regime": TEXT,
}
"""Each name with its type, in the order of messages. `kv_len`, `kv_heads`, `value_size` and `scale` are the real
numbers, also where a case has them by default. `n_layer` and `vocab_size` say nothing of attentions alone."""

DEVICES = ("cpu", "cuda")
WORDS: Mapping[str, Sequence[str]] = {
    "dtype": DTYPES,
    "device": DEVICES,
    "mask": MASKS,
    "layout": LAYOUTS,
    "regime": REGIMES,
}
"""The values of the names of type text."""

DEFINED_BY: Mapping[str, tuple[str, ...]] = {"n_embd": ("n_head", "head_size")}
"""A name that no table has -> the names that it follows from."""

_LEANS_ON: Mapping[str, tuple[str, ...]] = {
    "kv_len": ("seq_len", "is_causal"),
    "kv_heads": ("n_head",),
    "value_size": ("head_size",),
    "block_size": ("seq_len",),
    "scale": ("head_size",),
    "vocab_size": ("n_layer",),
}

_BY_DEFAULT = {"kv_len": "seq_len", "kv_heads": "n_head", "value_size": "head_size"}
_PLAIN = tuple(name for name in NAMES if name not in ("device", "n_embd", "scale", "n_layer", "vocab_size"))


def with_causes(names: Iterable[str]) -> frozenset[str]:
    """The names, with those on which their tables depend."""
    named = set(names)
    return frozenset(named.union(*(_LEANS_ON.get(name, ()) for name in named)))


def values_of(case: Any) -> dict[str, Any]:
    """The values of a case by the names of a domain; without those that say nothing of it."""
    values = {name: getattr(case, name) for name in _PLAIN}
    for name, default in _BY_DEFAULT.items():
        values[name] = values[name] or values[default]
    values["scale"] = case.scale
    if case.n_layer:
        values |= {"n_layer": case.n_layer, "vocab_size": case.vocab_size}
    return values


def value_of(name: str, values: Mapping[str, Any]) -> Any:
    """The value of a name where some values are known; None if it is open."""
    if name == "n_embd":
        heads, size = values.get("n_head"), values.get("head_size")
        return None if heads is None or size is None else heads * size
    if name == "scale" and "scale" in values and values["scale"] is None:
        size = values.get("head_size")
        return None if size is None else size**-0.5
    return values.get(name)
