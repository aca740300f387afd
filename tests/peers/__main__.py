"""What equivcheck says of each released attention that is installed here, as JSON and as a table.

python tests/peers [--device cpu] [--only NAME,…] [--max-seconds 60] [--profile quick] --out peers.json
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from pairs import PEERS, Peer

import equivcheck
from equivcheck.errors import UsageError


def told(peer: Peer, device: str, seconds: float, profile: str, only: list[str]) -> dict[str, Any]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="")
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--all-seconds", type=float, default=float("inf"), help="begin no further peer after these")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--checks", default="", help="of those that a peer has, these alone")
    parser.add_argument("--part", default="1/1", help="I/N: each Nth peer, from the Ith on")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
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
            row = told(peer, given.device, given.max_seconds, given.profile, only)
        kept(row)
        rows.append(row)
        print(f"{row['name']}: {row['verdict']} {row.get('seconds', '')} {row.get('why', '')[:300]}", flush=True)
        for r in row.get("results", ()):
            if r["outcome"] != "equivalent":
                said = r.get("message", r["detail"])[:300]
                print(f"    {r['check']} {r['outcome']} {r.get('case', '')} {said}", flush=True)


if __name__ == "__main__":
    main()
