"""The checks as data, in the order of a run: their names, kinds, dtypes and numbers of cases.

The checks take these from here, so that a supervisor and a gate know them without torch.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.levels import DROP_IN, LEVELS, TRAINING, TRANSFORMS, VALUES

__all__ = [
    "CATALOGUE",
    "KINDS",
    "MODELS",
    "PARTS",
    "PROFILES",
    "SCREEN",
    "Kind",
    "KindOrAuto",
    "Listed",
    "Profile",
    "check_names",
    "deviation_names",
    "is_listed",
    "least_cases",
    "level_at",
    "levels_known",
    "listed",
    "main_check",
    "passing_over",
    "round_of",
    "share_of_cases",
]

Kind = Literal["module", "function", "model", "replacement"]
KindOrAuto = Literal["auto", Kind]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS, MODELS = ("module", "function"), ("model", "replacement")
"""The kinds of which a pair is a part of a model, and of which it is a whole one."""

Profile = Literal["screen", "quick", "gate", "thorough"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
SCREEN: Profile = "screen"
"""A screen has each check's first cases alone, in which most faults are seen: it refutes, and never says equivalent."""
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
        level: The level that its main finding has; empty for one that only records.
        findings: Further findings, each with its level: a part of the property that fails by itself.
        on_request: Whether it runs only where it is asked for, by its name or by an option.
    """

    name: str
    module: str
    kinds: tuple[str, ...]
    cases: Mapping[str, int]
    dtypes: tuple[str, ...] = DTYPES
    judges: bool = True
    level: str = VALUES
    findings: Mapping[str, str] = field(default_factory=dict)
    on_request: bool = False

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that its findings can have, the main one first."""
        return tuple(dict.fromkeys(level for level in (self.level, *self.findings.values()) if level))

    def level_of(self, finding: str) -> str:
        """The level of one of its findings; the empty one is the main finding."""
        return self.findings.get(finding, self.level)


def _cases(quick: int, gate: int, thorough: int, *, screen: int = 1) -> dict[str, int]:
    return dict(zip(PROFILES, (screen, quick, gate, thorough), strict=True))


def _of_a_replacement(module: str, *names: str) -> tuple[Listed, ...]:
    """A check for each property of a replacement, so that each that is broken has an outcome and a case of its own."""
    return tuple(
        Listed(
            f"replacement.{name}",
            f"replacement.{module}",
            ("replacement",),
            _cases(1, 3, 20),
            ("float32", "float64"),
            level=DROP_IN,
        )
        for name in names
    )


_INTERFACE = ("signature", "built", "form", "layout", "attributes", "submodules", "hooks", "adapters", "config")
_ERRORS = ("length", "width", "rank", "integers", "dtype", "config")
_PURITY = {
    "settings": DROP_IN,
    "flags": DROP_IN,
    "memory": DROP_IN,
    "seeding": DROP_IN,
    "generator": TRAINING,
    "inference": TRANSFORMS,
}


def _all_drop_in(findings: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(findings, DROP_IN)


CATALOGUE: tuple[Listed, ...] = (
    Listed("output", "values", PARTS, _cases(40, 170, 2000)),
    Listed("gradients", "values", PARTS, _cases(40, 110, 2000)),
    Listed("causality", "causality", _ALL, _cases(15, 90, 600)),
    Listed("interface", "interface", _ALL, _cases(4, 12, 100), level=DROP_IN, findings=_all_drop_in(_INTERFACE)),
    Listed("checkpoint", "checkpoint", _MODULES, _cases(4, 20, 100), level=DROP_IN),
    Listed("errors", "refusals", _MODULES, _cases(4, 20, 100), level=DROP_IN, findings=_all_drop_in(_ERRORS)),
    Listed("limits", "limits", _ALL, _cases(2, 4, 20), level=DROP_IN, findings=_all_drop_in(("rate", "batch"))),
    Listed("purity", "purity", _ALL, _cases(6, 40, 200), findings=_PURITY),
    Listed("layouts", "layouts", _ALL, _cases(3, 10, 100)),
    Listed("batching", "batching", _ALL, _cases(5, 32, 150)),
    Listed("lengths", "lengths", _ALL, _cases(4, 9, 60)),
    Listed("modes", "modes", _MODULES, _cases(15, 60, 600), level=TRAINING, findings={"acts": DROP_IN}),
    Listed("dropout", "dropout.dropout", _ALL, _cases(8, 24, 400), level=TRAINING),
    Listed("logits", "values", _MODULES, _cases(16, 32, 400)),
    Listed("training", "training", _MODULES, _cases(2, 6, 40), ("float32", "float64"), level=TRAINING),
    Listed("generation", "generation", _MODULES, _cases(4, 24, 100)),
    Listed("decoding", "decoding", MODELS, _cases(6, 24, 200), ("float32", "bfloat16", "float64")),
    Listed("derivatives", "derivatives", _ALL, _cases(3, 8, 80), ("float32", "float64"), level=TRANSFORMS),
    Listed(
        "autocast",
        "autocast",
        _ALL,
        _cases(6, 24, 200),
        ("bfloat16", "float16"),
        level=TRANSFORMS,
        findings={"dtype": TRANSFORMS},
    ),
    Listed("compile", "compiled", _ALL, _cases(1, 2, 10), ("float32", "float64"), level=TRANSFORMS),
    Listed("extremes", "extremes", PARTS, _cases(3, 24, 80)),
    *_of_a_replacement("coverage", "returned", "layers", "blocks"),
    *_of_a_replacement("state", "modes", "dtypes", "frozen", "parameters", "weights", "ties", "shared"),
    *_of_a_replacement("attachments", "hooks", "adapters", "rates", "masks"),
    *_of_a_replacement("coverage", "twice", "root", "others", "process"),
    Listed("long", "long.long", PARTS, _cases(1, 2, 12), ("float32", "bfloat16")),
    Listed("bias", "bias", PARTS, _cases(4, 12, 100), ("bfloat16", "float16", "float32")),
    Listed("backend", "backend", _ALL, _cases(4, 8, 40), judges=False, level=""),
    Listed(
        "memory",
        "memory",
        _ALL,
        _cases(2, 4, 8),
        ("float32", "bfloat16"),
        judges=False,
        level="",
        on_request=True,
    ),
)

_BY_NAME = {check.name: check for check in CATALOGUE}


def listed(name: str) -> Listed:
    """The check of this name."""
    return _BY_NAME[name]


def is_listed(name: str) -> bool:
    """Whether there is a check of this name."""
    return name in _BY_NAME


def level_at(name: str, finding: str) -> str:
    """The level of a finding of this check; empty if there is no such check, or if it only records."""
    return _BY_NAME[name].level_of(finding) if name in _BY_NAME else ""


def levels_known(kind: str) -> tuple[str, ...]:
    """The levels that some check of a pair of this kind looks at, in their order."""
    return tuple(level for level in LEVELS if any(level in c.levels for c in CATALOGUE if kind in c.kinds))


def check_names() -> list[str]:
    """The names with which a user chooses checks: those of checks, and those of families."""
    return [*(c.name for c in CATALOGUE), *_families()]


def deviation_names() -> list[str]:
    """The names that a deviation can have: checks, families of checks, and findings of a check as `check.finding`."""
    names = [name for c in CATALOGUE for name in (c.name, *(f"{c.name}.{finding}" for finding in c.findings))]
    return [*names, *_families()]


def _families() -> dict[str, None]:
    return dict.fromkeys(c.name.partition(".")[0] for c in CATALOGUE if "." in c.name)


_OVER = "~"


def passing_over(check: str, findings: Iterable[str]) -> str:
    """The name of a round of a check in which these findings are passed over; the check itself without any."""
    return _OVER.join((check, *findings))


def round_of(name: str) -> tuple[str, tuple[str, ...]]:
    """The check of a round, and the findings that are passed over in it."""
    check, *findings = name.split(_OVER)
    return check, tuple(findings)


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
