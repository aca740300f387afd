"""The lowest version of each run-time dependency that pyproject.toml admits, one `name==version` a line.

    python .ci/lowest.py [--but NAME]... > lowest.txt

With --but NAME that dependency is left out, as torch is: its floor is tried by benchmarks/torch_floor.py.
The floors of pyproject.toml are the only source. A dependency without one is an error.
"""

import argparse
import re
import tomllib
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--but", action="append", default=[], metavar="NAME", help="leave NAME out (repeatable)")
    options = parser.parse_args()
    pins = floors(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])
    for name in options.but:
        if name not in pins:
            parser.error(f"--but {name}: allowed are {', '.join(pins)}")
    for name, version in pins.items():
        if name not in options.but:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
