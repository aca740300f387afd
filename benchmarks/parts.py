"""Studies that run in parts, on one machine or several: what a part has reached is on disk whole at any moment, and adds up."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from equivcheck.report.files import write_whole

__all__ = ["Kept", "dumped", "of_part", "reached", "share", "takes_parts", "write"]


def share(part: str) -> tuple[int, int]:
    """The two numbers of I/N: this part, and how many there are."""
    number, parts = map(int, part.split("/"))
    if not 0 <= number < parts:
        raise SystemExit(f"--part {part}: I is one of 0 to N - 1")
    return number, parts


def takes_parts(parser: argparse.ArgumentParser) -> None:
    """Give a study of named things the options --only and --part."""
    parser.add_argument("--only", default="", help="those with this text in their names")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th of them from the I-th on")


def of_part(named: Sequence[Any], args: argparse.Namespace) -> Sequence[Any]:
    """The things that these options choose."""
    part, parts = share(args.part)
    return [one for one in named if args.only in one.name][part::parts]


def write(path: Path, text: str) -> None:
    """The whole text or nothing, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def dumped(data: Any) -> str:
    """JSON, without infinities, which it has no word for."""
    return json.dumps(_finite(data), indent=1) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return 1e308 if isinstance(data, float) and not math.isfinite(data) else data


class Kept:
    """Writes what a part has reached so far, at most every so many seconds, so that one that is cut off still counts."""

    def __init__(self, path: Path | None, every_s: float = 15.0) -> None:
        self.path, self.every_s, self.last = path, every_s, -math.inf

    def __call__(self, data: Any) -> None:
        """Write `data` if it is time; nothing where there is no path."""
        if self.path is not None and time.monotonic() - self.last >= self.every_s:
            write(self.path, dumped(data))
            self.last = time.monotonic()


def reached(paths: Iterable[Path]) -> Iterator[Any]:
    """What the parts wrote; one that never came to write is told and left out, and none at all is an error."""
    count = 0
    for path in paths:
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            print(f"left out: {path}: {type(error).__name__}", file=sys.stderr)
            continue
        count += 1
        yield data
    if not count:
        raise SystemExit("none of the parts has written anything")
