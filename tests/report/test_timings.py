"""Records of speed: those of bench and of pytest-benchmark are read, and others are refused."""

import json as stdlib_json
from pathlib import Path

import pytest
from page_text import Text
from sample_reports import FULL

from equivcheck.errors import ReportError
from equivcheck.report import html, timings
from equivcheck.report.model import Timing


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
def test_the_projects_own_benchmark_is_read_in_full(device: str) -> None:
    path = Path(__file__).parents[2] / "reports" / device / "benchmark.json"
    read = timings.read(path)
    sides: dict[str, dict[str, dict[str, object]]] = {}
    for one in stdlib_json.loads(path.read_text())["benchmarks"]:
        sides.setdefault(one["group"], {})[one["params"]["side"]] = one
    assert len(read) >= 2
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
    folder = Path(__file__).parents[2] / "reports" / device
    text = Text((folder / "report.html").read_text()).text
    assert "unknown dtype" not in text
    names = list(timings.read(folder / "benchmark.json"))
    assert len(names) >= 2
    assert [name for name in names if name not in text] == []


def one_benchmark(side: str, **extra: object) -> dict[str, object]:
    return {"group": "step", "params": {"side": side}, "stats": {"median": 0.002}, "extra_info": extra}


def test_a_benchmark_says_its_dtype_and_length_or_is_refused(tmp_path: Path) -> None:
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
