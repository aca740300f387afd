"""Right implementations under many seeds: do the checks of randomness and training ever accuse one?

    python benchmarks/steady.py [--runs 200] [--profile gate] [--device cpu] [--check NAME]... [--part I/N] [--out FILE]
    python benchmarks/steady.py --merge FILE... --out FILE

Run number n takes seed n and the n-th right implementation in turn (`equivcheck.faults.RIGHT` and the shipped one), and puts
it through the checks as `equivcheck verify` would. Prints what was accused, and the largest ratio of each check. Part I/N
takes the runs whose number is I modulo N and keeps on disk what it has reached; --merge puts together what there is, whatever
ended the parts. A run counts where all of its checks were reached. Exit status 1 where one was accused.
"""

import argparse
import sys
import time
from pathlib import Path

from parts import Kept, dumped, reached, share, write

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.checks import CHECKS
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.faults import RIGHT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment, sources
from equivcheck.runtime.device import device_name

RANDOM = ("dropout", "modes", "training")


def one_run(number: int, device: str, profile: str, names: list[str]) -> list[dict[str, object]]:
    every = [("the shipped one", FlashCausalSelfAttention), *((right.name, right.attention) for right in RIGHT)]
    name, attention = every[number % len(every)]
    original = "equivcheck.attention:CausalSelfAttention"
    subject = resolve(original, original, kind="module", device=device).with_candidate(attention, name)
    rows: list[dict[str, object]] = []
    for check in CHECKS:
        if check.name not in names:
            continue
        began = time.monotonic()
        search = Search(check, subject, check.cases[profile], 100, float("inf"))
        search.run(classes(check, subject, DTYPES, search.planned), seed_for(number, check.name))
        ratios = [held.ratio for held in search.passed.values() if held.ratio is not None]
        notes = sorted({note for held in search.passed.values() for note in held.notes})
        accused = search.minimal
        rows.append(
            {
                "run": number,
                "implementation": name,
                "check": check.name,
                "cases": len(search.passed) + len(search.failed),
                "ratio": max(ratios, default=0.0),
                "accused": "" if accused is None else f"{accused.id}: {search.failed[accused]}"[:600],
                "notes": notes,
                "seconds": round(time.monotonic() - began, 2),
            }
        )
    return rows


def told(rows: list[dict[str, object]], planned: int, device: str, torch_version: str) -> str:
    runs, implementations = (len({row[of] for row in rows}) for of in ("run", "implementation"))
    lines = []
    for name in dict.fromkeys(str(row["check"]) for row in rows):
        of = [row for row in rows if row["check"] == name]
        lines.append(
            f"| {name} | {len(of)} | {sum(int(str(row['cases'])) for row in of)} "
            f"| {sum(bool(row['accused']) for row in of)} | {max(float(str(row['ratio'])) for row in of):.2f} |"
        )
    head = f"{runs} runs of {planned} that were planned, each with a seed of its own, over {implementations} right "
    head += f"implementations on {device}, torch {torch_version}."
    return "\n".join(
        (head, "", "| check | runs | cases | accused | largest ratio |", "| --- | --- | --- | --- | --- |", *lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--profile", default="gate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="append", help=f"default: {', '.join(RANDOM)}")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.merge:
        parts = list(reached(args.merge))
        found = {**parts[0], "rows": sorted((row for part in parts for row in part["rows"]), key=lambda r: r["run"])}
    else:
        original = "equivcheck.attention:CausalSelfAttention"
        base = resolve(original, original, kind="module", device=args.device)
        part, parts_count = share(args.part)
        found = {
            "device": device_name(base.device),
            "environment": environment(base.device),
            "sources": sources(base.reference, base.candidate),
            "planned": args.runs,
            "rows": [],
        }
        keep, began = Kept(args.out), time.monotonic()
        for number in range(part, args.runs, parts_count):
            if time.monotonic() - began > args.max_seconds:
                break
            found["rows"] += one_run(number, args.device, args.profile, args.check or list(RANDOM))
            keep(found)
    rows = found["rows"]
    page = told(rows, found["planned"], found["device"], found["environment"]["torch"])
    accused = [row for row in rows if row["accused"]]
    print(page)
    for row in accused:
        print(f"ACCUSED in run {row['run']}: {row['implementation']}, {row['check']}: {row['accused']}")
    if args.out:
        write(args.out, dumped(found))
        write(args.out.with_suffix(".md"), f"# Right implementations under many seeds\n\n{page}\n")
    sys.exit(1 if accused else 0)


if __name__ == "__main__":
    main()
