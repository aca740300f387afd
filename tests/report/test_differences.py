"""A difference as fields for programs: where it is, how large, on which case; and the reasons for exit statuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from sample_reports import BROKEN, OUTPUT, report_of

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.fields import FIELDS
from equivcheck.report import codec, schema
from equivcheck.report.differences import FIELDS as FIELDS_OF_DIFFERENCES
from equivcheck.report.differences import differences
from equivcheck.report.exits import EXITS, exit_reason, exit_status
from equivcheck.report.model import Report, Sensitivity

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


class Wider(CausalSelfAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[..., :1]


class Raising(CausalSelfAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")


class Doubled(CausalSelfAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def first_of(candidate: type, check: str) -> dict[str, Any]:
    report = verify(
        CausalSelfAttention, candidate, kind="module", device="cpu", profile="quick", checks=[check], dtypes=["float32"]
    )
    content = json.loads(codec.dumps(report))
    jsonschema.validate(content, json.loads(schema.FILE.read_text()))
    assert codec.loads(codec.dumps(report)) == report
    assert content["differences"] == codec.plain(differences(report))
    first: dict[str, Any] = content["differences"][0]
    return first


def test_a_wrong_output_has_its_place_and_its_values_in_fields() -> None:
    one = first_of(Doubled, "output")
    assert (one["level"], one["check"], one["stage"], one["tensor"]) == ("values", "output", "forward", "output")
    assert one["candidate"] == pytest.approx(2 * one["oracle"], rel=1e-5)
    assert len(one["index"]) == 3
    assert one["ratio"] > 1
    assert one["module"] is None
    assert Case(**one["case"]["fields"]).id == one["case"]["id"]


def test_a_wrong_gradient_names_its_module() -> None:
    class WrongGradient(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.query.weight.register_hook(lambda gradient: 2 * gradient)

    one = first_of(WrongGradient, "gradients")
    assert (one["stage"], one["tensor"], one["module"]) == ("backward", "grad query.weight", "query")


def test_another_shape_has_no_values() -> None:
    one = first_of(Wider, "output")
    assert (one["stage"], one["tensor"], one["index"]) == ("forward", "output", [])
    assert (one["candidate"], one["oracle"], one["ratio"]) == (None, None, "inf")


def test_an_exception_is_a_stage() -> None:
    one = first_of(Raising, "output")
    assert (one["stage"], one["tensor"], one["candidate"]) == ("exception", None, None)
    assert one["case"]["fields"]["dtype"] == "float32"


def test_declared_differences_are_not_among_them() -> None:
    assert [one["check"] for one in differences(report_of(BROKEN))] == ["output"]
    assert differences(report_of(replace(BROKEN, outcome="deviation"))) == []


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (report_of(OUTPUT), "equivalent"),
        (report_of(BROKEN), "different"),
        (report_of(OUTPUT, findings=("the original was replaced",)), "void"),
        (report_of(OUTPUT, sensitivity=Sensitivity(("a",), ("a",))), "fault-survived"),
        (report_of(OUTPUT, sensitivity=Sensitivity()), "no-fault-planted"),
        (report_of(replace(OUTPUT, outcome="unsupported"), strict=True), "refused"),
        (report_of(OUTPUT, complete=False), "cut-short"),
        (report_of(replace(OUTPUT, outcome="not judged")), "nothing-compared"),
        (report_of(replace(OUTPUT, outcome="not refuted"), profile="screen"), "not-refuted"),
    ],
)
def test_each_verdict_has_a_reason_with_the_status_of_the_command(report: Report, reason: str) -> None:
    assert exit_reason(report) == reason
    statuses = {"equivalent": 0, "different": 1, "insensitive": 1, "unsupported": 1}
    assert exit_status(report) == statuses.get(report.verdict, 2)
    content = json.loads(codec.dumps(report))
    assert (content["exit_reason"], content["exit_status"]) == (reason, exit_status(report))


def test_the_page_has_every_reason_every_field_and_every_field_of_a_case() -> None:
    for reason, (status, words) in EXITS.items():
        assert f"| `{reason}` | {status} | {words} |" in PAGE
    for name in FIELDS_OF_DIFFERENCES:
        assert f"`{name}`" in PAGE
    for field in FIELDS:
        assert f"| `{field.name}` | {field.meaning} |" in PAGE


def test_a_value_that_is_no_number_is_written_in_words() -> None:
    assert BROKEN.counterexample is not None
    example = replace(BROKEN.counterexample, candidate=math.nan, oracle=-math.inf, tensor="output", index=(0, 1))
    text = codec.dumps(report_of(replace(BROKEN, counterexample=example)))
    assert json.loads(text)["differences"][0]["candidate"] == "nan"
    again = codec.loads(text).results[0].counterexample
    assert again is not None
    assert (again.oracle, again.index) == (-math.inf, (0, 1))
