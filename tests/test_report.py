"""Reports as files and as text: read back exactly or refused, and the same verdict in every form."""

import io
import json as stdlib_json
import math
import os
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivcheck.errors import ReportError, UsageError
from equivcheck.report import codec, files, junit, markdown, table
from equivcheck.report.model import SCHEMA_VERSION, CheckResult, Counterexample, Package, Report, Sensitivity
from equivcheck.report.outcomes import CaseOutcome, Searched, kernels_by_dtype
from equivcheck.report.outputs import FORMATS, Format, format_named

CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"
OUTPUT = CheckResult("output", "equivalent", 60, 1.5, 0.412, CASE, "y[0, 2, 1]")
GRADIENTS = CheckResult("gradients", "equivalent", 40, 2.0, 0.73, CASE, "key.weight", notes=("2 zero gradients",))
BROKEN = replace(
    OUTPUT,
    outcome="different",
    worst_ratio=math.inf,
    counterexample=Counterexample(
        CASE, "3 of 12 values differ\nlargest: nan", f"equivcheck replay {CASE} a:A b:B", math.inf
    ),
)
SENSITIVE = Sensitivity(("mask_off_by_one", "scale_of_embedding"), (), {"mask_off_by_one": f"output on {CASE}"}, 3.0)


def report_of(*results: CheckResult, sensitivity: Sensitivity = SENSITIVE, **changes: object) -> Report:
    facts = {
        "reference": "a:A",
        "candidate": "b:B",
        "kind": "module",
        "device": "cpu",
        "profile": "gate",
        "seed": 0,
        "complete": True,
        "seconds": 41.23,
        "created": "2026-01-02T03:04:05+00:00",
        "environment": {"torch": "2.13.0", "python": "3.11"},
        "sources": {"candidate": "0" * 64},
    }
    return Report(results=results, sensitivity=sensitivity, **{**facts, **changes})  # type: ignore[arg-type]


TEXT = st.text(
    st.characters(codec=None), max_size=12
)  # lone surrogates and control characters too: strangers name things
RATIO = st.none() | st.floats(allow_nan=False)  # NaN is tested by itself: it is not equal to itself
COUNTEREXAMPLES = st.builds(Counterexample, TEXT, TEXT, TEXT, RATIO)
RESULTS = st.builds(
    CheckResult,
    name=TEXT,
    outcome=st.sampled_from(["equivalent", "different", "unsupported", "deviation"]),
    cases=st.integers(0, 999),
    seconds=st.floats(0, 999),
    worst_ratio=RATIO,
    worst_case=st.none() | TEXT,
    worst_where=st.none() | TEXT,
    counterexample=st.none() | COUNTEREXAMPLES,
    detail=TEXT,
    notes=st.tuples(TEXT),
    unsupported=st.tuples(TEXT),
    visited=st.dictionaries(TEXT, st.dictionaries(TEXT, st.integers(0, 9), max_size=2), max_size=2),
)
REPORTS = st.builds(
    report_of,
    RESULTS,
    RESULTS,
    candidate=TEXT,
    complete=st.booleans(),
    environment=st.dictionaries(TEXT, TEXT, max_size=2),
    packages=st.dictionaries(TEXT, st.builds(Package, TEXT, TEXT), max_size=2),
    not_covered=st.tuples(TEXT) | st.just(()),
    dtypes=st.tuples(TEXT) | st.just(()),
    dtypes_not_run=st.dictionaries(TEXT, TEXT, max_size=2),
    sensitivity=st.builds(Sensitivity, st.tuples(TEXT), st.tuples(TEXT) | st.just(()), st.dictionaries(TEXT, TEXT)),
)


@given(REPORTS)
def test_a_report_is_read_back_exactly(report: Report) -> None:
    assert codec.loads(codec.dumps(report)) == report


@given(REPORTS)
def test_the_text_of_a_report_is_strict_and_always_the_same(report: Report) -> None:
    text = codec.dumps(report)
    assert codec.dumps(codec.loads(text)) == text
    stdlib_json.loads(text, parse_constant=pytest.fail)


@given(REPORTS)
def test_every_form_can_be_made_of_every_report(report: Report) -> None:
    assert table.plain(report).splitlines()[-1] == table.verdict_line(report)
    ET.fromstring(junit.render(report))
    assert report.verdict in markdown.render(report)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_form_in_the_table_is_there(form: Format) -> None:
    assert format_named(form.name) is form
    assert form.function()(report_of(OUTPUT)).endswith("\n")
    assert form.again or form.option
    assert bool(form.option) == bool(form.help)


@given(REPORTS)
def test_no_form_carries_characters_that_drive_a_terminal(report: Report) -> None:
    for text in (table.plain(report), junit.render(report), markdown.render(report)):
        assert not {"\x1b", "\x00", "\r", "\u202e", "\x9b"} & set(text)
        text.encode("utf-8")


def test_the_reason_of_a_deviation_and_a_check_out_of_time_are_told_in_every_text() -> None:
    wanted = replace(BROKEN, outcome="deviation", detail="declared: the mask is wider")
    late = replace(GRADIENTS, detail="out of time after 3 of 40 cases")
    report = report_of(wanted, late, device="cuda:0 (NVIDIA H200)")
    assert "deviations:\n  output: declared: the mask is wider\n" in table.plain(report)
    assert "  gradients: out of time after 3 of 40 cases\n  gradients: 2 zero gradients\n" in table.plain(report)
    assert "## Deviations\n\n- `output`: declared: the mask is wider\n" in markdown.render(report)
    assert "declared: the mask is wider" in junit.render(report)
    assert "cuda:0 (NVIDIA H200, torch 2.13.0)" in table.verdict_line(report)


@pytest.mark.parametrize("device", ["nvidia-h100", "nvidia-h200"])
def test_a_report_of_version_2_is_read_and_says_nothing_that_it_did_not_record(device: str) -> None:
    report = codec.read(Path(__file__).parents[1] / "reports" / device / "report.json")
    assert (report.schema_version, report.verdict) == (2, "equivalent")
    assert (report.dtypes, report.packages, report.not_covered) == ((), {}, ())
    assert "dtypes" not in table.evidence_line(report)
    assert "dtypes" not in markdown.render(report)


def test_what_the_evidence_does_not_cover_is_told_in_every_text() -> None:
    what = "what the network answered: 10.0.0.1"
    report = report_of(OUTPUT, not_covered=(what,), dtypes=("float32", "bfloat16"))
    assert f"not covered by the evidence:\n  {what}\n" in table.plain(report)
    assert f"## Not covered by the evidence\n\n- {what}\n" in markdown.render(report)
    assert what in junit.render(report)
    assert "dtypes float32 bfloat16, 60 cases, torch 2.13.0" in table.evidence_line(report)


def test_kernels_are_the_data_of_the_check_of_them_by_dtype() -> None:
    backend = Searched()
    for number, (dtype, kernels) in enumerate([("float32", "efficient"), *[("bfloat16", "flash at 32, cudnn")] * 3]):
        backend.add(CaseOutcome.of(CaseOutcome(f"case {number}", data={dtype: kernels}).plain()))
    backend.add(CaseOutcome("case 4", notes=("float16: math",)))
    found = kernels_by_dtype(backend)
    assert list(found.items()) == [("bfloat16", "flash at 32, cudnn"), ("float32", "efficient")]  # of most cases first
    assert kernels_by_dtype(None) == {}


def test_nan_survives_the_file_and_the_file_says_so_in_words(tmp_path: Path) -> None:
    report_of(replace(OUTPUT, worst_ratio=math.nan)).save(tmp_path / "report.json")
    assert math.isnan(Report.load(tmp_path / "report.json").results[0].worst_ratio or 0.0)
    assert '"worst_ratio": "nan"' in (tmp_path / "report.json").read_text()


def test_readers_of_the_file_find_the_verdict_in_it() -> None:
    content = stdlib_json.loads(codec.dumps(report_of(BROKEN)))
    assert (content["verdict"], content["equivalent"], content["schema_version"]) == (
        "different",
        False,
        SCHEMA_VERSION,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"outcome": "different"', '"outcome": "equivalent"'),
        ('"verdict": "different"', '"verdict": "equivalent"'),
        ('"equivalent": false', '"equivalent": true'),
        ('"seed": 0', '"seed": 1'),
        ('"complete": true', '"complete": false'),
        ('"worst_ratio": "inf"', '"worst_ratio": 1e999'),
        ('"notes": []', '"notes": ["harmless"]'),
    ],
)
def test_an_edited_file_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "report.json"
    codec.write(report_of(BROKEN), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ReportError, match="changed by hand"):
        codec.read(path)


def test_a_file_in_other_white_space_is_the_same_report() -> None:
    text = codec.dumps(report_of(BROKEN))
    assert codec.loads(stdlib_json.dumps(stdlib_json.loads(text))) == codec.loads(text.replace("\n", "\r\n"))


def test_a_file_that_is_cut_short_anywhere_is_refused() -> None:
    text = codec.dumps(report_of(BROKEN))
    for length in range(len(text) - 2):  # the closing brace, then a line feed
        with pytest.raises(ReportError, match="truncated, or not JSON"):
            codec.loads(text[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "truncated, or not JSON"),
        ("[1, 2]", "not a report"),
        ('{"schema_version": 1}', "no integrity"),
        ('{"results": []}', "no schema_version"),
        ('{"schema_version": "1"}', "no schema_version"),
        ('{"schema_version": 999, "integrity": ""}', "upgrade equivcheck"),
        ('{"schema_version": 1, "schema_version": 2}', "twice"),
        ('{"schema_version": NaN}', "NaN"),
        ("[" * 100_000, "truncated, or not JSON"),
        ("\N{SNOWMAN}", "truncated, or not JSON"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=words) as caught:
        codec.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def signed(content: dict[str, object]) -> str:
    """A file with a hash that is right, as a forger or another version would write it."""
    content.pop("integrity", None)
    return stdlib_json.dumps({**content, "integrity": codec._integrity(content)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": "0"}, "'0' where int belongs"),
        ({"seed": True}, "True where int belongs"),
        ({"complete": 1}, "1 where bool belongs"),
        ({"seconds": "soon"}, "soon"),
        ({"results": {}}, "belongs"),
        ({"results": [[]]}, "belongs"),
        ({"results": [{"name": "output", "cases": 1}]}, "without outcome"),
        ({"results": [{"name": "output", "cases": 1, "outcome": "fine"}]}, "'fine' is not one of"),
        ({"mood": "good"}, "has no mood"),
    ],
)
def test_a_file_with_a_right_hash_and_wrong_content_is_refused(change: dict[str, object], words: str) -> None:
    content = {**stdlib_json.loads(codec.dumps(report_of(OUTPUT))), **change}
    with pytest.raises(ReportError, match=words):
        codec.loads(signed(content))


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such file"):
        Report.load(tmp_path / "nowhere.json")
    with pytest.raises(ReportError, match="cannot be read"):
        Report.load(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ReportError, match="not UTF-8"):
        Report.load(tmp_path / "model.pt")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    codec.write(report_of(OUTPUT), path)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        codec.write(report_of(BROKEN), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").touch()
    (tmp_path / "link.json").symlink_to("real.json")
    codec.write(report_of(OUTPUT), tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert Report.load(tmp_path / "real.json") == report_of(OUTPUT)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    files.probe_file(pipe)
    files.write_whole(pipe, "words")
    reader.join(10)
    assert heard == ["words"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (
            report_of(OUTPUT, GRADIENTS),
            "equivalent: 100 cases, 2 checks, cpu (torch 2.13.0), 2 of 2 planted faults caught, 41.2 s",
        ),
        (report_of(BROKEN, GRADIENTS), "different: output, 100 cases, 2 checks, cpu (torch 2.13.0), 41.2 s"),
        (
            report_of(BROKEN, GRADIENTS, complete=False),
            "different: output, 100 cases, 2 checks, cpu (torch 2.13.0), partial: the run was cut short, 41.2 s",
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
            "equivalent: 100 cases, 2 checks (1 deviation, 1 unsupported), cpu, 2 of 2 planted faults caught, 41.2 s",
        ),
    ],
)
def test_the_verdict_is_one_line_and_the_last(report: Report, verdict: str) -> None:
    assert table.plain(report).splitlines()[-1] == verdict
    assert verdict.partition(":")[0] == report.verdict


def test_the_plain_table_is_aligned_and_tells_everything() -> None:
    report = report_of(
        BROKEN,
        replace(GRADIENTS, unsupported=("float16: RuntimeError",)),
        sensitivity=Sensitivity(("a", "b", "c"), ("c",)),
    )
    assert table.plain(report) == (
        "b:B against a:A (module, profile gate, seed 0)\n"
        "\n"
        "check      outcome     cases  worst ratio  where\n"
        f"output     different      60          inf  y[0, 2, 1] of {CASE}\n"
        f"gradients  equivalent     40         0.73  key.weight of {CASE}\n"
        "\n"
        "counterexamples:\n"
        f"  output: {CASE} (ratio inf)\n"
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
        "sensitivity: 3 faults planted, 2 caught; survived: c\n"
        "different: output, 100 cases, 2 checks, cpu (torch 2.13.0), 41.2 s\n"
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
    assert shown.rstrip().splitlines()[-1].startswith("\x1b[1mdifferent: ") or "different: " in shown.splitlines()[-1]


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


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (report_of(OUTPUT, GRADIENTS), {"tests": "2", "failures": "0", "errors": "0", "skipped": "0"}),
        (report_of(BROKEN, GRADIENTS), {"tests": "2", "failures": "1", "errors": "0", "skipped": "0"}),
        (
            report_of(OUTPUT, replace(GRADIENTS, outcome="unsupported", unsupported=("all of float16",))),
            {"tests": "2", "failures": "0", "errors": "0", "skipped": "1"},
        ),
        (
            report_of(OUTPUT, sensitivity=Sensitivity(("a",), ("a",))),
            {"tests": "2", "failures": "1", "errors": "0", "skipped": "0"},
        ),
        (report_of(OUTPUT, complete=False), {"tests": "2", "failures": "0", "errors": "1", "skipped": "0"}),
        (report_of(), {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}),
    ],
)
def test_junit_has_a_case_per_check_and_is_green_where_the_verdict_is(report: Report, counts: dict[str, str]) -> None:
    suite = ET.fromstring(junit.render(report)).find("testsuite")
    assert suite is not None
    assert {key: suite.get(key) for key in counts} == counts
    assert (counts["failures"] == counts["errors"] == "0") is report.equivalent
    assert [case.get("name") for case in suite.iter("testcase")][: len(report.results)] == [
        result.name for result in report.results
    ]


def test_junit_carries_ratio_seed_and_replay() -> None:
    case = ET.fromstring(junit.render(report_of(BROKEN, seed=7))).find(".//testcase")
    assert case is not None
    properties = {element.get("name"): element.get("value") for element in case.iter("property")}
    assert properties["worst_ratio"] == "inf"
    assert properties["seed"] == "7"
    assert properties["replay"] == f"equivcheck replay {CASE} a:A b:B"
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "3 of 12 values differ"
    assert "largest: nan" in (failure.text or "")


def test_markdown_shows_strange_names_as_they_are() -> None:
    name = "a|b`c``<script>alert(1)</script>"
    message = "```\n# not a heading\n```"
    strange = replace(BROKEN, name=name, counterexample=Counterexample(CASE, message, "equivcheck replay"))
    text = markdown.render(report_of(strange, replace(GRADIENTS, notes=("<b>@someone</b> a_b_c",))))
    row = next(line for line in text.splitlines() if line.startswith("| ```a"))
    assert row.startswith("| ```a\\|b`c``<script>alert(1)</script>``` | different | 60 |")
    assert row.replace("\\|", "").count("|") == 6
    assert "````text\n```\n# not a heading\n```\n````" in text
    assert "&lt;b>@<!-- -->someone&lt;/b> a\\_b\\_c" in text


def test_markdown_begins_with_the_verdict() -> None:
    assert markdown.render(report_of(BROKEN)).startswith("# equivcheck: different\n\n**different**: output, 60 cases")


def test_every_refusal_of_a_file_is_a_usage_error() -> None:
    assert issubclass(ReportError, UsageError)
