"""A run that is different in a few lines: for each distinct cause its checks, region, place, smallest case and replay."""

from collections.abc import Iterator, Mapping
from typing import Any

from equivcheck.report.clean_text import one_line
from equivcheck.report.levels import LEVELS
from equivcheck.report.model import Counterexample, Finding, Report

__all__ = ["case_in_words", "summary_lines"]

_BLOCKS = 3
_NUMBERS = {1: "one", 2: "two", 3: "three"}


def summary_lines(report: Report) -> list[str]:
    """The lines that a run which is different begins with; none for any other run.

    Differences that have the same cause stand in one block, with the names of all checks that see it. The lines of a
    block after its first are indented.
    """
    blocks: dict[str, list[tuple[str, Finding]]] = {}
    for result in report.shown:
        for finding in result.shown:
            if finding.outcome == "different" and not result.shortened:
                name = result.name_of(finding)
                blocks.setdefault(_cause(finding.counterexample) or name, []).append((name, finding))
    lines: list[str] = []
    # sorted is stable: differences at one level stay in the order of their checks
    for number, block in enumerate(sorted(blocks.values(), key=lambda block: min(map(_level, block)))):
        if number == _BLOCKS:
            lines.append(f"and {len(blocks) - _BLOCKS} more below")
            break
        lines += _block(sorted(block, key=_level))
    return [f"{'  ' if line.startswith(' ') else ''}{one_line(line.strip())}" for line in lines]


def _level(named: tuple[str, Finding]) -> int:
    """The place of a finding: numbers that differ come before what stands around them; what has no level comes first."""
    _, finding = named
    return LEVELS.index(finding.level) if finding.level else -1


def _cause(example: Counterexample) -> str:
    return ", or: ".join(cause.words for cause in example.diagnosis.causes)


def _block(block: list[tuple[str, Finding]]) -> Iterator[str]:
    names = ", ".join(dict.fromkeys(name for name, _ in block))
    levels = " and ".join(dict.fromkeys(finding.level for _, finding in block if finding.level))
    at = f" at {levels}" if levels else ""
    _, first = block[0]
    example = first.counterexample
    what = _cause(example) or _first_line(example)
    yield f"different{at} in {names}: {what}"
    region = next((f.counterexample.diagnosis for _, f in block if f.counterexample.diagnosis.region), None)
    if region is not None:
        tried = f" ({region.tried})" if region.tried else ""
        yield f"  fails where {region.region}{tried}"
    place = next((f.counterexample.diagnosis.place for _, f in block if f.counterexample.diagnosis.place), "")
    if place:
        yield f"  begins in {place}"
    yield f"  smallest case: {_smallest(example)}"
    yield f"  replay: {example.replay}"


def _first_line(example: Counterexample) -> str:
    """The first line of the comparison in words, without what a diagnosis says before it."""
    said = set(example.diagnosis.first_lines)
    return next((line for line in example.message.splitlines() if line.strip() not in said), "").strip()


def _smallest(example: Counterexample) -> str:
    words = case_in_words(example.fields) or example.case
    if example.candidate is None or example.oracle is None or not example.tensor:
        return words
    where = f"{example.tensor}{list(example.index)}" if example.index else example.tensor
    return f"{words}; {where} is {example.candidate:.6g}, and {example.oracle:.6g} in the oracle"


def case_in_words(fields: Mapping[str, Any]) -> str:
    """The fields of a case as a reader says them: `eval, attention dropout 0.1, one sample, 6 positions`; empty for none."""
    if not fields:
        return ""
    words = ["train" if fields.get("training") else "eval", str(fields["dtype"])]
    rates = (("attention dropout", "attn_pdrop"), ("residual dropout", "resid_pdrop"))
    words += [f"{what} {fields[name]:g}" for what, name in rates if fields.get(name)]
    words.append(_counted(fields["batch_size"], "sample"))
    words.append(_counted(fields["seq_len"], "position"))
    keys = fields.get("kv_len") or fields["seq_len"]
    if keys != fields["seq_len"]:
        words.append(_counted(keys, "key"))
    words.append(f"{_counted(fields['n_head'], 'head')} of size {fields['head_size']}")
    if fields.get("kv_heads") and fields["kv_heads"] != fields["n_head"]:
        words.append(_counted(fields["kv_heads"], "key head"))
    if fields.get("value_size") and fields["value_size"] != fields["head_size"]:
        words.append(f"values of size {fields['value_size']}")
    words += [] if fields.get("is_causal", True) else ["not causal"]
    words += [f"mask {fields['mask']}"] if fields.get("mask") else []
    words += [] if fields.get("scale") is None else [f"scale {fields['scale']:g}"]
    words += [_counted(fields["n_layer"], "layer")] if fields.get("n_layer") else []
    words += [] if fields.get("layout", "contiguous") == "contiguous" else [f"{fields['layout']} in memory"]
    words += [] if fields.get("regime", "sharpened") == "sharpened" else [f"values {fields['regime']}"]
    return ", ".join(words)


def _counted(count: int, noun: str) -> str:
    return f"{_NUMBERS.get(count, count)} {noun}{'' if count == 1 else 's'}"
