"""Reports of the shipped pair that the gate lets through, and one change to each."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

import equivcheck
from equivcheck.checks import CHECKS
from equivcheck.cli.options import SHIPPED
from equivcheck.report.catalogue import least_cases, listed
from equivcheck.report.model import CheckResult, Report, Sensitivity
from equivcheck.report.provenance import digests, package_files
from equivcheck.runtime.source_files import hash_of

PACKAGE = Path(equivcheck.__file__).parent


CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


APPLYING = [check for check in CHECKS if "module" in check.kinds and not listed(check.name).on_request]


DTYPES = ("float32", "float64", "bfloat16", "float16")


def green(tree: Path, **changes: object) -> Report:
    """What `verify` would have written in that tree for the pair that ships."""
    attention = {"equivcheck/attention.py": hash_of(tree / "equivcheck/attention.py")}
    files = {"equivcheck": package_files(tree / "equivcheck"), "reference": attention, "candidate": attention}
    facts = {
        "reference": SHIPPED[0],
        "candidate": SHIPPED[1],
        "kind": "module",
        "device": "cuda:0 (NVIDIA H100 80GB HBM3)",
        "profile": "gate",
        "seed": 0,
        "results": tuple(
            CheckResult(c.name, "equivalent", least_cases(c, "gate", 4), 1.0, 0.25, CASE, "output") for c in APPLYING
        ),
        "dtypes": DTYPES,
        "sensitivity": Sensitivity(("mask-off-by-one",), (), {}),
        "complete": True,
        "seconds": 41.2,
        "created": "2026-01-31T11:00:00+00:00",
        "environment": {"torch": str(torch.__version__)},
        "files": files,
        "sources": digests(files),
        "sealed": True,
    }
    return Report(**{**facts, **changes})  # type: ignore[arg-type]


def changed(report: Report, name: str, **changes: object) -> Report:
    results = tuple(replace(r, **changes) if r.name == name else r for r in report.results)  # type: ignore[arg-type]
    return replace(report, results=results)


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "\nCHANGED = True\n")
