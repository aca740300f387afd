"""The fields of a case, one row each: form in an id, allowed values, meaning, and how it becomes simpler."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.simplifying import (
    Changes,
    earlier_words,
    eval_mode,
    fewer_steps,
    no_spare_block,
    nothing,
    shorter_keys,
    smaller,
)
from equivcheck.cases.words import LAYOUTS, MASKS, REGIMES, TOKENS
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["DECIMAL", "FIELDS", "NUMBER", "Field", "check_fields", "simpler_values", "visited"]

_LENGTHS = (1, 16, 64, 128, 256)
NUMBER, DECIMAL, _WORD, _LETTERS = r"\d+", r"[\d.]+", r"\w+", r"[a-z]+"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a case.

    Attributes:
        name: Its name in `Case`.
        meaning: Its meaning for a reader of an id.
        kinds: The kinds of pairs that use it.
        letter: The text before its value in an id.
        pattern: The regular expression of its value in an id; of a flag, the word for the value that is not the
            default.
        write: Turns a value into that text.
        read: Turns that text into a value.
        shown_with: The field that must differ from its default for this one to appear in an id; empty if it always
            appears.
        least: The least allowed number.
        most: The greatest allowed number.
        allowed: The allowed words, the simplest first.
        refused: The message for a value that does not match `pattern`; empty if the pattern is not checked.
        dimension: Its name in reports that count the visited values; empty if they do not.
        value_class: The class of a value in these reports.
        turn: The order in which fields are made simpler; 0 for never.
        simpler: The changes that make a case simpler in this field, the greatest steps first.
    """

    name: str
    meaning: str
    kinds: Sequence[str] = ("module", "function", "model", "replacement")
    letter: str = ""
    pattern: str
    write: Callable[[Any], str] = str
    read: Callable[[str], Any] = str
    shown_with: str = ""
    least: float | None = None
    most: float | None = None
    allowed: Sequence[str] = ()
    refused: str = ""
    dimension: str = ""
    value_class: Callable[[Any], str] = str
    turn: int = 0
    simpler: Callable[[Any, str], Iterator[Changes]] = lambda case, name: iter(())


def _general(value: float) -> str:
    return f"{value:.6g}"


def _length_class(seq_len: int) -> str:
    return next((f"up to {edge}" for edge in _LENGTHS if seq_len <= edge), "longer")


# --- the table --------------------------------------------------------------------------------------------------------


def _size(name: str, letter: str, meaning: str, turn: int, **more: Any) -> Field:
    return Field(
        name=name,
        letter=letter,
        meaning=meaning,
        pattern=NUMBER,
        read=int,
        least=1,
        turn=turn,
        **{"simpler": smaller, **more},
    )


def _rate(name: str, letter: str, meaning: str, turn: int) -> Field:
    return Field(
        name=name,
        letter=letter,
        meaning=meaning,
        pattern=DECIMAL,
        write=_general,
        read=float,
        least=0.0,
        most=1.0,
        turn=turn,
        simpler=nothing,
    )


def _of_functions(name: str, letter: str, meaning: str, turn: int, **more: Any) -> Field:
    return Field(
        name=name,
        letter=letter,
        meaning=meaning,
        kinds=("function",),
        shown_with=name,
        turn=turn,
        **{"pattern": NUMBER, "read": int, "least": 0, "simpler": nothing, **more},
    )


_MODELS = ("model", "replacement", "module")  # some checks run a module inside of a model

FIELDS: tuple[Field, ...] = (
    _size("batch_size", "B", "sequences in the batch", 13),
    _size("seq_len", "T", "positions of a sequence", 15, dimension="length", value_class=_length_class),
    _size("n_head", "H", "heads of the queries", 14),
    _size("head_size", "D", "channels of a head", 16),
    _size("block_size", "K", "the longest sequence that the attention is built for", 17, simpler=no_spare_block),
    Field(
        name="dtype",
        meaning="the dtype of weights and inputs",
        pattern=_WORD,
        allowed=DTYPES,
        dimension="dtype",
        turn=1,
        simpler=earlier_words,
    ),
    Field(
        name="training",
        meaning="the mode: eval or train",
        pattern="eval|train",
        write=lambda training: "train" if training else "eval",
        read=lambda text: text == "train",
        dimension="mode",
        value_class=lambda training: "train" if training else "eval",
        turn=4,
        simpler=eval_mode,
    ),
    _rate("attn_pdrop", "a", "the dropout rate of the probabilities", 5),
    _rate("resid_pdrop", "r", "the dropout rate of the output", 6),
    Field(
        name="regime",
        meaning="what the values are like",
        pattern=_WORD,
        allowed=REGIMES,
        dimension="regime",
        turn=2,
        simpler=earlier_words,
    ),
    Field(
        name="layout",
        meaning="how tensors lie in memory",
        pattern=_LETTERS,
        allowed=LAYOUTS,
        dimension="layout",
        turn=3,
        simpler=earlier_words,
    ),
    Field(
        name="seed",
        letter="s",
        meaning="the seed of every number",
        pattern=NUMBER,
        read=int,
        least=0,
        turn=7,
        simpler=nothing,
    ),
    Field(
        name="n_layer",
        letter="L",
        meaning="layers of the model",
        kinds=_MODELS,
        pattern=NUMBER,
        read=int,
        shown_with="n_layer",
        least=0,
    ),
    Field(
        name="vocab_size",
        letter="V",
        meaning="tokens that the model knows",
        kinds=_MODELS,
        pattern=NUMBER,
        read=int,
        shown_with="n_layer",
        least=1,
    ),
    Field(
        name="tokens",
        meaning="where the token ids come from",
        kinds=_MODELS,
        pattern="|".join(TOKENS),
        shown_with="n_layer",
        allowed=TOKENS,
    ),
    _of_functions("kv_len", "S", "keys and values, where they are not as many as queries", 11, simpler=shorter_keys),
    _of_functions("kv_heads", "G", "heads of keys and values, where they are fewer", 10),
    _of_functions("value_size", "E", "channels of a value, where they are not as many as of a key", 9),
    _of_functions("mask", "m", "what the mask hides or adds", 8, pattern=_LETTERS, read=str, least=None, allowed=MASKS),
    Field(
        name="scale",
        letter="c",
        meaning="the factor of the scores, where it is not 1 / sqrt(head_size)",
        kinds=("function",),
        pattern=f"-?{DECIMAL}",
        write=_general,
        read=float,
        shown_with="scale",
    ),
    Field(
        name="steps",
        letter="after-",
        meaning="what is done with the module before, a letter each",
        kinds=_MODELS,
        pattern=_LETTERS,
        shown_with="steps",
        refused="they are lower-case letters",
        turn=12,
        simpler=fewer_steps,
    ),
    Field(
        name="is_causal",
        meaning="every query sees every key",
        kinds=("function",),
        pattern="full",
        write=lambda causal: "full",
        read=lambda text: False,
        shown_with="is_causal",
    ),
)
"""In the order of an id. A new field of a case is a row here and an attribute of `Case`."""

_BY_NAME = {field.name: field for field in FIELDS}
_IN_TURN = sorted((field for field in FIELDS if field.turn), key=lambda field: field.turn)
"""The fields that are made simpler, in their order."""


def check_fields(case: Any) -> None:
    """Return if every value is allowed; a UsageError names the first that is not."""
    for field in FIELDS:
        value = getattr(case, field.name)
        if field.most is not None and not (field.least or 0.0) <= value <= field.most:
            raise UsageError(f"a case has {field.name}={value}: a rate lies between {field.least:g} and {field.most:g}")
        if field.most is None and field.least is not None and value < field.least:
            rule = f"be at least {field.least:g}" if field.least else "not be negative"
            raise UsageError(f"a case has {field.name}={value}: it must {rule}")
        if field.allowed and value not in field.allowed:
            raise UsageError(f"a case has {field.name}={value!r}: allowed are {', '.join(field.allowed)}")
        if field.refused and value and not re.fullmatch(field.pattern, value):
            raise UsageError(f"a case has {field.name}={value!r}: {field.refused}")


def simpler_values(case: Any) -> Iterator[Changes]:
    """Changes that make one field simpler, in the order in which they are tried."""
    for field in _IN_TURN:
        yield from field.simpler(case, field.name)


def visited(case: Any) -> dict[str, str]:
    """The class of the case in each dimension that reports count."""
    return {f.dimension: f.value_class(getattr(case, f.name)) for f in FIELDS if f.dimension}
