"""The checks as data, in the order of a run: their names, kinds, dtypes and numbers of cases.

The checks take these from here, so that a supervisor and a gate know them without torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equivcheck.report.outcomes import DTYPES

__all__ = [
    "CATALOGUE",
    "KINDS",
    "MODELS",
    "PARTS",
    "PROFILES",
    "Listed",
    "least_cases",
    "listed",
    "main_check",
    "share_of_cases",
]

KINDS = ("module", "function", "model", "replacement")
PARTS, MODELS = ("module", "function"), ("model", "replacement")
"""The kinds of which a pair is a part of a model, and of which it is a whole one."""

PROFILES = ("quick", "gate", "thorough")
_ENOUGH = 8
_ALL, _MODULES = KINDS, ("module", *MODELS)


@dataclass(frozen=True)
class Listed:
    """One check.

    Attributes:
        name: As the command line and reports name it.
        module: The module that defines it, below `equivcheck.checks`.
        kinds: The kinds of pairs that it applies to.
        cases: How many cases it has, by profile.
        dtypes: Those in which its cases are.
        judges: Whether it compares; False if it only records.
    """

    name: str
    module: str
    kinds: tuple[str, ...]
    cases: Mapping[str, int]
    dtypes: tuple[str, ...] = DTYPES
    judges: bool = True


def _cases(quick: int, gate: int, thorough: int) -> dict[str, int]:
    return dict(zip(PROFILES, (quick, gate, thorough), strict=True))


def _of_a_replacement(module: str, *names: str) -> tuple[Listed, ...]:
    """A check for each property of a replacement, so that each that is broken has an outcome and a case of its own."""
    return tuple(
        Listed(
            f"replacement.{name}", f"replacement.{module}", ("replacement",), _cases(1, 3, 20), ("float32", "float64")
        )
        for name in names
    )


CATALOGUE: tuple[Listed, ...] = (
    Listed("output", "values", PARTS, _cases(40, 170, 2000)),
    Listed("gradients", "values", PARTS, _cases(40, 110, 2000)),
    Listed("causality", "causality", _ALL, _cases(15, 90, 600)),
    Listed("interface", "interface", _ALL, _cases(4, 12, 100)),
    Listed("checkpoint", "checkpoint", _MODULES, _cases(4, 20, 100)),
    Listed("errors", "interface", _MODULES, _cases(4, 20, 100)),
    Listed("purity", "purity", _ALL, _cases(6, 40, 200)),
    Listed("layouts", "layouts", _ALL, _cases(3, 10, 100)),
    Listed("batching", "batching", _ALL, _cases(5, 32, 150)),
    Listed("lengths", "lengths", _ALL, _cases(4, 9, 60)),
    Listed("modes", "modes", _MODULES, _cases(15, 60, 600)),
    Listed("dropout", "dropout.dropout", _ALL, _cases(8, 24, 400)),
    Listed("logits", "values", _MODULES, _cases(16, 32, 400)),
    Listed("training", "training", _MODULES, _cases(2, 6, 40), ("float32", "float64")),
    Listed("generation", "generation", _MODULES, _cases(4, 24, 100)),
    Listed("decoding", "decoding", MODELS, _cases(6, 24, 200), ("float32", "bfloat16", "float64")),
    Listed("derivatives", "derivatives", _ALL, _cases(3, 8, 80), ("float32", "float64")),
    Listed("autocast", "autocast", _ALL, _cases(6, 24, 200), ("bfloat16", "float16")),
    Listed("compile", "compiled", _ALL, _cases(1, 2, 10), ("float32", "float64")),
    Listed("extremes", "extremes", PARTS, _cases(3, 24, 80)),
    *_of_a_replacement("coverage", "returned", "layers", "blocks"),
    *_of_a_replacement("state", "modes", "dtypes", "frozen", "parameters", "weights", "ties", "shared"),
    *_of_a_replacement("attachments", "hooks", "adapters", "rates", "masks"),
    *_of_a_replacement("coverage", "twice", "root", "others", "process"),
    Listed("long", "long.long", PARTS, _cases(1, 2, 12), ("float32", "bfloat16")),
    Listed("bias", "bias", PARTS, _cases(4, 12, 100), ("bfloat16", "float16", "float32")),
    Listed("backend", "backend", _ALL, _cases(4, 8, 40), judges=False),
)

_BY_NAME = {check.name: check for check in CATALOGUE}


def listed(name: str) -> Listed:
    """The check of this name."""
    return _BY_NAME[name]


def main_check(kind: str) -> str:
    """The first check that compares results by value for a pair of this kind; for an unknown kind, the first of all."""
    return next((c.name for c in CATALOGUE if c.module == "values" and kind in c.kinds), CATALOGUE[0].name)


def least_cases(check: Listed, profile: str, dtypes: int) -> int:
    """The least number of cases of this check that a run of this profile plans, whatever the pair and the device."""
    return share_of_cases(check.cases[profile], dtypes)


def share_of_cases(most: int, dtypes: int, features: int = 0) -> int:
    """The share of `most` cases for a number of dtypes, and no fewer cases than reveal a fault of each feature.

    Args:
        most: The number of cases for all dtypes.
        dtypes: The number of dtypes in which the pair is judged.
        features: The number of features of the pair, each of which needs cases to itself.
    """
    return min(most, max(_ENOUGH * (1 + features), math.ceil(most * dtypes / len(DTYPES))))
