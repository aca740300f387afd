"""Records of speed, written by `equivcheck bench --json` or `pytest --benchmark-json`, as timings by name."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from equivcheck.errors import ReportError
from equivcheck.report.files import read_bounded
from equivcheck.report.model import Timing

__all__ = ["read"]

_ROLES = ("original", "reference"), ("flash", "candidate")  # the parameters that name the two sides in a test


def read(path: Path) -> dict[str, Timing]:
    """The timings in the record at `path`; a ReportError says in one line what is wrong with the file."""
    try:
        content = json.loads(read_bounded(path))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}; give a record of speed") from None
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: truncated, or not JSON ({error}); write it again") from None
    reader = _reader(content)
    if reader is None:
        raise ReportError(
            f"{path}: no record of speed; give a file of equivcheck bench --json or pytest --benchmark-json"
        )
    try:
        timings = dict(reader(content))
    except ReportError as error:
        raise ReportError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"{path}: not a record of speed that is known here: {error!r}; write it again") from None
    if not timings:
        raise ReportError(f"{path}: no timing of an original and a candidate is in it; time both in one group")
    return timings


def _reader(content: Any) -> Callable[[Any], Iterator[tuple[str, Timing]]] | None:
    for key, reader in (("lines", _bench), ("benchmarks", _pytest)):
        if isinstance(content, dict) and isinstance(content.get(key), list):
            return reader
    return None


def _bench(content: Mapping[str, Any]) -> Iterator[tuple[str, Timing]]:
    for line in content["lines"]:
        before, after = line["reference"], line["candidate"]
        refused = [f"the {role} does not fit" for role in ("reference", "candidate") if line[role].get("refused")]
        length = int(line["sizes"]["T"])
        yield (
            f"{line['work']}, {line['dtype']}, T={length}",
            Timing(
                str(line["work"]),
                str(line["dtype"]),
                length,
                _number(before.get("median_ms")),
                _number(after.get("median_ms")),
                _number(line.get("ratio")),
                _number(line.get("low")),
                _number(line.get("high")),
                _bytes(before.get("above_bytes")),
                _bytes(after.get("above_bytes")),
                "; ".join(refused),
            ),
        )


def _pytest(content: Mapping[str, Any]) -> Iterator[tuple[str, Timing]]:
    """A timing for each group with two benchmarks, of which one parameter names the original or the candidate."""
    groups: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in content["benchmarks"]:
        named = {str(value) for value in (one.get("params") or {}).values()}
        for role, names in enumerate(_ROLES):
            if named & set(names):
                groups.setdefault(str(one["group"]), {})[role] = one
    for group, by_role in groups.items():
        if set(by_role) != {0, 1}:
            continue
        before, after = (float(by_role[role]["stats"]["median"]) * 1e3 for role in (0, 1))  # s -> ms
        extra = [by_role[role].get("extra_info") or {} for role in (0, 1)]
        name, work, dtype, length = _described(group, extra[0])
        peaks = [_bytes(e.get("peak_above_resident_bytes", e.get("above_bytes"))) for e in extra]
        yield name, Timing(work, dtype, length, before, after, before / after, None, None, peaks[0], peaks[1])


def _described(group: str, extra: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """The name of a group, its work with the device, its dtype and its length T.

    They are read from `case`, if that is the name of a row of `equivcheck bench`, else from `dtype` and `shape`.

    Raises:
        ReportError: Neither has the dtype and the length.
    """
    device = f" on {extra['device']}" if extra.get("device") else ""
    row = re.fullmatch(r"([^,]+), (\w+), .*?\bT=(\d+)\b.*", str(extra.get("case", "")))
    if row is not None:
        return group, f"{row[1]}{device}", row[2], int(row[3])
    dtype, length = extra.get("dtype"), (extra.get("shape") or {}).get("T")
    if dtype is None or length is None:
        raise ReportError(
            f"the benchmark group {group!r} does not say its dtype and T; "
            "set extra_info['dtype'] and extra_info['shape'] = {'T': …} in the test"
        )
    return f"{group}, {dtype}, T={length}", f"{group}{device}", str(dtype), int(length)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _bytes(value: Any) -> int | None:
    return None if value is None else int(value)
