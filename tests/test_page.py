"""The page: it holds everything it shows, shows strange text as text, and can be read in a real browser by everybody."""

import json as stdlib_json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from browser import CHROMIUM, Page, browser
from hypothesis import given
from hypothesis import strategies as st
from test_report import BROKEN, CASE, GRADIENTS, OUTPUT, REPORTS, report_of

from equivcheck.api import verify
from equivcheck.errors import ReportError
from equivcheck.report import codec, html, junit, markdown, page, plots, schema, table, timings
from equivcheck.report.model import CheckResult, Counterexample, Deviation, Package, Report, Sensitivity, Timing

SCHEMA = stdlib_json.loads(schema.FILE.read_text())
VISITED = {
    "dtype": {"bfloat16": 3, "float32": 5},
    "regime": {"sharpened": 6, "tiny": 2},
    "mode": {"eval": 8},
    "length": {"up to 128": 1, "up to 16": 3, "longer": 4},
    "dtype × regime": {"bfloat16 × sharpened": 3, "float32 × sharpened": 3, "float32 × tiny": 2},
    "dtype × mode": {"bfloat16 × eval": 3, "float32 × eval": 5},
}
TIMINGS = {
    f"attention, {dtype}, T={T}": Timing("attention", dtype, T, T / 100, T / 250, 2.5, 2.4, 2.6, T * T, T * 64)
    for dtype in ("float32", "bfloat16")
    for T in (1024, 4096, 16384)
}
ONE_LENGTH = {"GPT $forward$ <b>": Timing("GPT", "float32", 399, 43.9, 25.9, 1.7, None, None, 2**30, 2**28, "a remark")}
FULL = report_of(
    replace(OUTPUT, visited=VISITED, by_dtype={"float32": 0.412, "bfloat16": 0.09}),
    replace(BROKEN, name="gradients", visited=VISITED, by_dtype={"float32": float("inf"), "float16": 0.73}),
    replace(GRADIENTS, name="errors", outcome="deviation", detail="declared: it runs past its block"),
    replace(GRADIENTS, name="compile", outcome="unsupported", unsupported=("compile: RuntimeError",)),
    sensitivity=Sensitivity(("a", "b"), ("b",), {"a": f"output on {CASE}"}, 3.0),
    deviations=(Deviation("errors", "it runs past its block", "2027-01-31", True),),
    kernels={"bfloat16, head size 64": "cudnn"},
    dtypes=("float32", "bfloat16"),
    dtypes_not_run={"float16": "RuntimeError: no"},
    packages={"einops": Package("0.8.1", "0" * 64)},
    not_covered=("what the network answered: 10.0.0.1",),
    candidate_file="pkg/fast.py",
    candidate_line=12,
)
SCRIPT = "<script>alert(1)</script>"
STRANGE = replace(
    FULL,
    candidate=f"pkg:{SCRIPT}",
    results=(
        *FULL.results,
        CheckResult(SCRIPT, "different", 1, counterexample=Counterexample(SCRIPT, f"</pre>{SCRIPT}", f"'{SCRIPT}\"")),
        CheckResult("\u0628\u062f\u064a\u0644 \u202eevil", "equivalent", 1, notes=("\u05d0\u05d1\u05d2",)),
        CheckResult("n" * 2000, "equivalent", 1, 0.1, 0.5, "c" * 2000, "w" * 2000, by_dtype={"d" * 2000: 0.5}),
    ),
    environment={SCRIPT: "x" * 2000},
    dtypes=(SCRIPT,),
    packages={SCRIPT: Package("1" * 2000)},
    not_covered=(SCRIPT, "f" * 2000),
)
MANY = report_of(*(replace(BROKEN, name=f"check-{number}") for number in range(500)))
EMPTY = report_of(complete=False, sensitivity=Sensitivity(), environment={}, sources={}, candidate="", reference="")
SPEED = {"full": TIMINGS, "strange": {"n" * 2000: ONE_LENGTH["GPT $forward$ <b>"], **ONE_LENGTH}}
PAGES = {"full": FULL, "strange": STRANGE, "many": MANY, "empty": EMPTY, "green": report_of(OUTPUT, GRADIENTS)}


class Text(HTMLParser):
    """What is to be read on a page, and the tags and addresses in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.tags, self.addresses = [], set(), []  # type: ignore[var-annotated]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = ("src", "href", "xlink:href", "action", "srcset", "data", "poster")
        self.addresses += [value or "" for name, value in attrs if name in named]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


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


def test_the_heat_map_has_a_class_for_every_ratio_and_none_for_what_was_not_measured() -> None:
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
    grid, told = page.pairs(FULL)
    assert told == [("dtype × regime", 3, 4), ("dtype × mode", 2, 2)]
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


# records of speed -----------------------------------------------------------------------------------------------------


def test_a_record_of_bench_is_read(tmp_path: Path) -> None:
    side = {"median_ms": 43.9, "above_bytes": 2**20, "refused": "", "kernels": []}
    line = {"work": "GPT", "dtype": "float32", "sizes": {"T": 399}, "reference": side, "candidate": side}
    none = {**side, "median_ms": None, "above_bytes": None, "refused": "out of memory"}
    late = {**line, "sizes": {"T": 65536}, "reference": none, "ratio": None}
    (tmp_path / "x.json").write_text(
        stdlib_json.dumps({"lines": [{**line, "ratio": 1.0, "low": 0.9, "high": 1.1}, late]})
    )
    assert timings.read(tmp_path / "x.json") == {
        "GPT, float32, T=399": Timing("GPT", "float32", 399, 43.9, 43.9, 1.0, 0.9, 1.1, 2**20, 2**20),
        "GPT, float32, T=65536": Timing(
            "GPT", "float32", 65536, None, 43.9, None, None, None, None, 2**20, "the reference does not fit"
        ),
    }


@pytest.mark.parametrize("device", ["nvidia-h100", "nvidia-h200"])
def test_a_record_of_the_project_s_own_benchmark_is_read_with_its_dtypes_lengths_and_memory(device: str) -> None:
    path = Path(__file__).parents[1] / "reports" / device / "benchmark.json"
    read = timings.read(path)
    sides: dict[str, dict[str, dict[str, object]]] = {}
    for one in stdlib_json.loads(path.read_text())["benchmarks"]:
        sides.setdefault(one["group"], {})[one["params"]["side"]] = one
    assert set(read) == set(sides)
    for name, timing in read.items():
        original, flash = (sides[name][side] for side in ("original", "flash"))
        row = original["params"]["row"]  # type: ignore[index]  # what the test was given, in words that no reader looks at
        assert f"dtype='{timing.dtype}'" in row
        assert f" T={timing.seq_len}," in row
        assert timing.reference_ms == pytest.approx(original["stats"]["median"] * 1000)  # type: ignore[index]
        assert timing.candidate_ms == pytest.approx(flash["stats"]["median"] * 1000)  # type: ignore[index]
        assert timing.speed_up == pytest.approx(timing.reference_ms / timing.candidate_ms)  # type: ignore[operator]
        memory = [side["extra_info"]["peak_above_resident_bytes"] for side in (original, flash)]  # type: ignore[index]
        assert [timing.reference_bytes, timing.candidate_bytes] == memory
        assert original["extra_info"]["device"] in timing.what  # type: ignore[index]
    text = Text(html.render(FULL, read)).text
    assert all(name in text for name in read)


@pytest.mark.parametrize("device", ["nvidia-h100", "nvidia-h200"])
def test_a_committed_page_shows_the_committed_record(device: str) -> None:
    folder = Path(__file__).parents[1] / "reports" / device
    text = Text((folder / "report.html").read_text()).text
    assert "unknown dtype" not in text
    assert all(name in text for name in timings.read(folder / "benchmark.json"))


def one_benchmark(side: str, **extra: object) -> dict[str, object]:
    return {"group": "step", "params": {"side": side}, "stats": {"median": 0.002}, "extra_info": extra}


def test_another_project_s_benchmark_says_its_dtype_and_length_or_is_refused(tmp_path: Path) -> None:
    said = {"dtype": "float16", "shape": {"T": 77}}
    path = tmp_path / "x.json"
    path.write_text(
        stdlib_json.dumps({"benchmarks": [one_benchmark("original", **said), one_benchmark("flash", **said)]})
    )
    assert timings.read(path) == {"step, float16, T=77": Timing("step", "float16", 77, 2.0, 2.0, 1.0)}
    path.write_text(stdlib_json.dumps({"benchmarks": [one_benchmark("original"), one_benchmark("flash")]}))
    with pytest.raises(ReportError, match="the benchmark group 'step' does not say its dtype and T; set"):
        timings.read(path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"lines": [{}]}', '{"benchmarks": []}', '{"lines": [1]}', "[" * 10**5]
)
def test_a_record_that_is_none_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ReportError) as caught:
        timings.read(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ReportError, match="cannot be read"):
        timings.read(tmp_path / "nowhere.json")


# the schema -----------------------------------------------------------------------------------------------------------


def test_the_schema_in_the_package_is_that_of_the_model() -> None:
    assert schema.schema() == SCHEMA, "run python -m equivcheck.report.schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [*PAGES.values()])
def test_every_report_fits_its_schema(report: Report) -> None:
    jsonschema.validate(stdlib_json.loads(codec.dumps(report)), SCHEMA)


def test_a_report_of_a_run_fits_the_schema_and_so_does_each_that_is_kept_on_the_way() -> None:
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


# in a real browser ----------------------------------------------------------------------------------------------------

in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed here (Debian: apt install chromium)"
)

# every text that can be seen, with what WCAG 2 makes of its colour on what lies behind it
CONTRAST = """
(() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
  const over = (a, b) => a.slice(0, 3).map((x, i) => x * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const [r, g, b] = c.map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4 });
                       return .2126 * r + .7152 * g + .0722 * b };
  const behind = e => { const stack = []; for (; e; e = e.parentElement) stack.push(parse(getComputedStyle(e).backgroundColor));
                        return stack.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]) };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, style = getComputedStyle(e);
    if (!walk.currentNode.data.trim() || !e.getClientRects().length || e.tagName === 'STYLE') continue;
    const paper = behind(e), ink = over(parse(e.closest('svg') ? style.fill : style.color), paper);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const told = [e.tagName, e.className.baseVal ?? e.className, walk.currentNode.data.trim().slice(0, 40), ratio];
    if (ratio < (large ? 3 : 4.5)) found.push(told);
  }
  return found;
})()
"""
# what assistive technology stumbles over, and what no reader can reach
STRUCTURE = """
(() => {
  const found = [], all = s => [...document.querySelectorAll(s)];
  const ids = all('[id]').map(e => e.id);
  if (new Set(ids).size !== ids.length) found.push('an id stands twice: ' + ids.filter((x, i) => ids.indexOf(x) !== i));
  if (!document.documentElement.lang || !document.title) found.push('no language or no title');
  if (all('main').length !== 1 || all('h1').length !== 1) found.push('not one main and one h1');
  all('[aria-labelledby]').forEach(e =>
    document.getElementById(e.getAttribute('aria-labelledby')) || found.push('a label is missing'));
  all('table').forEach(t => { if (!t.caption || !t.querySelector('th[scope]')) found.push('a table without caption or headings') });
  all('[role=img], [role=region]').forEach(e => e.getAttribute('aria-label') || found.push('a region without a name'));
  all('.wide').forEach(e => e.tabIndex === 0 || found.push('what scrolls cannot be reached with the keyboard'));
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push('the page is ' + wide + ' px too wide');
  return found;
})()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@in_a_browser
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it_to_everybody(tab: Page, tmp_path: Path, name: str, dark: bool, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.render(PAGES[name], SPEED.get(name)), encoding="utf-8")
    tab.show(file, width=width, dark=dark)
    assert tab.requested == [file.as_uri()]
    assert tab.complaints == []
    assert tab.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert tab.run(CONTRAST) == []
    assert tab.run(STRUCTURE) == []
    headings = tab.headings()
    assert headings[0][0] == 1
    assert all(below <= above + 1 for (above, _), (below, _) in pairwise(headings))
    assert all(text.strip() for _, text in headings)


@in_a_browser
def test_on_paper_it_is_dark_on_white_whatever_the_screen_likes(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.render(FULL), encoding="utf-8")
    tab.show(file, width=800, dark=True, paper=True)
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run(CONTRAST) == []


@in_a_browser
def test_the_checks_in_a_browser_can_fail(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    bad = "<p style='color:#999;background:#fff'>pale</p><div style='width:3000px'>wide</div><h4>deep</h4>"
    file.write_text(f"<!doctype html><title>x</title>{bad}<img src='https://example.invalid/x.png'>")
    tab.show(file)
    tab.run("new Promise(done => setTimeout(done, 200)).then(() => console.error('no'))")
    assert "https://example.invalid/x.png" in tab.requested
    assert tab.complaints
    assert [text for _, _, text, _ in tab.run(CONTRAST)] == ["pale"]
    assert len(tab.run(STRUCTURE)) == 3
    assert tab.headings() == [(4, "deep")]


@given(st.text(max_size=40))
def test_a_page_is_utf8(name: str) -> None:
    html.render(report_of(OUTPUT, candidate=name)).encode("utf-8")
