"""A pair's checks as a pytest class: one test per check, device and dtype, for projects that import the checks."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from equivcheck.api import pair_of, verify
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.given import Given
from equivcheck.report.catalogue import listed
from equivcheck.report.deviations import of_check
from equivcheck.report.levels import levels_of, required_of
from equivcheck.report.model import CheckResult, Deviation, Finding, Report
from equivcheck.runtime.device import DEVICE_TYPES, GPU
from equivcheck.runtime.file_access import watched
from equivcheck.supervisor import api
from equivcheck.supervisor.nurseries import INSIDE
from equivcheck.worker.judge import Judge

__all__ = ["suite"]


def suite(
    reference: Any,
    candidate: Any,
    *,
    kind: str = "auto",
    profile: str = "quick",
    checks: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    dtypes: Sequence[str] = DTYPES,
    seed: int = 0,
    max_seconds: float | None = None,
    deviations: Mapping[str, str | Deviation] | None = None,
    config: Given = None,
    inputs: Given = None,
    outputs: Given = None,
    transfer: Given = None,
    oracle: Given = None,
    require: str | Iterable[str] | None = None,
    domain: str | Callable[..., Any] | None = None,
    setup: str | None = None,
) -> type:
    """A class for pytest to collect: `TestFast = equivcheck.suite(Slow, Fast)`.

    Each test runs one check in one dtype, plants the faults that this check should see there, and has an id such as
    `values-output-cpu-bfloat16`, with the level first. A difference at a level that is not required is an xfail, with
    the difference as its reason. On CUDA the tests carry the marker `gpu` and run with `pytest --gpu`; workers of pytest-xdist
    take a GPU each. A test is skipped, with the reason, if its check is not applicable to the pair, or the candidate
    refuses the dtype; it fails if nothing was judged at a required level. The arguments are those of `verify`.

    Raises:
        UsageError: An argument does not fit, or the pair cannot be judged.
    """
    user_functions: dict[str, Any] = {
        "config": config,
        "inputs": inputs,
        "outputs": outputs,
        "transfer": transfer,
        "oracle": oracle,
    }
    if os.environ.get(INSIDE):  # a worker has imported the file of these tests for another object in it
        return type("TestEquivalence", (), {})
    required = levels_of(require, "require")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}: allowed are {', '.join(DTYPES)}")
    asked: dict[str, Any] = {
        "checks": None if checks is None else list(checks),
        "exclude": list(exclude),
        "dtypes": list(dtypes),
        "profile": profile,
    }
    pair = pair_of(reference, candidate, kind, "cpu", user_functions, setup, domain)
    if pair is not None:
        loaded, cells = api.ask(pair, "cells", **asked)
    else:
        with watched() as access:
            judge = Judge(access)
            loaded = judge.load(reference, candidate, kind, "cpu", user_functions, domain=domain)
            cells = judge.cells(**asked)

    @pytest.mark.parametrize(("check", "where", "dtype"), _parameters(cells))
    class TestEquivalence:
        def test_holds(self, check: str, where: str, dtype: str) -> None:
            report = verify(
                reference,
                candidate,
                kind=kind if pair is not None else loaded["kind"],
                device=_gpu_of_worker() if where == GPU else where,
                profile=profile,
                checks=[check],
                dtypes=[dtype],
                seed=seed,
                max_seconds=max_seconds,
                deviations=of_check(check, deviations or {}),
                setup=setup,
                domain=domain,
                shared=True,
                **user_functions,
            )
            _judge(report, required or required_of(report.kind))

    return TestEquivalence


def _parameters(cells: Iterable[Sequence[str]]) -> list[Any]:
    """Check, device and dtype of each test; the level of the check comes first in its id."""
    return [
        pytest.param(
            check,
            where,
            dtype,
            id=f"{listed(check).level}-{check}-{where}-{dtype}",
            marks=[pytest.mark.gpu] if where == GPU else [],
        )
        for check, dtype in cells
        for where in ("cpu", GPU)
    ]


def _gpu_of_worker() -> str:
    """The GPU of this worker of pytest-xdist: workers take GPUs in turn."""
    number = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    return f"{GPU}:{number % max(1, DEVICE_TYPES[GPU].module.device_count())}"


def _judge(report: Report, required: Sequence[str]) -> None:
    """Pass, skip or xfail with the reason, or fail with a short message: the difference, the case and its replay."""
    result = report.results[0] if report.results else None
    if result is None:
        pytest.fail(f"the run is {report.verdict}: it ended before anything was judged", pytrace=False)
    if report.findings:
        pytest.fail("; ".join(report.findings), pytrace=False)
    different = [finding for finding in result.shown if finding.outcome == "different"]
    for finding in different:
        if not finding.level or finding.level in required:
            pytest.fail(_words(result, finding), pytrace=False)
    if different:
        pytest.xfail(f"not required: {_words(result, different[0])}")
    if result.outcome == "deviation":
        return
    if result.outcome == "unsupported":
        pytest.skip(f"{result.name}: {'; '.join(result.unsupported) or result.detail}")
    if result.outcome == "not applicable":
        pytest.skip(f"{result.name} is not applicable: {'; '.join(result.notes)}")
    if not report.complete:
        pytest.fail(f"{result.name} is partial: {result.detail or 'it ran out of time'}", pytrace=False)
    if result.outcome == "not judged":
        reasons = "; ".join(result.notes) or ", ".join(result.not_judged)
        if any(level in required for level in result.levels):
            pytest.fail(f"{result.name} is not judged: {reasons}", pytrace=False)
        pytest.skip(f"{result.name} is not judged, and not required: {reasons}")
    survived = [f for f in report.sensitivity.survived if report.sensitivity.levels.get(f, "") in required]
    if not report.sensitivity.planted or survived:
        names = ", ".join(survived) or "none was planted"
        pytest.fail(f"{result.name} is insensitive: planted faults that were not seen: {names}", pytrace=False)


def _words(result: CheckResult, finding: Finding) -> str:
    c = finding.counterexample
    at = f" at {finding.level}" if finding.level else ""
    return f"{result.name_of(finding)}{at}: {c.message}\ncase {c.case}\n{c.replay}"
