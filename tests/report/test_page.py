"""The page: it holds everything it shows, shows strange text as text, and says what the other forms say."""

import json as stdlib_json
import re
import sys
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_text import Text
from sample_reports import (
    BROKEN,
    FULL,
    GRADIENTS,
    MANY,
    ONE_LENGTH,
    OUTPUT,
    PAGES,
    REPORTS,
    SCRIPT,
    SPEED,
    STRANGE,
    TIMINGS,
    report_of,
)

from equivcheck.report import codec, html, junit, markdown, page, plots, schema, table
from equivcheck.report.model import Report, Sensitivity, Timing

SCHEMA = stdlib_json.loads(schema.FILE.read_text())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nothing_of_anybody(name: str) -> None:
    rendered = html.render(PAGES[name], SPEED.get(name))
    found = Text(rendered)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & found.tags
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    assert not re.search(r"url\((?!#)|@import", rendered)


def test_strange_text_shows_as_text() -> None:
    found = Text(html.render(STRANGE, SPEED["strange"]))
    assert found.text.count(SCRIPT) >= 5
    assert "\\u202eevil" in found.text
    assert "n" * 2000 in found.text


@given(REPORTS)
def test_every_report_has_a_page_and_fits_the_schema(report: Report) -> None:
    found = Text(html.render(report))
    assert report.verdict in found.text
    assert not {"script"} & found.tags
    jsonschema.validate(stdlib_json.loads(codec.dumps(report)), SCHEMA)


@pytest.mark.parametrize("report", [*PAGES.values()])
def test_table_markdown_page_and_junit_tell_the_same(report: Report) -> None:
    shown = [table.plain(report), markdown.render(report), html.render(report), junit.render(report)]
    read = [re.sub(r"\s+", " ", text) for text in (shown[0], shown[1], Text(shown[2]).text, Text(shown[3]).text)]
    xml = shown[3]
    line = table.verdict_line(report)
    assert line in read[0]
    assert line in read[2]
    for result, row in zip(report.results, table.rows(report), strict=True):
        name, outcome, cases, ratio, _ = row
        assert re.search(rf"^{re.escape(name)} +{outcome} +{cases} +{re.escape(ratio)}", shown[0], re.MULTILINE)
        assert f"| {outcome} | {cases} | {ratio} |" in shown[1]
        assert (
            f'<span class="outcome {outcome}">{outcome}</span></td><td class="number">{cases}</td><td class="number">{ratio}<'
            in shown[2]
        )
        assert f'<property name="outcome" value="{outcome}" />' in xml
        if result.worst_ratio is not None:
            assert f'<property name="worst_ratio" value="{result.worst_ratio!r}" />' in xml
        if result.counterexample is not None and result.name.isalnum():
            assert all(result.counterexample.replay in text for text in (*read[:3], xml))


def test_the_verdict_is_said_in_a_sentence() -> None:
    assert page.sentence(report_of(OUTPUT, GRADIENTS)) == (
        "B is the same attention as A: in 100 cases nothing differs by more than rounding explains, "
        "and all 2 planted faults were noticed."
    )
    assert page.sentence(FULL) == "B is not the same attention as A: it differs in gradients."
    assert "it differs in check-0, check-1, " in page.sentence(MANY)
    assert page.sentence(MANY).endswith("check-7 and 492 more checks.")
    assert "cut short" in page.sentence(report_of(BROKEN, complete=False))
    assert "proves nothing: 1 of 1 planted fault went unnoticed" in page.sentence(
        report_of(OUTPUT, sensitivity=Sensitivity(("a",), ("a",)))
    )
    assert "proves nothing: no fault was planted" in page.sentence(report_of(OUTPUT, sensitivity=Sensitivity()))
    declared = page.sentence(report_of(OUTPUT, replace(BROKEN, outcome="deviation")))
    assert "B is the same attention as A, apart from 1 declared deviation: in" in declared


def test_the_heat_map_has_a_class_for_every_measured_ratio() -> None:
    grid = page.heat(FULL)
    assert grid.columns == ("bfloat16", "float16", "float32")
    assert [(name, [(cell.text, cell.level) for cell in cells]) for name, cells in grid.rows] == [
        ("output", [("0.09", 0), ("-", None), ("0.412", 2)]),
        ("gradients", [("-", None), ("0.73", 3), ("inf", 4)]),
    ]


def test_coverage_adds_up_over_the_checks() -> None:
    seen = page.visited(FULL)
    assert seen["dtype"] == [("bfloat16", 6), ("float32", 10)]
    assert [value for value, _ in seen["length"]] == ["up to 16", "up to 128", "longer"]
    grid, covered = page.pairs(FULL)
    assert covered == [("dtype × regime", 3, 4), ("dtype × mode", 2, 2)]
    assert grid.columns == ("bfloat16", "float32")
    assert [(name, [cell.text for cell in cells]) for name, cells in grid.rows] == [
        ("sharpened", ["6", "6"]),
        ("tiny", ["0", "4"]),
    ]


def test_plots_are_the_same_every_time_and_take_the_page_s_colour() -> None:
    for records, count in ((TIMINGS, 2), (ONE_LENGTH, 2), ({}, 0)):
        drawn, missing = plots.draw(records)
        assert not missing
        assert len(drawn) == count
        assert drawn == plots.draw(records)[0]
        for _, _, svg in drawn:
            assert svg.startswith("<svg")
            assert "currentColor" in svg
            assert "<b>" not in svg
            assert "mathdefault" not in svg
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for _, _, svg in plots.draw(TIMINGS)[0]]
    assert not ids[0] & ids[1]
    for found, (_, _, svg) in zip(ids, plots.draw(TIMINGS)[0], strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {(x, "") for x in found} | {
            ("", x) for x in found
        }


def test_the_figure_of_a_speed_up_stands_past_its_interval() -> None:
    wide = {"GPT": Timing("GPT", "float32", 399, 44.0, 22.0, 2.0, 1.0, 6.0)}
    narrow = {"GPT": replace(wide["GPT"], speed_up_high=2.0)}
    for records in (wide, narrow):
        ((_, _, svg),) = plots.draw(records)[0]
        figure = re.search(r'x="([\d.]+)" y="([\d.]+)"[^>]*>2\.00 ×', svg)
        assert figure is not None
        lines = re.findall(r'<path d="M ([\d.]+) ([\d.]+) ?\nL ([\d.]+) ([\d.]+)', svg)
        level = [
            max(float(x0), float(x1)) for x0, y0, x1, y1 in lines if y0 == y1 and abs(float(y0) - float(figure[2])) < 9
        ]
        assert level
        assert max(level) < float(figure[1])  # the interval ends before the figure begins


def test_without_matplotlib_the_page_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = Text(html.render(FULL, TIMINGS))
    assert "Plots need matplotlib" in found.text
    assert "attention, bfloat16, T=4096" in found.text  # the numbers are there all the same
    assert "Plots need" not in Text(html.render(report_of(OUTPUT))).text


@given(st.text(max_size=40))
def test_a_page_is_utf8(name: str) -> None:
    html.render(report_of(OUTPUT, candidate=name)).encode("utf-8")
