"""The factors of a case, and the classes of each: sizes as the field uses them, words, and lengths of keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.features import mask_features
from equivcheck.cases.space import CaseSpace

__all__ = ["MANY", "MOST_FEW", "SIGNED_SCALES", "Factor", "causal_label", "factors_of", "keys_of", "labels_of"]


@dataclass(frozen=True)
class Factor:
    """One factor: its name, and its classes as label -> the values of a class.

    Attributes:
        name: A field of `Case`, or a word for several of them.
        classes: Label -> the values in the class, ascending, or the fields that it stands for.
    """

    name: str
    classes: Mapping[str, Sequence[Any]]


def _ranges(*bounds: tuple[int, int]) -> dict[str, Sequence[int]]:
    return {str(low) if low == high else f"{low} to {high}": range(low, high + 1) for low, high in bounds}


BATCH = _ranges((1, 1), (2, 2), (3, 8), (9, 64), (65, 130))
LENGTH = _ranges((1, 1), (2, 8), (9, 32), (33, 128), (129, 256), (257, 512), (513, 700))
HEADS = _ranges((1, 1), (2, 8), (12, 12), (16, 16), (32, 32), (40, 40))
HEAD_SIZE = _ranges((1, 15), (16, 63), (64, 64), (80, 80), (96, 96), (128, 128), (192, 192), (256, 256))
KEYS: Mapping[str, Sequence[str]] = {
    name: (name,) for name in ("as queries", "few more", "twice and more", "many to a few queries", "fewer")
}
MOST_FEW, MANY = 8, 64
"""Up to so many queries are few, and from so many keys on are many."""
BLOCK_SIZE: Mapping[str, Sequence[int]] = {"the length": (0,), "larger": (1, 7, 64)}  # more than the length
SIGNED_SCALES = (0.0, -0.5)
"""Scales that are asked for without a causal mask and in wide dtypes alone. Elsewhere torch's fused kernels give NaN:
they multiply the -inf of a masked score by the scale (torch 2.13 on a CPU, 2.11 on CUDA)."""
GROUPS = {"one": (1,), "2 to one": (2,), "4 to one": (4,), "8 to one": (8,), "all to one": (0,)}


def factors_of(space: CaseSpace, *, has_weights: bool) -> list[Factor]:
    """The factors in which cases of a space differ, with their classes in it.

    Args:
        space: The space.
        has_weights: Whether a side is a module, which is built for a longest sequence.
    """
    layers = [n for n in space.n_layers if n]
    signed = SIGNED_SCALES if len(set(space.scales)) > 1 and False in space.is_causal else ()
    factors = [
        Factor("batch", BATCH),
        Factor("length", LENGTH),
        Factor("heads", HEADS),
        Factor("head size", HEAD_SIZE),
        Factor("dtype", {dtype: (dtype,) for dtype in space.dtypes}),
        Factor("mode", _modes(space)),
        Factor("layout", {word: (word,) for word in space.layouts}),
        Factor("regime", {word: (word,) for word in space.regimes}),
        Factor("causal", {causal_label(value): (value,) for value in (True, False) if value in space.is_causal}),
        Factor("scale", {_scale(value): (value,) for value in dict.fromkeys((*space.scales, *signed))}),
        Factor("value size", {"as queries": (0,), "other": (1, 5, 24, 40)} if "value size" in space.features else {}),
        Factor("keys", KEYS if {"lengths", "causal lengths"} & space.features else {}),
        Factor("groups", GROUPS if "heads" in space.features else {}),
        Factor("block size", BLOCK_SIZE if has_weights else {}),
        Factor("layers", {str(n): (n,) for n in layers}),
        Factor("vocabulary", {str(n): (n,) for n in space.vocab_sizes} if layers else {}),
        Factor("mask", {word or "none": (word,) for word in space.masks if _able(word, space)}),
    ]
    return [factor for factor in factors if len(factor.classes) > 1]


def labels_of(case: Case, factors: Sequence[Factor]) -> dict[str, str]:
    """Factor -> the label of the class that a case is in; without the factors of which it is in none."""
    keys, heads = case.kv_len or case.seq_len, case.kv_heads or case.n_head
    sizes = {"batch": case.batch_size, "length": case.seq_len, "heads": case.n_head, "head size": case.head_size}
    words = {
        "dtype": case.dtype,
        "block size": "larger" if case.block_size > case.seq_len else "the length",
        "layers": str(case.n_layer),
        "vocabulary": str(case.vocab_size),
        "layout": case.layout,
        "regime": case.regime,
        "causal": causal_label(case.is_causal),
        "scale": _scale(case.scale),
        "value size": "other" if case.value_size not in (0, case.head_size) else "as queries",
        "keys": _keys(case.seq_len, keys),
        "groups": "one" if heads == case.n_head else "all to one" if heads == 1 else f"{case.n_head // heads} to one",
        "mask": case.mask or "none",
    }
    labels: dict[str, str] = {}
    for factor in factors:
        if factor.name == "mode":
            modes = (case.training, case.attn_pdrop, case.resid_pdrop)
            labels |= [(factor.name, label) for label, values in factor.classes.items() if modes in values]
        elif factor.name in words and words[factor.name] in factor.classes:
            labels[factor.name] = words[factor.name]
        elif factor.name in sizes:
            size = sizes[factor.name]
            labels |= [(factor.name, label) for label, values in factor.classes.items() if size in values]
    return labels


def causal_label(value: bool) -> str:
    """The label of the class of a case that is causal, or is not."""
    return "causal" if value else "not causal"


def _scale(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _keys(queries: int, keys: int) -> str:
    if keys <= queries:
        return "as queries" if keys == queries else "fewer"
    if queries <= MOST_FEW and keys >= MANY:
        return "many to a few queries"
    return "twice and more" if keys >= 2 * queries else "few more"


def _modes(space: CaseSpace) -> dict[str, Sequence[tuple[bool, float, float]]]:
    """Label -> the modes of the class, each with the rates of both dropouts."""
    modes: dict[str, Sequence[tuple[bool, float, float]]] = {}
    if space.training is not True:
        modes["eval"] = ((False, 0.0, 0.0),)
        if rates := [(False, a, b) for a in space.rates for b in space.rates if a or b]:
            modes["eval with a rate"] = tuple(rates)
    if space.training is not False:
        trained = dict.fromkeys(space.train_rates)
        for rate in trained:
            word = f"train with {rate:g}" if len(trained) > 1 else "train"
            modes[word] = tuple((True, rate, other) for other in trained)
    return modes


def _able(mask: str, space: CaseSpace) -> bool:
    return not mask or any(mask_features(mask, is_causal=causal) <= space.features for causal in space.is_causal)


def keys_of(word: str, seq_len: int, choose: Callable[[Sequence[int]], int]) -> int:
    """The number of keys of a class for so many queries; 0 if it is that of the queries.

    Args:
        word: The class of `KEYS`.
        seq_len: The number of queries.
        choose: Chooses one of several numbers.
    """
    choices: Mapping[str, Sequence[int]] = {
        "as queries": (0,),
        "few more": range(seq_len + 1, min(2 * seq_len, seq_len + 34)),
        "twice and more": range(2 * seq_len, 4 * seq_len + 1) if seq_len > 1 else range(2, 9),
        "many to a few queries": (MANY, 97, 127, 128, 129, 200, 255, 256, 257, 512, 1000, 1024, 1025),
        "fewer": range(max(1, seq_len // 4), seq_len),
    }
    return choose(choices[word]) if choices[word] else 0
