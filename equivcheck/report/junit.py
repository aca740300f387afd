"""A report as JUnit XML, one test case per check, for systems that read test results in that form."""

import xml.etree.ElementTree as ET
from dataclasses import replace

from equivcheck.report.clean_text import clean
from equivcheck.report.closing_lines import sensitivity_line, verdict_line
from equivcheck.report.model import CheckResult, Report

__all__ = ["render"]


def render(report: Report) -> str:
    """The report as JUnit XML that is green exactly where the verdict is `equivalent`.

    A check that is `different` at a required level is a failure. One that is different elsewhere is skipped with a
    reason, and so is one that is not judged or not applicable; nothing judged at a required level is an error. One that
    is `unsupported` is skipped with a reason, or in a strict run fails. A run that was insensitive or partial has an
    additional test case, `sensitivity` or `complete`, that fails with a reason.
    """
    root = ET.Element("testsuites", name="equivcheck")
    suite = ET.SubElement(root, "testsuite", name=clean(f"equivcheck {report.candidate}"))
    properties = {
        "verdict": report.verdict,
        "reference": report.reference,
        "candidate": report.candidate,
        "kind": report.kind,
        "device": report.device,
        "profile": report.profile,
        "seed": str(report.seed),
        "sealed": "yes" if report.sealed else "no",
        "dtypes": " ".join(report.dtypes),
        "planted_faults": str(len(report.sensitivity.planted)),
        "caught_faults": str(report.sensitivity.caught),
        **{f"environment.{key}": value for key, value in report.environment.items()},
        **{f"package.{name}": package.version for name, package in report.packages.items()},
        **{f"not_covered.{number}": what for number, what in enumerate(report.not_covered, 1)},
    }
    _properties(suite, properties)
    for result in report.results:
        _check(suite, report, result)
    for result in report.shown[len(report.results) :]:
        _check(suite, report, replace(result, name=f"{result.name} on a remembered case"))
    for number, finding in enumerate(report.findings, 1):
        case = ET.SubElement(suite, "testcase", classname="equivcheck", name=f"finding.{number}", time="0.000")
        ET.SubElement(case, "failure", message=clean(finding), type="finding").text = verdict_line(report)
    if report.verdict == "insensitive":
        case = ET.SubElement(suite, "testcase", classname="equivcheck", name="sensitivity")
        case.set("time", f"{report.sensitivity.seconds:.3f}")
        ET.SubElement(case, "failure", message=sensitivity_line(report), type="insensitive").text = verdict_line(report)
    if not report.complete or not (report.results or report.shard):
        case = ET.SubElement(suite, "testcase", classname="equivcheck", name="complete", time="0.000")
        message = "the run was cut short"
        ET.SubElement(case, "error", message=message, type="partial").text = verdict_line(report)
    for element in (root, suite):
        element.set("tests", str(len(suite.findall("testcase"))))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            element.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
        element.set("time", f"{report.seconds:.3f}")
    suite.set("timestamp", clean(report.created))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _check(suite: ET.Element, report: Report, result: CheckResult) -> None:
    case = ET.SubElement(suite, "testcase", classname=clean(f"equivcheck.{report.candidate}"), name=clean(result.name))
    case.set("time", f"{result.seconds:.3f}")
    properties = {
        "outcome": result.outcome,
        "levels": ", ".join(f"{k}: {v}" for k, v in result.levels.items()),
        "cases": str(result.cases),
        "seed": str(report.seed),
    }
    if result.worst_ratio is not None:
        properties["worst_ratio"] = repr(result.worst_ratio)
    if result.worst_case is not None:
        properties["worst_case"] = result.worst_case
    example = result.counterexample
    if example is not None:
        properties |= {"counterexample": example.case, "replay": example.replay}
    _properties(case, properties)
    required = [f for f in result.shown if not f.level or f.level in report.required]
    fails = result.outcome == "different" and (not result.shown or any(f.outcome == "different" for f in required))
    if fails and any(f.outcome == "different" for f in required):
        example = next(f.counterexample for f in required if f.outcome == "different")
    if fails:
        text = f"{example.message}\nreplay: {example.replay}" if example is not None else result.detail
        failure = ET.SubElement(case, "failure", message=_first_line(text), type="different")
        failure.text = clean(text)
    elif report.strict and (result.unsupported or result.outcome == "unsupported"):
        message = clean("unsupported, and the run is strict: " + ", ".join(result.unsupported))
        ET.SubElement(case, "failure", message=message, type="unsupported")
    elif result.outcome == "different":
        ET.SubElement(case, "skipped", message=clean(f"different at {', '.join(result.levels)}, which is not required"))
    elif result.in_vain or (
        result.outcome == "not judged" and any(level in report.required for level in result.levels)
    ):
        ET.SubElement(case, "error", message=clean(f"not judged: {_reasons(result)}"), type="not judged")
    elif result.outcome in ("not judged", "not applicable"):
        ET.SubElement(case, "skipped", message=clean(f"{result.outcome}: {_reasons(result)}"))
    elif result.outcome == "unsupported":
        ET.SubElement(case, "skipped", message=clean("unsupported: " + ", ".join(result.unsupported)))
    lines = [*(f"unsupported: {what}" for what in result.unsupported), *result.notes]
    if result.detail and result.outcome != "different":
        lines.insert(0, result.detail)
    if result.outcome == "deviation" and example is not None:
        lines.append(example.message)
    if lines:
        ET.SubElement(case, "system-out").text = clean("\n".join(lines))


def _reasons(result: CheckResult) -> str:
    return "; ".join(result.notes) or ", ".join(result.not_judged) or result.detail


def _properties(parent: ET.Element, values: dict[str, str]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", name=clean(name), value=clean(value))


def _first_line(text: str) -> str:
    return clean(next((line for line in text.splitlines() if line.strip()), "different"))
