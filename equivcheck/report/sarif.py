"""A report as SARIF 2.1.0, for code scanning: one result a difference, at the line that defines the candidate."""

import json
from typing import Any
from urllib.parse import quote

from equivcheck import __version__
from equivcheck.report.clean_text import clean, one_line
from equivcheck.report.closing_lines import sensitivity_line, verdict_line
from equivcheck.report.codec import plain
from equivcheck.report.differences import differences
from equivcheck.report.exits import EXITS, exit_reason, exit_status
from equivcheck.report.model import Report

__all__ = ["render"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_FINGERPRINT = "equivcheckFinding/v1"
_MESSAGE_LINES = 4  # of a difference: what differs, by how much and where
_AS_ASKED = ("shard", "not-refuted")
"""Reasons for which a run was asked to judge less than the whole: they are notes, and every other one is an error."""


def render(report: Report) -> str:
    """The report as SARIF that has no result where a run is equivalent and saw no difference.

    A difference at a required level, or at none, is an error; one at another level is a warning. A run that is not
    equivalent without an error among them has one more result, with the reason for its exit status as its rule.
    """
    results = [_difference(report, one) for one in differences(report)]
    results += [_reason(report, "void", finding) for finding in report.findings]
    reason = exit_reason(report)
    if reason != "equivalent" and all(result["level"] != "error" for result in results):
        results.append(_reason(report, reason, _why(report)))
    rules = _rules(report, results)
    number = {rule["id"]: index for index, rule in enumerate(rules)}
    for result in results:
        result["ruleIndex"] = number[result["ruleId"]]
    run = {
        "tool": {"driver": {"name": "equivcheck", "version": __version__, "rules": rules}},
        "invocations": [
            {
                "executionSuccessful": reason != "cut-short",
                "exitCode": exit_status(report),
                "exitCodeDescription": EXITS[reason][1],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "verdict": report.verdict,
            "exit_reason": reason,
            "reference": clean(report.reference),
            "candidate": clean(report.candidate),
            "kind": report.kind,
            "device": clean(report.device),
            "profile": report.profile,
            "seed": report.seed,
        },
    }
    content = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _difference(report: Report, one: dict[str, Any]) -> dict[str, Any]:
    level = one["level"]
    name = _id(f"{one['check']}.{one['finding']}" if one["finding"] else one["check"])
    lines = [line for line in clean(one["message"]).splitlines() if line.strip()][:_MESSAGE_LINES]
    at = f" at the level {level}" if level else ""
    return {
        "ruleId": name,
        "level": "error" if not level or level in report.required else "warning",
        "message": {"text": "\n".join(lines) or f"{name} is different{at}"},
        "locations": [_location(report)],
        "partialFingerprints": {_FINGERPRINT: _id(f"{name}@{level}")},
        "properties": {
            "case": clean(one["case"]["id"]),
            "ratio": plain(one["ratio"]),
            "level": level,
            "replay": clean(one["replay"]),
        },
    }


def _reason(report: Report, reason: str, message: str) -> dict[str, Any]:
    """The result of a fact that is no difference of a check, such as a planted fault that survived."""
    return {
        "ruleId": reason,
        "level": "note" if reason in _AS_ASKED else "error",
        "message": {"text": clean(message)},
        "locations": [_location(report)],
        "partialFingerprints": {_FINGERPRINT: f"{reason}@"},
    }


def _why(report: Report) -> str:
    line = verdict_line(report)
    return f"{line}\n{sensitivity_line(report)}" if report.verdict == "insensitive" else line


def _location(report: Report) -> dict[str, Any]:
    """The line that defines the candidate, if it is known; its import string in any case."""
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": clean(report.candidate)}]}
    if report.candidate_file:
        place: dict[str, Any] = {"artifactLocation": {"uri": _uri(report.candidate_file), "uriBaseId": "%SRCROOT%"}}
        if report.candidate_line:
            place["region"] = {"startLine": report.candidate_line}
        location["physicalLocation"] = place
    return location


def _uri(file: str) -> str:
    return quote(file.replace("\\", "/"), errors="backslashreplace")


def _rules(report: Report, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A rule for each check that was run, and for each part of a check and reason that has a result."""
    checks = dict.fromkeys(_id(result.name) for result in report.shown)
    return [_rule(name) for name in dict.fromkeys((*checks, *(result["ruleId"] for result in results)))]


def _rule(name: str) -> dict[str, Any]:
    if name in EXITS:
        short, full = f"The run ends as {name}", EXITS[name][1]
        help_text = "docs/json.md has every reason for which a run ends."
    else:
        short, full = f"The check {name}", f"The check {name} holds the candidate against the original."
        help_text = (
            "The replay command of a result shows the difference again. docs/checks.md has what a check promises."
        )
    texts = {"shortDescription": short, "fullDescription": full, "help": help_text}
    return {"id": name, **{key: {"text": text} for key, text in texts.items()}}


def _id(name: str) -> str:
    return one_line(name)
