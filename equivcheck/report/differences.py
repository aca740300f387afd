"""The differences of a report for programs: one flat object for each, with every fact in a field of its own."""

from dataclasses import asdict
from typing import Any

from equivcheck.report.levels import LEVELS
from equivcheck.report.model import CheckResult, Finding, Report

__all__ = ["FIELDS", "NUMBER", "difference", "differences"]


NUMBER: dict[str, Any] = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}
"""The JSON Schema of a number."""

_NUMBER_OR_NONE: dict[str, Any] = {"anyOf": [{"type": "null"}, NUMBER]}
_CAUSE: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "words": {"type": "string"}, "parameters": {"type": "object"}},
    "required": ["id", "words", "parameters"],
    "additionalProperties": False,
}
FIELDS: dict[str, dict[str, Any]] = {
    "level": {"enum": ["", *LEVELS], "description": "The level; empty if it has none."},
    "check": {"type": "string", "description": "The check that saw it."},
    "finding": {"type": "string", "description": "The part of the property that fails; empty for the main part."},
    "stage": {"type": "string", "description": "forward, backward, exception or process; empty for another property."},
    "cause": {"anyOf": [{"type": "null"}, _CAUSE], "description": "The cause, if one is known."},
    "rivals": {"type": "array", "items": _CAUSE, "description": "Other causes that fit as well."},
    "region": {"type": "string", "description": "The condition under which cases fail; empty if it is not known."},
    "module": {
        "type": ["null", "string"],
        "description": "The first submodule that leaves its budget, or the one whose parameter has the wrong gradient.",
    },
    "place": {"type": "string", "description": "Where it begins in a model, in words; empty if it is not known."},
    "tensor": {"type": ["null", "string"], "description": "The worst tensor, if tensors were compared."},
    "index": {"type": "array", "items": {"type": "integer"}, "description": "The index of its worst element."},
    "candidate": {**_NUMBER_OR_NONE, "description": "The candidate's value there."},
    "oracle": {**_NUMBER_OR_NONE, "description": "The oracle's value there."},
    "norm": {"enum": [None, "element", "row", "tensor"], "description": "What `error` and `allowed` measure."},
    "row": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "The index of that row, or of the worst one.",
    },
    "error": {**_NUMBER_OR_NONE, "description": "The distance of the candidate from the oracle."},
    "allowed": {**_NUMBER_OR_NONE, "description": "How much of it rounding may explain."},
    "ratio": {**_NUMBER_OR_NONE, "description": "Its error / budget."},
    "case": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "fields": {"type": "object"}},
        "required": ["id", "fields"],
        "additionalProperties": False,
        "description": "The smallest case that fails: its id, which rebuilds it, and its fields by name.",
    },
    "message": {"type": "string", "description": "The comparison in words."},
    "replay": {"type": "string", "description": "The command that shows it again."},
}
"""The JSON Schema of each field of a difference, in their order."""


def differences(report: Report) -> list[dict[str, Any]]:
    """The differences of a run that are not declared, in the order of its checks; `docs/json.md` has the fields."""
    return [
        difference(result, finding)
        for result in report.shown
        for finding in result.shown
        if finding.outcome == "different"
    ]


def difference(result: CheckResult, finding: Finding) -> dict[str, Any]:
    """One difference of a check."""
    example = finding.counterexample
    causes = [asdict(cause) for cause in example.diagnosis.causes]
    return {
        "level": finding.level,
        "check": result.name,
        "finding": finding.name,
        "stage": example.stage,
        "cause": next(iter(causes), None),
        "rivals": causes[1:],
        "region": example.diagnosis.region,
        "module": example.module or None,
        "place": example.diagnosis.place,
        "tensor": example.tensor or None,
        "index": list(example.index),
        "candidate": example.candidate,
        "oracle": example.oracle,
        "norm": example.norm or None,
        "row": list(example.row),
        "error": example.error,
        "allowed": example.allowed,
        "ratio": example.ratio,
        "case": {"id": example.case, "fields": dict(example.fields)},
        "message": example.message,
        "replay": example.replay,
    }
