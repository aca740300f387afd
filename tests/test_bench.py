"""`equivcheck bench`: rows for every kind, records that come back, plots, and a gate that trips on what is slower twice."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.bench import render
from equivcheck.bench import runner as benching
from equivcheck.bench.presets import PRESETS, Size
from equivcheck.bench.record import Line, Record, Side, coarse, comparable, dumps, read, slower
from equivcheck.bench.runner import RowMeasured, against, bench
from equivcheck.bench.workloads import flops, makes, rows
from equivcheck.cli import main
from equivcheck.errors import ReportError, UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

TINY = Size(2, 16, 2, 8, 1, 16, 11, 0.1)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset with a size that takes no time."""
    small = {name: replace(p, sizes=dict.fromkeys(p.sizes, (TINY,))) for name, p in PRESETS.items()}
    monkeypatch.setattr("equivcheck.bench.workloads.PRESETS", small)
    monkeypatch.setattr("equivcheck.bench.paired_timing._WARM_UP_S", 0.0)
    monkeypatch.setattr("equivcheck.bench.runner._LEAST_S", 0.02)


def line(name: str = "row", ratio: float | None = 2.0, width: float = 0.01, **changes: Any) -> Line:
    bounds = {} if ratio is None else {"low": ratio * (1 - width), "high": ratio * (1 + width)}
    side = Side(kernels=("flash",), median_ms=1.0, lower_ms=0.9, upper_ms=1.1, repetitions=5, above_bytes=2**20)
    made = Line(name, "attention", "float32", {"T": 16}, side, side, ratio, standard_error=0.001, **bounds)
    return replace(made, **changes)


def record(*lines: Line, **changes: Any) -> Record:
    made = Record("slow", "fast", "module", "cpu", "small", lines, True, 1.0, "now", {"torch": "2.13.0+cpu"})
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("pair", "works"),
    [
        ((CausalSelfAttention, FlashCausalSelfAttention), 4),
        ((attend, attend), 2),
        ((GPT, GPT), 2),
        ((GPT, replace_attention_with_flash_attention), 2),
    ],
)
def test_every_kind_of_pair_is_measured(pair: tuple[Any, Any], works: int) -> None:
    found = bench(*pair, device="cpu", max_seconds=0.1)
    assert found.complete
    assert len(found.lines) == works
    for row in found.lines:
        assert row.ratio is not None
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.ratio <= row.high
        for side in (row.reference, row.candidate):
            assert side.kernels
            assert side.repetitions >= 5
            assert side.above_bytes
            assert side.flops_per_s


def test_the_fused_side_runs_its_kernel_and_needs_less_memory() -> None:
    row = next(row for row in rows("small", (), "module") if row.work == "attention")
    row = replace(row, size=replace(TINY, T=64, block_size=64))
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    measuring = RowMeasured(subject, row)
    assert measuring.line is None
    measuring.look()
    assert measuring.line is None  # before anything is timed
    for _ in range(2):
        measuring.round(0.02)
    found = measuring.line
    assert found is not None
    assert found.ratio is not None
    assert (found.reference.kernels, found.candidate.kernels) == (("spelled out",), ("flash",))
    assert (found.candidate.above_bytes or 0) < (found.reference.above_bytes or 0)


class TooLarge(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("planted")


def test_what_does_not_fit_is_a_result_beside_the_other_ones_time() -> None:
    found = bench(CausalSelfAttention, TooLarge, device="cpu", max_seconds=0.1)
    assert found.complete
    for row in found.lines:
        assert row.candidate.refused == "planted"
        assert row.candidate.median_ms is None
        assert row.reference.median_ms is not None
        assert row.ratio is None
    assert "does not fit" in render.plain(found)


def test_backward_passes_run_where_they_are_timed() -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    needed = {}
    for row in rows("small", (), "module"):
        for make in makes(subject, row):
            make()(0)
        needed[row.work] = flops(row, "module")
    assert needed["attention"] < needed["attention + backward"]
    assert needed["GPT"] < needed["training step"]


def test_dtypes_presets_and_kinds_that_do_not_fit_are_told() -> None:
    with pytest.raises(UsageError, match="allowed are float32, bfloat16, float16"):
        list(rows("small", ("int8",), "module"))
    with pytest.raises(UsageError, match="unknown preset 'large': allowed are"):
        list(rows("large", (), "module"))
    with pytest.raises(UsageError, match="times attention alone, and the pair is a model"):
        list(rows("long", (), "model"))


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    made = record(line(), line("other", None))
    (tmp_path / "record.json").write_text(dumps(made))
    assert read(tmp_path / "record.json") == made


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "schema version None"),
        (json.dumps({"schema_version": 99, "lines": []}), "schema version 99"),
        (json.dumps({"schema_version": 1, "lines": [{}]}), "is no record"),
        (json.dumps({"schema_version": 1, "lines": [], "extra": 1}), "is no record"),
    ],
)
def test_a_file_that_is_no_record_is_told_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(ReportError, match=told):
        read(file)
    with pytest.raises(ReportError, match="cannot be read"):
        read(tmp_path / "missing.json")


def test_only_the_same_device_and_minor_version_of_torch_are_compared() -> None:
    before = record(line())
    comparable(before, device="cpu", torch_version="2.13.5", where="r.json")
    with pytest.raises(UsageError, match="was made on cpu, and this is cuda:0"):
        comparable(before, device="cuda:0 (H100)", torch_version="2.13.0", where="r.json")
    with pytest.raises(UsageError, match=r"was made with torch 2\.13\.0"):
        comparable(before, device="cpu", torch_version="2.12.0", where="r.json")


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "trips"), [(2.0, False), (1.7, False), (2.0 / 1.4, True), (4.0, False)])
def test_the_tripwire_is_the_ratio_against_the_records(now: float, trips: bool) -> None:
    assert bool(list(slower(record(line()), {"row": line(ratio=now)}, 25.0))) == trips


def test_intervals_that_are_wide_neither_trip_nor_pass_for_a_judgement() -> None:
    wide = {"row": line(ratio=1.4, width=0.5)}
    assert list(slower(record(line()), wide, 25.0)) == []
    assert coarse(record(line()), wide, 25.0) == ["row"]
    with pytest.raises(UsageError, match="times vary too much"):
        against(record(line()), record(*wide.values()), "r.json", 25.0, lambda names: record())


def test_a_candidate_that_no_longer_fits_trips() -> None:
    gone = line(ratio=None, candidate=Side(refused="out of memory"))
    ((name, told),) = slower(record(line()), {"row": gone}, 25.0)
    assert name == "row"
    assert "no longer fits: out of memory" in told


def test_only_what_is_slower_twice_trips() -> None:
    before, slow = record(line()), record(line(ratio=1.0))
    asked: list[list[str]] = []

    def again(found: Record) -> Any:
        def measure(names: list[str]) -> Record:
            asked.append(names)
            return found

        return measure

    assert against(before, slow, "r.json", 25.0, again(record(line()))) == ([], [])
    (told,), _ = against(before, slow, "r.json", 25.0, again(slow))
    assert "100 % slower, and 25 % is allowed" in told
    assert asked == [["row"], ["row"]]


def test_rows_that_were_timed_by_another_clock_are_not_compared() -> None:
    """A GPU that waits for its host is timed as the host by some, and as the GPU by others."""
    before = record(line(clock="CUDA events", ratio=4.0), line("whole", clock="wall clock, synchronised"))
    now = record(line(clock="CUDA events, launched before"), line("whole", clock="wall clock, synchronised"))
    told, untold = against(before, now, "r.json", 25.0, lambda names: record())
    assert (told, untold) == ([], ["timed by another clock in r.json: row"])
    with pytest.raises(UsageError, match=r"r\.json was timed by another clock \(CUDA events\) .* make it again"):
        against(record(before.lines[0]), now, "r.json", 25.0, lambda names: record())


def test_records_without_a_common_row_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="no row in common"):
        against(record(line("a")), record(line("b")), "r.json", 25.0, lambda names: record())


# --- the command -----------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.main(["bench", "--device", "cpu", "--max-seconds", "0.1", *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_command_tells_a_table_and_writes_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "record.json"
    status, out, err = run(capsys, "--json", str(file))
    assert status == 0
    assert "FlashCausalSelfAttention against equivcheck.attention:CausalSelfAttention (module, preset small)" in out
    assert "training step" in out
    assert re.search(r"^1 of 20: attention, float32.*: memory and kernels$", err, re.MULTILINE)
    assert re.search(r"^20 of 20: training step.*: times, round 4 of 4$", err, re.MULTILINE)
    assert len(read(file).lines) == 4


def test_the_command_ends_in_1_where_it_trips_and_in_2_where_it_cannot_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record.json"
    now = record(line(), environment={"torch": torch.__version__})
    monkeypatch.setattr(benching, "bench", lambda *_, **__: now)
    for ratio, expected, told in ((2.0, 0, "no row is more than 25 % slower"), (4.0, 1, "slower: row: 2.00 ×")):
        file.write_text(dumps(record(line(ratio=ratio), environment={"torch": torch.__version__})))
        status, out, _ = run(capsys, "--against", str(file))
        assert (status, told in out) == (expected, True)
    file.write_text(dumps(record(line(), device="cuda:0 (H100)")))
    status, _, err = run(capsys, "--against", str(file))
    assert status == 2
    assert "was made on cuda:0" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--tripwire", "25"), "--tripwire without --against"),
        (("--max-seconds", "-1"), "Invalid value for '--max-seconds': -1.0 is not in the range x>0"),
        (("--preset", "huge"), "huge"),
        (("--against", "missing.json"), "missing.json cannot be read"),
        (("--json", "no/such/folder/r.json"), "cannot be written"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert told in err
    assert "Traceback" not in err


def test_plots_are_drawn_and_need_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    gone = line("far", None, sizes={"T": 64}, reference=Side(refused="out of memory"))
    written = render.plot(record(line(), gone), tmp_path / "plots")
    assert [path.name for path in written] == ["speed.svg", "memory.svg"]
    assert "from here the original does not fit" in render.plain(record(gone)) or written
    for path in written:
        assert path.read_text().lstrip().startswith("<?xml")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run(capsys, "--plots", str(tmp_path / "more"))
    assert status == 2
    assert "pip install 'equivcheck[report]'" in err
