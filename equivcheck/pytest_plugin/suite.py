"""A pair's checks as a pytest class: one test per check, device and dtype, for projects that import the checks."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.given import Given
from equivcheck.pytest_plugin.asked import Asked, Refused
from equivcheck.pytest_plugin.judged import judge
from equivcheck.report.catalogue import CATALOGUE, KindOrAuto, Profile
from equivcheck.report.levels import LEVELS, Level, levels_of, required_of
from equivcheck.report.model import Deviation
from equivcheck.runtime.device import DEVICE_TYPES, GPU
from equivcheck.supervisor import kinds
from equivcheck.supervisor.nurseries import INSIDE

__all__ = ["suite"]

_NOT_LOADED = "not-loaded"


def suite(
    reference: Any,
    candidate: Any,
    *,
    kind: KindOrAuto = "auto",
    profile: Profile = "quick",
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
    require: Level | Iterable[Level] | None = None,
    domain: str | Callable[..., Any] | None = None,
    setup: str | None = None,
) -> type:
    """A class for pytest to collect: `TestFast = equivcheck.suite(Slow, Fast)`.

    Each test runs one check in one dtype, plants the faults that this check should see there, and has an id such as
    `values-output-cpu-bfloat16`, with the level first. A difference at a level that is not required is an xfail, with
    the difference as its reason. On CUDA the tests carry the marker `gpu` and run with `pytest --gpu`; workers of pytest-xdist
    take a GPU each. A test is skipped, with the reason, if its check is not applicable to the pair, the candidate
    refuses the dtype, or no known fault would show; it fails if nothing was judged at a required level. The arguments
    are those of `verify`.

    Nothing is imported, and no fault is planted, before a test runs: the ids follow from the kind. Without `kind` one
    process beside this one finds the kinds of all suites when pytest collects them; those of objects are found here. A
    pair that cannot be loaded there is a test that fails, with the reason.

    Raises:
        UsageError: An argument does not fit; pytest shows it as one line.
    """
    if os.environ.get(INSIDE):  # a worker has imported the file of these tests for another object in it
        return type("TestEquivalence", (), {})
    try:
        required = levels_of(require, "require")
    except UsageError as error:
        raise Refused(str(error)) from None
    asked = Asked(
        reference=reference,
        candidate=candidate,
        kind=kind,
        user_functions={
            "config": config,
            "inputs": inputs,
            "outputs": outputs,
            "transfer": transfer,
            "oracle": oracle,
        },
        setup=setup,
        domain=domain,
        checks=None if checks is None else list(checks),
        exclude=list(exclude),
        dtypes=list(dtypes),
        profile=profile,
        deviations=deviations or {},
        options={"seed": seed, "max_seconds": max_seconds},
    )
    loaded: dict[str, str] = {}  # when the tests are collected: the kind, or the reason why there is none

    class TestEquivalence:
        def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
            if "check" not in metafunc.fixturenames:  # a test of a class that inherits from this one
                return
            try:
                loaded["kind"] = asked.kind_of_pair()
            except UsageError as error:
                loaded["reason"] = _line(error)
                # `-k "output and cpu"` chooses the test that says so, as it would choose those that it stands for
                vars(metafunc.function).update(dict.fromkeys(_words_of_ids(asked), True))
                tests = list(_on_each_device("", "", _NOT_LOADED))
            else:
                tests = list(_tests(asked, loaded["kind"]))
            metafunc.parametrize(("check", "where", "dtype"), tests)

        def test_holds(self, check: str, where: str, dtype: str) -> None:
            kinds.end()  # every suite of this process has been collected
            reason = loaded.get("reason", "")
            if not reason:
                device = _gpu_of_worker() if where == GPU else where
                try:
                    report = asked.run(loaded["kind"], check, dtype, device)
                    has_faults = partial(asked.has_faults, loaded["kind"], check, dtype, device)
                    judge(report, required or required_of(report.kind), has_faults)
                except UsageError as error:
                    reason = _line(error)
            if reason:
                pytest.fail(reason, pytrace=False)

    return TestEquivalence


def _tests(asked: Asked, kind: str) -> Iterator[Any]:
    """Check, device and dtype of each test; the level of the check comes first in its id."""
    for check in asked.checks_of(kind):
        for dtype in asked.dtypes:
            if dtype in check.dtypes:
                yield from _on_each_device(check.name, dtype, f"{check.level}-{check.name}", f"-{dtype}")


def _on_each_device(check: str, dtype: str, before: str, after: str = "") -> Iterator[Any]:
    for where in ("cpu", GPU):
        marks = [pytest.mark.gpu] if where == GPU else []
        yield pytest.param(check, where, dtype, id=f"{before}-{where}{after}", marks=marks)


def _words_of_ids(asked: Asked) -> set[str]:
    """The words that ids of this suite have, whatever the kind of the pair."""
    return {*LEVELS, *asked.dtypes, *(asked.checks or [check.name for check in CATALOGUE])}


def _line(error: UsageError) -> str:
    return " ".join(str(error).split())


def _gpu_of_worker() -> str:
    """The GPU of this worker of pytest-xdist: workers take GPUs in turn."""
    number = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    return f"{GPU}:{number % max(1, DEVICE_TYPES[GPU].module.device_count())}"
