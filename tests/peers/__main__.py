"""What equivcheck says of each released attention that is installed here, as JSON and as a table.

python tests/peers [--device cpu] [--only NAME,…] [--max-seconds 60] [--profile quick] --out peers.json
python tests/peers --merge A.json B.json … --out peers.json     what several runs found, in few words
python tests/peers --table CPU.json CUDA.json                   the table of reports/peers.md
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pairs import PEERS, Peer

import equivcheck
from equivcheck.errors import UsageError


def row_of(peer: Peer, device: str, seconds: float, profile: str, only: list[str]) -> dict[str, Any]:
    """One peer's row: verdict, each check's outcome, worst ratio and counterexample; or why it could not be judged."""
    row: dict[str, Any] = {"name": peer.name, "words": peer.words}
    if peer.missing:
        return row | {"verdict": "not installed", "why": peer.missing}
    row["versions"] = peer.versions
    began = time.monotonic()
    try:
        report = equivcheck.verify(
            **peer.asked(),
            checks=[c for c in peer.checks if not only or c in only],
            device=device,
            profile=profile,
            max_seconds=seconds,
        )
    except UsageError as error:
        return row | {"verdict": "cannot be judged", "why": str(error)}
    except Exception as error:  # a peer's crash must not take the other rows with it
        return row | {"verdict": "crashed", "why": f"{type(error).__name__}: {error}"}
    return row | {
        "verdict": report.verdict,
        "seconds": round(time.monotonic() - began, 1),
        "faults": f"{report.sensitivity.caught} of {len(report.sensitivity.planted)}",
        "survived": report.sensitivity.survived,
        "results": [
            {
                "check": r.name,
                "outcome": r.outcome,
                "cases": r.cases,
                "worst_ratio": r.worst_ratio,
                "detail": r.detail,
                "notes": r.notes,
                "unsupported": r.unsupported,
                **(
                    {
                        "case": r.counterexample.case,
                        "message": r.counterexample.message,
                        "replay": r.counterexample.replay,
                    }
                    if r.counterexample
                    else {}
                ),
            }
            for r in report.results
        ],
    }


def merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One record of several runs on one device: of each peer the row of the last run that has it."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        for row in record["peers"]:
            results = [_short(r) for r in row.get("results", ())]
            own = {"torch": record["torch"]} | {k: v for k, v in row.items() if k not in ("results", "seconds")}
            rows[row["name"]] = own | ({"results": results} if results else {})
    order = [peer.name for peer in PEERS]
    return {k: records[-1][k] for k in ("device", "python")} | {
        "peers": sorted(rows.values(), key=lambda r: order.index(r["name"]))
    }


def _short(result: dict[str, Any]) -> dict[str, Any]:
    kept = {
        k: v for k, v in result.items() if k in ("check", "outcome", "cases", "worst_ratio", "case", "detail") and v
    }
    if math.isinf(kept.get("worst_ratio", 0.0)):
        del kept["worst_ratio"]  # JSON has no infinity
    lines = result.get("message", "").splitlines()
    return kept | ({"message": lines[0][:200]} if lines else {})


def cell(row: dict[str, Any] | None) -> str:
    """What a device's column says of a peer: the verdict, and how far within or beyond the budget."""
    if row is None or row["verdict"] == "not installed":
        return ""
    if "results" not in row:
        return str(row["verdict"])
    differing = [r for r in row["results"] if r["outcome"] == "different"]
    if differing:
        checks = [f"{r['check']} {_times(r)}" for r in differing]
        return f"**different**: {', '.join(checks)}"
    within = max(r.get("worst_ratio", 0.0) for r in row["results"])
    verdict = f"{row['verdict']}, {sum(r.get('cases', 0) for r in row['results'])} cases, worst {within:.2f}"
    return f"{verdict}, {row['faults']} faults" if row["verdict"] == "equivalent" else verdict


def _times(result: dict[str, Any]) -> str:
    if "worst_ratio" in result:
        return f"{result['worst_ratio']:.3g} ×"
    return "raises" if "raises" in result["message"] else "not as the original's"


def table(records: list[dict[str, Any]]) -> str:
    """A row for each peer, a column for each record."""
    found = [{row["name"]: row for row in record["peers"]} for record in records]
    heads = " | ".join(record["device"] for record in records)
    lines = [f"| pair | what is compared | {heads} |", "| --- | --- |" + " --- |" * len(records)]
    for peer in PEERS:
        cells = " | ".join(cell(rows.get(peer.name)) for rows in found)
        lines.append(f"| `{peer.name}` | {peer.words} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="")
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--all-seconds", type=float, default=float("inf"), help="begin no further peer after these")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--checks", default="", help="of those that a peer has, these alone")
    parser.add_argument("--part", default="1/1", help="I/N: each Nth peer, from the Ith on")
    parser.add_argument("--merge", type=Path, nargs="+", default=())
    parser.add_argument("--table", type=Path, nargs="+", default=())
    parser.add_argument("--out", type=Path, required="--table" not in sys.argv)
    given = parser.parse_args()
    if given.table:
        print(table([json.loads(path.read_text(encoding="utf-8")) for path in given.table]))
        return
    if given.merge:
        found = merged([json.loads(path.read_text(encoding="utf-8")) for path in given.merge])
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = [peer for peer in PEERS if not given.only or any(peer.name.startswith(o) for o in given.only.split(","))]
    part, parts = (int(n) for n in given.part.split("/"))
    chosen = chosen[part - 1 :: parts]
    device = torch.cuda.get_device_name() if given.device != "cpu" else platform.machine()
    record = {"torch": torch.__version__, "device": device, "python": platform.python_version()}
    rows: list[dict[str, Any]] = []

    def kept(row: dict[str, Any]) -> None:
        given.out.write_text(json.dumps(record | {"peers": [*rows, row]}, indent=1) + "\n", encoding="utf-8")

    began = time.monotonic()
    for peer in chosen:
        row: dict[str, Any] = {"name": peer.name, "words": peer.words, "verdict": "not finished"}
        kept(row)  # what a run that is ended from outside leaves
        if time.monotonic() - began <= given.all_seconds:
            only = given.checks.split(",") if given.checks else []
            row = row_of(peer, given.device, given.max_seconds, given.profile, only)
        kept(row)
        rows.append(row)
        print(f"{row['name']}: {row['verdict']} {row.get('seconds', '')} {row.get('why', '')[:300]}", flush=True)
        for r in row.get("results", ()):
            if r["outcome"] != "equivalent":
                said = r.get("message", r["detail"])[:300]
                print(f"    {r['check']} {r['outcome']} {r.get('case', '')} {said}", flush=True)


if __name__ == "__main__":
    main()
