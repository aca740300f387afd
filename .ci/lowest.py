"""The lowest version of each run-time dependency that pyproject.toml admits, one `name==version` a line.

    python .ci/lowest.py [--but NAME]... > lowest.txt

With --but NAME that dependency is left out, as torch is: its floor is tried by benchmarks/torch_floor.py.
The floors of pyproject.toml are the only source. A dependency without one is an error.
"""

import argparse
import re
import tomllib
from collections.abc import Collection
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

_FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<version>[0-9][0-9.]*)")


def floors(requirements: list[str]) -> dict[str, str]:
    """Name and lowest version of each requirement, such as "click>=8.1.8"."""
    pins = {}
    for requirement in requirements:
        match = _FLOOR.match(requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} in {PYPROJECT.name} has no lowest version: expected name>=version")
        pins[match["name"]] = match["version"]
    return pins


def lowest(but: Collection[str] = ()) -> list[str]:
    """A pin for each run-time dependency but those."""
    pins = floors(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])
    for name in but:
        if name not in pins:
            raise SystemExit(f"no dependency is called {name!r}: there are {', '.join(pins)}")
    return [f"{name}=={version}" for name, version in pins.items() if name not in but]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--but", action="append", default=[], metavar="NAME", help="leave NAME out (repeatable)")
    print("\n".join(lowest(parser.parse_args().but)))


if __name__ == "__main__":
    main()
