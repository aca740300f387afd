"""A picture of a page, as a browser shows it: python benchmarks/picture.py PAGE.html PICTURE.png [--dark] [--width 1000]."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import CHROMIUM, browser


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--height", type=int, default=1920)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--whole", action="store_true", help="all of the page, and not only its first HEIGHT pixels")
    options = parser.parse_args()
    if CHROMIUM is None:
        print("there is no Chromium here: install one (Debian: apt install chromium)", file=sys.stderr)
        return 2
    with browser() as page:
        page.show(options.page, width=options.width, height=options.height, dark=options.dark)
        page.picture(options.picture, whole=options.whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
