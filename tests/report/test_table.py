"""The table, whose last line is the verdict, and what is printed of a replayed case."""

import io
from dataclasses import replace

import pytest
from sample_reports import BROKEN, CASE, GRADIENTS, OUTPUT, report_of

from equivcheck.report import markdown, table
from equivcheck.report.model import CheckResult, Report, Sensitivity


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (
            report_of(OUTPUT, GRADIENTS),
            "equivalent: 100 cases, 2 checks, cpu (torch 2.13.0), 2 of 2 planted faults caught, 41.2 s",
        ),
        (report_of(BROKEN, GRADIENTS), "different at values: output, 100 cases, 2 checks, cpu (torch 2.13.0), 41.2 s"),
        (
            report_of(BROKEN, GRADIENTS, complete=False),
            "different at values: output, 100 cases, 2 checks, cpu (torch 2.13.0), partial: the run was cut short, 41.2 s",
        ),
        (
            report_of(OUTPUT, sensitivity=Sensitivity(("a", "b"), ("b",))),
            "insensitive: 1 of 2 planted faults survived (b), 60 cases, 1 check, cpu (torch 2.13.0), 41.2 s",
        ),
        (
            report_of(OUTPUT, sensitivity=Sensitivity()),
            "insensitive: no fault was planted, 60 cases, 1 check, cpu (torch 2.13.0), 41.2 s",
        ),
        (
            report_of(OUTPUT, complete=False),
            "partial: the run was cut short and proves nothing, 60 cases, 1 check, cpu (torch 2.13.0), 41.2 s",
        ),
        (
            report_of(replace(OUTPUT, outcome="deviation"), replace(GRADIENTS, outcome="unsupported"), environment={}),
            "equivalent at values: 100 cases, 2 checks (1 deviation, 1 unsupported), cpu, 2 of 2 planted faults caught, 41.2 s",
        ),
    ],
)
def test_the_verdict_is_one_line_and_the_last(report: Report, verdict: str) -> None:
    assert table.plain(report).splitlines()[-1] == verdict
    assert verdict.partition(":")[0].partition(" at ")[0] == report.verdict


def test_the_plain_table_is_aligned_and_tells_everything() -> None:
    report = report_of(
        BROKEN,
        replace(GRADIENTS, unsupported=("float16: RuntimeError",)),
        sensitivity=Sensitivity(("a", "b", "c"), ("c",)),
    )
    assert table.plain(report) == (
        "b:B against a:A (module, profile gate, seed 0)\n"
        "different at values in output: 3 of 12 values differ\n"
        f"  smallest case: {CASE}\n"
        f"  replay: equivcheck replay {CASE} a:A b:B\n"
        "\n"
        "check      outcome     cases  worst ratio  where\n"
        f"output     different      60          inf  y[0, 2, 1] of {CASE}\n"
        f"gradients  equivalent     40         0.73  key.weight of {CASE}\n"
        "\n"
        "counterexamples:\n"
        f"  output [values]: {CASE} (ratio inf)\n"
        "    3 of 12 values differ\n"
        "    largest: nan\n"
        f"    replay: equivcheck replay {CASE} a:A b:B\n"
        "\n"
        "notes:\n"
        "  gradients: 2 zero gradients\n"
        "\n"
        "unsupported:\n"
        "  gradients: float16: RuntimeError\n"
        "\n"
        "levels: values different, training not judged (not required), transforms not judged (not required), "
        "drop-in not judged (not required)\n"
        "sensitivity: 3 faults planted, 2 caught; survived: c\n"
        "different at values: output, 100 cases, 2 checks, cpu (torch 2.13.0), 41.2 s\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_names_are_no_markup_and_commands_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    table.show(report_of(replace(BROKEN, name="[bold]output[/bold]"), candidate="b:\x1b[31mB"), screen)
    shown = screen.getvalue()
    assert "[bold]output[/bold]" in shown.replace("\n", "")
    assert f"replay: equivcheck replay {CASE} a:A b:B\n" in shown
    assert "\\x1b[31mB" in shown
    assert shown.splitlines()[-1].startswith("\x1b[1mdifferent at values: [bold]output[/bold], 60 cases")


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ((OUTPUT, GRADIENTS), "equivalent"),
        ((OUTPUT, BROKEN), "different"),
        ((replace(OUTPUT, outcome="unsupported"),), "unsupported"),
        ((replace(OUTPUT, outcome="unsupported"), GRADIENTS), "equivalent"),
        ((), "unsupported"),
    ],
)
def test_a_replayed_case_ends_in_its_verdict(results: tuple[CheckResult, ...], status: str) -> None:
    verdict, text = table.replayed(CASE, results)
    assert verdict == status
    assert text.splitlines()[-1].startswith(f"{status}: ")
    assert text.splitlines()[-1].endswith(CASE)


def test_a_replayed_case_shows_the_detail_of_every_check() -> None:
    _, text = table.replayed(CASE, (replace(OUTPUT, detail="error 1e-7\nbudget 2e-7"), BROKEN))
    assert "output: equivalent, ratio 0.412\n  error 1e-7\n  budget 2e-7\n" in text
    assert "output: different, ratio inf\n  3 of 12 values differ\n" in text


def test_the_domain_is_a_line_where_there_is_one() -> None:
    report = replace(report_of(OUTPUT), domain="head_size in (64, 128)")
    assert "domain: head_size in (64, 128)" in table.plain(report).splitlines()
    assert "domain" not in table.plain(report_of(OUTPUT))
    assert "- domain: `head_size in (64, 128)`" in markdown.render(report).splitlines()
