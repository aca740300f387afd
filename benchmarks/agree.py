"""Two records of the same benchmark: do they agree within the intervals that they state?

    python benchmarks/agree.py FIRST.json SECOND.json [--out FILE.md]

For every row of both that was timed by the same clock, as `equivcheck bench --json` wrote them: the two ratios original /
candidate with their 95 % intervals, and how far they are apart, in parts of what the two intervals together leave open. Rows that
agree are within 1. Of many rows that are measured fairly, some 5 in 100 are not. Exit status 1 where more than that are apart; 2
where no row can be compared.
"""

import argparse
import math
import sys
from pathlib import Path

from equivcheck.bench.record import Line, read, shared
from equivcheck.errors import ReportError

EXPECTED = 0.05  # share of the rows that chance alone puts apart
UNLIKELY = 0.01


def apart(one: Line, other: Line) -> float | None:
    """The distance of the two log ratios over the half-widths of both intervals put together; None where there are none."""
    if not (one.ratio and one.low and one.high and other.ratio and other.low and other.high):
        return None
    open_ = math.hypot(*(math.log(line.high / line.low) / 2 for line in (one, other)))
    return abs(math.log(one.ratio / other.ratio)) / open_ if open_ else math.inf


def by_chance(rows: int, disagree: int) -> float:
    """The probability that at least so many of the rows are apart by chance."""
    return sum(math.comb(rows, n) * EXPECTED**n * (1 - EXPECTED) ** (rows - n) for n in range(disagree, rows + 1))


def told(line: Line) -> str:
    return f"{line.ratio:.3f} ({line.low:.3f} … {line.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    try:
        first, second = read(args.first), read(args.second)
    except ReportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    both = shared(first, {line.name: line for line in second.lines})
    found = [(a, b, far) for a, b in both if (far := apart(a, b)) is not None]
    lines = ["| row | first | second | apart | |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {a.name} | {told(a)} | {told(b)} | {far:.2f} | {'agree' if far <= 1 else 'disagree'} |"
        for a, b, far in found
    ]
    disagree = sum(far > 1 for _, _, far in found)
    page = (
        f"# Two runs of preset {first.preset}\n\n{first.device}, torch {first.environment.get('torch', '?')}; "
        f"{first.created} and {second.created}. Ratios original / candidate with their 95 % intervals.\n\n"
        + "\n".join(lines)
        + f"\n\n{len(found) - disagree} of {len(found)} rows agree within the intervals that they state.\n"
    )
    print(page)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page)
    if not found:
        sys.exit(2)
    sys.exit(1 if by_chance(len(found), disagree) < UNLIKELY else 0)


if __name__ == "__main__":
    main()
