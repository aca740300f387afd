"""Each public name of equivcheck once, as a project under `mypy --strict` uses it (`test_typing.py`)."""

from torch import nn

import equivcheck


class Slow(nn.Module):
    pass


class Fast(Slow):
    pass


def verified(seconds: float | None) -> equivcheck.Report:
    try:
        report = equivcheck.verify(Slow, Fast, device="cpu", profile="quick", max_seconds=seconds, checks=["output"])
    except equivcheck.UsageError as error:
        raise SystemExit(f"equivcheck {equivcheck.__version__}: {error}") from error
    return report


def worst(result: equivcheck.CheckResult) -> tuple[str, float]:
    return result.name, result.worst_ratio or 0.0


def ratios() -> dict[str, float]:
    try:
        report: equivcheck.Report = equivcheck.assert_equivalent("package.slow:Attention", "package.fast:Attention")
    except equivcheck.Mismatch as mismatch:
        return {mismatch.where: mismatch.ratio}
    report.save("report.json")
    return dict(worst(result) for result in equivcheck.Report.load("report.json").results)


def lengths(ids: list[str]) -> list[int]:
    return [equivcheck.Case.parse(case).seq_len for case in ids]


TestFast: type = equivcheck.suite(Slow, Fast, exclude=["long"], deviations={"interface": "fused"}, require=["values"])
