"""The schema: every report fits it, and what is no report does not."""

import json as stdlib_json

import jsonschema
import pytest
from sample_reports import FULL, PAGES

from equivcheck.api import verify
from equivcheck.report import codec, schema
from equivcheck.report.model import Report

SCHEMA = stdlib_json.loads(schema.FILE.read_text())


def test_the_schema_in_the_package_is_that_of_the_model() -> None:
    assert schema.schema() == SCHEMA, "run python -m equivcheck.report.schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [*PAGES.values()])
def test_every_report_fits_its_schema(report: Report) -> None:
    jsonschema.validate(stdlib_json.loads(codec.dumps(report)), SCHEMA)


def test_each_report_that_a_run_keeps_fits_the_schema() -> None:
    kept: list[Report] = []
    original = "equivcheck.attention:CausalSelfAttention"
    done = verify(original, original, device="cpu", profile="quick", checks=["checkpoint", "purity"], keep=kept.append)
    assert [(len(report.results), report.verdict) for report in kept] == [
        (0, "partial"),
        (1, "partial"),
        (2, "partial"),
    ]
    for report in (done, *kept):
        jsonschema.validate(stdlib_json.loads(codec.dumps(report)), SCHEMA)
    purity = done.results[1]
    assert max(purity.by_dtype.values()) == purity.worst_ratio
    assert sum(purity.visited["dtype × regime"].values()) == purity.cases
    assert (done.candidate_file, done.files["candidate"]) == ("equivcheck/attention.py", done.files["reference"])


@pytest.mark.parametrize("change", [{"seed": "0"}, {"verdict": "fine"}, {"mood": "good"}, {"schema_version": 1}])
def test_the_schema_refuses_what_is_no_report(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**stdlib_json.loads(codec.dumps(FULL)), **change}, SCHEMA)
