"""The JSON Schema of a report, made from the model: `python -m equivcheck.report.schema` writes schema.json anew.

Each field of the model has its description here; a field without one is an error.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from equivcheck.report.diagnosis import Cause, Diagnosis
from equivcheck.report.differences import FIELDS, NUMBER
from equivcheck.report.exits import EXITS
from equivcheck.report.files import write_whole
from equivcheck.report.model import (
    SCHEMA_VERSION,
    CheckResult,
    Combinations,
    Counterexample,
    Deviation,
    Finding,
    Package,
    Report,
    Sensitivity,
)
from equivcheck.report.schema_of_shards import OF_SHARDS
from equivcheck.report.time_spent import TimeSpent

__all__ = ["FILE", "schema"]

FILE = Path(__file__).with_name("schema.json")

_FIELDS: dict[type[Any], dict[str, str]] = {
    Report: {
        "reference": "Import string of the original attention.",
        "candidate": "Import string of the attention that wants to replace it.",
        "kind": "module, function, model or replacement.",
        "device": "The device, on CUDA with the name of the GPU in brackets.",
        "profile": "quick, gate or thorough: how many cases.",
        "seed": "The seed that all cases come from.",
        "results": "One result per check, in the order in which they were run.",
        "sensitivity": "The planted faults, and which of them this run caught.",
        "complete": "False if the run was interrupted, was killed or ran out of time: then it proves nothing.",
        "seconds": "How long the run took.",
        "created": "When it ended, ISO 8601 in UTC.",
        "environment": "Versions, platform, threads, precision and GPU.",
        "sources": "One SHA-256 for each part of `files`.",
        "files": "The source files, each with its SHA-256, in parts: those of equivcheck that judge, those of the "
        "reference, those of the candidate, modules of the project that were loaded while the pair ran, and data files "
        "that it read.",
        "packages": "The installed packages that the files of the pair import, without torch.",
        "not_covered": "Dependencies of the pair that no hash or version covers.",
        "dtypes": "The dtypes in which the pair was judged.",
        "dtypes_not_run": "The other requested dtypes, each with the reason why nothing was judged in it.",
        "candidate_file": "The file that defines the candidate.",
        "candidate_line": "The line on which its definition begins.",
        "deviations": "Differences that were declared, with their reasons.",
        "kernels": "The kernel that ran, by the problem that it ran for.",
        "options_not_judged": "Options of an original function that the candidate does not take.",
        "findings": "Facts that make the verdict `different`, whatever the checks say, such as a replaced original.",
        "sealed": "Whether the pair ran in other processes than the one that made the verdict.",
        "strict": "Whether a loud refusal of the candidate counts as a failure.",
        "require": "The levels that must be equivalent; empty for those of the pair's kind.",
        "domain": "The cases that the original is meant for: an expression of fields of a case, the import string of a "
        "function of a case, or both; empty if every case is.",
        "time_spent": "Where the time of the processes went; absent without --profile-run.",
        "remembered": "Counterexamples of earlier runs that this one ran again, a result for each; they have no part in "
        "cases, coverage and sensitivity. Empty if there were none, null if none were asked for.",
        "coverage": "The combinations of classes of a case's factors that the judged cases meet, by check and strength: "
        "`pairs` and `triples`. A triple counts if no two of its classes are outside of the domain.",
        "shard": "Set in the report of one part of a run, which is no evidence by itself; absent from that of a whole run.",
        "schema_version": "The version of this schema.",
    },
    Combinations: {
        "met": "How many the judged cases of the check meet.",
        "of": "How many there are in the domain, without those that cost too much.",
        "not_met": "How many are not met, by reason.",
    },
    CheckResult: {
        "name": "The check.",
        "outcome": "equivalent, different, unsupported (refused loudly), deviation (different, but declared), not judged "
        "(no comparison came about), not applicable (the property has no meaning for the original) or not refuted (of a screen, or "
        "of a shard).",
        "cases": "The number of cases that were compared.",
        "seconds": "How long that took.",
        "worst_ratio": "Greatest error / budget; up to 1 passes. If there is a counterexample, the ratio of that case.",
        "worst_case": "Id of the case with the worst ratio.",
        "worst_where": "The tensor with the worst ratio.",
        "counterexample": "The smallest case that fails; null if none does.",
        "detail": "A remark on the outcome.",
        "notes": "Observations that are not judged.",
        "unsupported": "The loud refusals of the candidate, such as a whole dtype.",
        "visited": "The number of cases by value, for each dimension of the case space, and for two of them joined by ×.",
        "levels": "The outcome at each level that the check has looked at.",
        "findings": "The differences, one for each part of the property that fails.",
        "not_judged": "The number of cases in which nothing was compared, by reason.",
        "shortened": "Whether only its first cases were run, as what they show is different without it.",
        "by_dtype": "The worst ratio in each dtype, over all cases, with the search for a small counterexample.",
    },
    Finding: {
        "name": "The part of the property that fails; empty for the main part.",
        "level": "The level of the difference.",
        "outcome": "different, or deviation (declared).",
        "counterexample": "The smallest case that fails.",
        "detail": "The reason of a deviation.",
    },
    Counterexample: {
        "case": "Its id, which rebuilds it.",
        "message": "Its comparison in words.",
        "replay": "The command that shows it again.",
        "ratio": "Its error / budget.",
        "stage": "Where it differs: forward, backward, exception (the candidate raises), process (it ends its process); "
        "empty for another property.",
        "tensor": "The worst tensor, if tensors were compared.",
        "index": "The index of its worst element.",
        "candidate": "The candidate's value there.",
        "oracle": "The oracle's value there.",
        "norm": "What `error` and `allowed` measure: one element, the norm of one row, or that of the whole tensor.",
        "row": "The index of that row, or of the worst one.",
        "error": "The distance of the candidate from the oracle.",
        "allowed": "How much of it rounding may explain.",
        "fields": "The fields of the case, by name; empty if its process died.",
        "diagnosis": "Its cause, region and place, if they are known.",
    },
    Diagnosis: {
        "causes": "The causes that fit all that was compared.",
        "region": "The condition under which cases fail; empty if it is not known.",
        "tried": "The values that fail and that pass, from which the region was read.",
        "module": "The first submodule whose output or gradient leaves its budget; empty if it is not known.",
        "beside": "Where in the code of that module, or of the model: before or after a submodule in it.",
        "layers": "The ratio of each submodule that was looked at, given the original's input, in the order of execution.",
        "largest_case": "The id of the case that fails with the largest ratio; empty if it is this one.",
        "largest_ratio": "That ratio.",
        "plainly": "The difference on the case in an ordinary call, if that shows one as well.",
        "gaps": "What was not looked for, and why, where the code of equivcheck itself raised.",
    },
    Cause: {
        "id": "The name of the fault.",
        "words": "The fault in words.",
        "parameters": "Its parameters, by name.",
    },
    Sensitivity: {
        "planted": "The faults that were planted.",
        "survived": "Those of them that no check caught.",
        "caught_by": "The check and the case that caught it first, by fault.",
        "seconds": "How long that took.",
        "without_effect": "Faults that were left out: they change nothing around this pair.",
        "untried": "Faults that were left out: time ran out.",
        "levels": "The level at which a fault is wrong, by fault.",
        "skipped": "Why no fault was planted, if that was decided.",
    },
    Deviation: {
        "name": "The check that may differ, or the finding as check.finding.",
        "reason": "Why the difference is accepted.",
        "expires": "The last day on which it is accepted, ISO 8601; null if it is accepted without limit.",
        "observed": "Whether the run saw the difference.",
    },
    TimeSpent: {
        "parts": "Seconds by part of the judging, summed over all processes; each second counts once, for the innermost part.",
        "stages": "The same seconds by check, `sensitivity` (planted faults) or `other` (loading, the plan, the look back), "
        "and by part.",
    },
    **OF_SHARDS,
    Package: {
        "version": "The version that was installed.",
        "sha256": "One SHA-256 of its files; empty if they are not covered.",
    },
}
_OPTIONAL = {"shard", "time_spent"}  # of a report: a file may be without it
_DERIVED = {
    "verdict": {
        "anyOf": [
            {"enum": ["equivalent", "different", "unsupported", "insensitive", "partial", "not judged", "not refuted"]},
            {"type": "string", "pattern": "^shard [0-9]+/[0-9]+$"},
        ],
        "description": "Derived: the verdict; `shard I/N` of one part of a run that saw no difference.",
    },
    "levels": {
        "type": "object",
        "additionalProperties": {
            "enum": [
                "equivalent",
                "different",
                "unsupported",
                "deviation",
                "not judged",
                "not applicable",
                "not refuted",
            ]
        },
        "description": "Derived: the outcome at each level, the worst of the checks that looked at it.",
    },
    "equivalent": {"type": "boolean", "description": "Derived: whether the verdict is `equivalent`."},
    "cases": {"type": "integer", "description": "Derived: cases of all checks together."},
    "exit_status": {"enum": [0, 1, 2], "description": "Derived: the exit status of the command."},
    "exit_reason": {"enum": list(EXITS), "description": "Derived: the id of the reason for this exit status."},
    "differences": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": FIELDS,
            "required": list(FIELDS),
            "additionalProperties": False,
        },
        "description": "Derived: the differences that are not declared, each with its facts in fields.",
    },
}
_INTEGRITY = {
    "type": "string",
    "pattern": "^sha256:[0-9a-f]{64}$",
    "description": "SHA-256 of everything else, as JSON with sorted keys and no white space.",
}
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: NUMBER,
    Any: {},
}


def schema() -> dict[str, Any]:
    """The schema of a report as this equivcheck writes it; a KeyError names a field without a description."""
    report = _object(Report)
    report["properties"] = {**_DERIVED, **report["properties"], "integrity": _INTEGRITY}
    report["properties"]["schema_version"] |= {"const": SCHEMA_VERSION}
    report["required"] = [name for name in report["properties"] if name not in _OPTIONAL]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A report of equivcheck",
        **report,
        "$defs": {kind.__name__: _object(kind) for kind in _FIELDS if kind is not Report},
    }


def _object(kind: type[Any]) -> dict[str, Any]:
    hints, descriptions = get_type_hints(kind), _FIELDS[kind]
    properties = {
        field.name: {**_type(hints[field.name]), "description": descriptions[field.name]} for field in fields(kind)
    }
    return {
        "type": "object",
        "description": (kind.__doc__ or "").splitlines()[0],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _type(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if kind is type(None) else _type(kind) for kind in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(arguments[1])}
    return dict(_PLAIN[hint]) if hint in _PLAIN else {"$ref": f"#/$defs/{hint.__name__}"}


if __name__ == "__main__":
    write_whole(FILE, json.dumps(schema(), indent=2) + "\n")
