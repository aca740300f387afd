"""Reports as JSON files: written whole or not at all, read back exactly, and refused if they were edited by hand."""

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from equivcheck.errors import ReportError
from equivcheck.report.differences import differences
from equivcheck.report.exits import exit_reason, exit_status
from equivcheck.report.files import read_bounded, write_whole
from equivcheck.report.model import SCHEMA_VERSION, Report

__all__ = ["dumps", "loads", "plain", "read", "write"]

_INTEGRITY = "integrity"
_DERIVED = (
    "verdict",
    "levels",
    "equivalent",
    "cases",
    "exit_status",
    "exit_reason",
    "differences",
)  # for readers of the file; computed again from the rest when it is loaded
_OPTIONAL = ("shard", "time_spent")  # absent from the file if it is None
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def dumps(report: Report) -> str:
    """The report as strict JSON, the same text for the same report: inf, -inf and nan are strings."""
    derived = {name: plain(getattr(report, name)) for name in _DERIVED if hasattr(report, name)}
    derived |= {"exit_status": exit_status(report), "exit_reason": exit_reason(report)}
    derived["differences"] = plain(differences(report))
    content = {"schema_version": report.schema_version, **derived, **plain(report)}
    for name in _OPTIONAL:
        if content[name] is None:
            del content[name]
    content[_INTEGRITY] = _integrity(content)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write(report: Report, path: Path) -> None:
    """Write the report to `path`, whole or not at all; an OSError says why it could not be written."""
    write_whole(Path(path), dumps(report))


def read(path: Path) -> Report:
    """Read a report that `write` wrote; a ReportError says in one line what is wrong with the file."""
    try:
        text = read_bounded(Path(path)).decode("utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path}: there is no such file; `equivcheck verify --json FILE` writes one") from None
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be read ({error.strerror or error}); give a file written by --json"
        ) from None
    except UnicodeDecodeError:
        raise ReportError(f"{path}: not a report: it is not UTF-8 text; give a file written by --json") from None
    return loads(text, str(path))


def loads(text: str, name: str = "the report") -> Report:
    """The report in `text`; a ReportError starts with `name` and says what is wrong with it."""
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{name}: truncated, or not JSON ({error}); write it again with --json") from None
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise ReportError(f"{name}: not a report of equivcheck: no schema_version; give a file written by --json")
    version = content["schema_version"]
    if version > SCHEMA_VERSION:
        raise ReportError(
            f"{name}: schema version {version}, and this equivcheck reads up to {SCHEMA_VERSION}: upgrade equivcheck"
        )
    if _INTEGRITY not in content:
        raise ReportError(f"{name}: not a report of equivcheck: no integrity hash; give a file written by --json")
    if content.pop(_INTEGRITY) != _integrity(content):
        raise ReportError(f"{name}: changed by hand since it was written (its hash does not match); run verify again")
    if version == 2:
        content.pop("performance", None)  # nothing ever stood there
    if version < 4:
        content.setdefault("sealed", False)  # no run was
    try:
        report = _build(Report, {key: value for key, value in content.items() if key not in _DERIVED})
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{name}: not a report of this equivcheck: {error}; run verify again") from None
    return cast(Report, report)


def _integrity(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value of the model in the types of JSON: fields in their order, mappings by key."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def _build(kind: Any, value: Any) -> Any:
    """The value of the model's type `kind` that `plain` made `value` of; a TypeError or ValueError where none did."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _build_dataclass(cast(type[Any], kind), value)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (rest,) = (argument for argument in arguments if argument is not type(None))
        return _build(rest, value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_build(arguments[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _build(arguments[1], item) for key, item in value.items()}
    if kind is float and isinstance(value, str):
        return _NON_FINITE[value]
    allowed = (int, float) if kind is float else kind
    if isinstance(kind, type) and isinstance(value, allowed) and (kind is bool) == isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} where {getattr(kind, '__name__', kind)} belongs")


def _build_dataclass(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} where {kind.__name__} belongs")
    hints = get_type_hints(kind)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    for field in fields(kind):
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} without {field.name}")
    return kind(**{key: _build(hints[key], item) for key, item in value.items()})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):  # two readers could each believe another one of the two
        raise ValueError("a key stands twice in one object")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
