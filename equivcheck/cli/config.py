"""The defaults that a project keeps in `[tool.equivcheck]` of its pyproject.toml; the command line wins."""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report import catalogue
from equivcheck.report.catalogue import PROFILES
from equivcheck.report.coverage import are_shares
from equivcheck.report.files import read_bounded
from equivcheck.report.levels import LEVELS
from equivcheck.report.model import Deviation
from equivcheck.report.outcomes import DTYPES
from equivcheck.runtime.memory_limit import memory_limit
from equivcheck.runtime.nearest_name import did_you_mean

__all__ = ["DTYPES", "KINDS", "LARGEST_SEED", "PROFILES", "Config", "deviation", "load"]

KINDS = ("auto", *catalogue.KINDS)
LARGEST_SEED = 2**63 - 1  # the largest seed that torch takes
_FINDINGS = {name.partition(".")[2] for name in catalogue.deviation_names() if "." in name}
_TABLE = "[tool.equivcheck] in {path}"
_DEVIATION = 'name = "reason" or name = {reason = "…", expires = 2027-01-31}, in which no reason is empty,'


@dataclass(frozen=True, kw_only=True)
class Config:
    """The keys of `[tool.equivcheck]`; None if the project does not set one: then the command has its default."""

    reference: str | None = None
    candidate: str | None = None
    kind: str | None = None
    device: str | None = None
    profile: str | None = None
    exclude: tuple[str, ...] = ()
    min_profile: str | None = None  # this key and the next are demands of `gate`
    require_dtypes: tuple[str, ...] | None = None
    min_coverage: Mapping[str, float] | None = None  # the least share of pairs or triples, another demand of `gate`
    require_domain: str | None = None  # the cases that the domain of a report must have, a demand of `gate` as well
    deviations: Mapping[str, str | Deviation] = field(
        default_factory=dict
    )  # check -> the reason why its difference is accepted
    seed: int | None = None
    max_seconds: float | None = None
    case_seconds: float | None = None
    max_memory_ratio: float | None = None  # the limit of the candidate's peak memory, in times of the original's
    setup: str | None = None  # the import string of a function that each process calls first
    config: str | None = None  # import strings, described in `equivcheck.pairs.adaptation`
    inputs: str | None = None
    outputs: str | None = None
    transfer: str | None = None
    oracle: str | None = None
    require: tuple[str, ...] | None = None  # the levels that must be equivalent
    profile_run: bool | None = None  # whether the report says where the time went
    domain: str | None = None  # the cases that the original is meant for, `equivcheck.cases.domain`
    remembered: bool | None = None  # whether a run begins with the pair's last counterexamples


def load(path: Path) -> Config:
    """The config in the pyproject.toml at `path`, empty if there is none; a UsageError if it is wrong."""
    try:
        content = tomllib.loads(read_bounded(path).decode("utf-8"))
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; make it readable") from None
    except ValueError as error:  # not TOML, not UTF-8
        raise UsageError(f"{path} is not TOML: {error}; correct it") from None
    tool = content.get("tool", {})
    table = tool.get("equivcheck", {}) if isinstance(tool, dict) else {}
    where = _TABLE.format(path=path)
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {table!r} was given, and a table is allowed")
    for key in table:
        if key not in Config.__dataclass_fields__:
            valid = ", ".join(Config.__dataclass_fields__)
            meant = did_you_mean(key, Config.__dataclass_fields__)
            raise UsageError(f"{where}: unknown key {key!r}; the valid ones are {valid}{meant}")
    config = Config(**{key: _value(where, key, value) for key, value in table.items()})
    if (config.reference is None) != (config.candidate is None):
        given, missing = ("reference", "candidate") if config.candidate is None else ("candidate", "reference")
        raise UsageError(f"{where}: {given} without {missing}: a pair is verified; add {missing}, or remove {given}")
    return config


def deviation(text: str) -> tuple[str, str]:
    """The name and the reason in NAME=REASON; a UsageError if either is missing."""
    name, _, reason = (part.strip() for part in text.partition("="))
    if not name or not reason:
        raise UsageError(
            f"--deviation {text!r}: NAME=REASON is allowed, a check and why it may differ; give the reason too"
        )
    return name, reason


def _value(where: str, key: str, value: Any) -> Any:
    if key == "exclude":
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise _refusal(where, key, value, "a list of names of checks")
        return tuple(value)
    if key == "require":
        if not isinstance(value, list) or not value or not all(name in LEVELS for name in value):
            raise _refusal(where, key, value, f"a list of {_list(LEVELS)}")
        return tuple(value)
    if key == "require_dtypes":
        if not isinstance(value, list) or not value or not all(name in DTYPES for name in value):
            raise _refusal(where, key, value, f"a list of {_list(DTYPES)}")
        return tuple(value)
    if key == "min_coverage":
        if not isinstance(value, dict) or not are_shares(value):
            raise _refusal(where, key, value, "{pairs = 1.0, triples = 0.5}, numbers above 0 and up to 1,")
        return {strength: float(least) for strength, least in value.items()}
    if key == "deviations":
        if not isinstance(value, dict):
            raise _refusal(where, key, value, f"a table of {_DEVIATION}")
        return dict(_deviations(where, value))
    if key == "seed":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_SEED:
            raise _refusal(where, key, value, f"a whole number from 0 to {LARGEST_SEED}")
    elif key in ("profile_run", "remembered"):
        if not isinstance(value, bool):
            raise _refusal(where, key, value, "true or false")
    elif key in ("max_seconds", "case_seconds"):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise _refusal(where, key, value, "a number of seconds above 0")
        return float(value)
    elif key == "max_memory_ratio":
        try:
            return memory_limit(value)
        except UsageError:
            raise _refusal(where, key, value, "a finite number above 0") from None
    elif key in ("kind", "profile", "min_profile"):
        allowed = KINDS if key == "kind" else PROFILES
        if value not in allowed:
            raise _refusal(where, key, value, f"one of {_list(allowed)}", did_you_mean(value, allowed))
    elif not _is_text(value):
        raise _refusal(where, key, value, "a text that is not empty")
    return value


def _deviations(where: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str | Deviation]]:
    """The declarations by name: a quoted key `"check.finding"`, or a table of the check with one for each finding."""
    for name, declared in table.items():
        nested = isinstance(declared, dict) and declared and not set(declared) & {"reason", "expires"}
        if nested and set(declared) <= _FINDINGS:
            for finding, of_finding in declared.items():
                yield f"{name}.{finding}", _deviation(where, f"{name}.{finding}", of_finding)
        else:
            yield name, _deviation(where, name, declared)


def _deviation(where: str, name: str, value: Any) -> str | Deviation:
    """A reason, or a Deviation if the value has an `expires`; a UsageError without a reason."""
    if _is_text(value):
        return str(value).strip()
    fits = isinstance(value, dict) and _is_text(value.get("reason")) and set(value) <= {"reason", "expires"}
    if not fits or type(value.get("expires", date.max)) is not date:  # a time of day is a date to isinstance
        raise _refusal(where, f"deviations.{name}", value, _DEVIATION)
    if "expires" not in value:
        return str(value["reason"]).strip()
    return Deviation(name, value["reason"].strip(), value["expires"].isoformat())


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _refusal(where: str, key: str, value: object, allowed: str, meant: str = "") -> UsageError:
    return UsageError(f"{where}: {key} = {value!r} was given, and {allowed} is allowed{meant}")
