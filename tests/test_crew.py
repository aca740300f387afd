"""Several processes do what one does: the same cases, the same report; and what they cannot do is told."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from equivcheck import crew as crews
from equivcheck.checks import CHECKS, Check
from equivcheck.comparison import Mismatch
from equivcheck.errors import UsageError
from equivcheck.kinds import resolve
from equivcheck.plan import choose, planned_cases
from equivcheck.report.model import Report
from equivcheck.subject import Subject
from equivcheck.verify import verify

ORIGINAL = "equivcheck.attention:CausalSelfAttention"
FLASH = "equivcheck.attention:FlashCausalSelfAttention"

WRONG = """
from equivcheck.attention import CausalSelfAttention

class Wrong(CausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.5 if x.size(1) >= 3 else y
"""
DYING = """
import multiprocessing
import os
from equivcheck.attention import CausalSelfAttention

class Dying(CausalSelfAttention):
    def forward(self, x):
        if x.size(1) >= 2 and multiprocessing.parent_process() is not None:
            os._exit(3)
        return super().forward(x)
"""


def without_times(report: Report) -> dict[str, Any]:
    results = tuple(replace(r, seconds=0.0) for r in report.results)
    sensitivity = replace(report.sensitivity, seconds=0.0)
    return {"results": results, "sensitivity": sensitivity, "complete": report.complete, "verdict": report.verdict}


def run(candidate: str, jobs: int, **options: Any) -> Report:
    return verify(ORIGINAL, candidate, device="cpu", profile="quick", checks=["output", "errors"], jobs=jobs, **options)


def test_two_processes_come_to_the_report_of_one() -> None:
    assert without_times(run(FLASH, 1)) == without_times(run(FLASH, 2))


def test_what_is_said_of_a_pair_is_said_in_each_process() -> None:
    pair = [
        f"{Path(__file__).parent}/adopting/projection/attention.py:{n}" for n in ("ThreeProjections", "OneProjection")
    ]
    options: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["checkpoint", "causality"]}
    one, two = (verify(*pair, transfer="auto", dtypes=["float32"], jobs=jobs, **options) for jobs in (1, 2))
    assert without_times(one) == without_times(two)
    assert two.equivalent
    assert two.results[0].visited["dtype"].keys() == {"float32"}


def test_a_counterexample_is_as_small_when_it_is_found_elsewhere(tmp_path: Any) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    one, two = (run(f"{file}:Wrong", jobs) for jobs in (1, 2))
    assert two.verdict == "different"
    assert two.results[0].counterexample == one.results[0].counterexample


def test_a_process_that_dies_is_told_in_one_line(tmp_path: Any) -> None:
    file = tmp_path / "dying.py"
    file.write_text(DYING)
    # the dtypes are tried in this process before
    with pytest.raises(UsageError, match=r"has died .* --jobs 1"):
        run(f"{file}:Dying", 2)


def test_a_pair_that_cannot_be_loaded_is_told_once_and_by_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no_such_module"):
        run("no_such_module:Thing", 2)
    assert capfd.readouterr().err == ""


def test_what_cannot_be_loaded_elsewhere_is_run_here() -> None:
    subject = resolve(ORIGINAL, FLASH, kind="module", device="cpu")
    for reference, jobs, options in ((subject.reference, 4, {}), (ORIGINAL, 1, {}), (ORIGINAL, 4, {"f": lambda: 0})):
        with crews.crew(reference, FLASH, "module", subject.device, jobs, options) as workers:
            assert isinstance(workers, crews.Alone)


def test_on_the_cpu_there_is_a_process_for_each_core() -> None:
    assert 1 <= crews.jobs_for(torch.device("cpu")) <= 8


def test_a_mismatch_travels_whole() -> None:
    found = pickle.loads(pickle.dumps(Mismatch("it differs", ratio=3.5, where="output")))
    assert (str(found), found.ratio, found.where) == ("it differs", 3.5, "output")


def test_more_processes_on_cuda_bring_more_cases_of_what_is_cheap_and_on_a_cpu_none() -> None:
    on_cpu = resolve(ORIGINAL, FLASH, kind="module", device="cpu")
    on_cuda = replace(on_cpu, device=torch.device("cuda"))
    cheap, dear = (next(c for c in CHECKS if c.name == name) for name in ("gradients", "training"))

    def planned(check: Check, subject: Subject, profile: str, jobs: int) -> int:
        return planned_cases(check, subject=subject, profile=profile, dtypes=4, jobs=jobs)

    for subject, profile, jobs, times in (
        (on_cpu, "gate", 8, 1),
        (on_cuda, "gate", 2, 1),
        (on_cuda, "gate", 7, 4),
        (on_cuda, "gate", 16, 8),
    ):
        assert planned(cheap, subject, profile, jobs) == times * cheap.cases[profile]
        assert planned(dear, subject, profile, jobs) == dear.cases[profile]
    assert planned(cheap, on_cuda, "quick", 8) == cheap.cases["quick"]


def test_a_run_of_fourteen_processes_on_cuda_plans_more_than_three_thousand_cases() -> None:
    subject = replace(resolve(ORIGINAL, FLASH, kind="module", device="cpu"), device=torch.device("cuda"))
    chosen = choose(None, (), "module")
    assert sum(planned_cases(c, subject=subject, profile="gate", dtypes=4, jobs=14) for c in chosen) > 3500
