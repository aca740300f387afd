"""`equivcheck bench`: a table, a record, plots, and exit statuses."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench_records import TINY, line, record

from equivcheck.bench import render
from equivcheck.bench import runner as benching
from equivcheck.bench.presets import PRESETS
from equivcheck.bench.record import Side, dumps, read
from equivcheck.cli import main


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset with a size that takes no time."""
    small = {name: replace(p, sizes=dict.fromkeys(p.sizes, (TINY,))) for name, p in PRESETS.items()}
    monkeypatch.setattr("equivcheck.bench.workloads.PRESETS", small)
    monkeypatch.setattr("equivcheck.bench.paired_timing._WARM_UP_S", 0.0)
    monkeypatch.setattr("equivcheck.bench.runner._LEAST_S", 0.02)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.main(["bench", "--device", "cpu", "--max-seconds", "0.1", *arguments])
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_the_command_tells_a_table_and_writes_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "record.json"
    status, out, err = run(capsys, "--json", str(file))
    assert status == 0
    assert "FlashCausalSelfAttention against equivcheck.attention:CausalSelfAttention (module, preset small)" in out
    assert "training step" in out
    assert re.search(r"^1 of 20: attention, float32.*: memory and kernels$", err, re.MULTILINE)
    assert re.search(r"^20 of 20: training step.*: times, round 4 of 4$", err, re.MULTILINE)
    assert len(read(file).lines) == 4


def test_bench_ends_in_1_where_it_trips_and_in_2_where_it_cannot_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record.json"
    now = record(line(), environment={"torch": torch.__version__})
    monkeypatch.setattr(benching, "bench", lambda *_, **__: now)
    for ratio, expected, words in ((2.0, 0, "no row is more than 25 % slower"), (4.0, 1, "slower: row: 2.00 ×")):
        file.write_text(dumps(record(line(ratio=ratio), environment={"torch": torch.__version__})))
        status, out, _ = run(capsys, "--against", str(file))
        assert (status, words in out) == (expected, True)
    file.write_text(dumps(record(line(), device="cuda:0 (H100)")))
    status, _, err = run(capsys, "--against", str(file))
    assert status == 2
    assert "was made on cuda:0" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tripwire", "25"), "--tripwire without --against"),
        (("--max-seconds", "-1"), "Invalid value for '--max-seconds': -1.0 is not in the range x>0"),
        (("--preset", "huge"), "huge"),
        (("--against", "missing.json"), "missing.json cannot be read"),
        (("--json", "no/such/folder/r.json"), "cannot be written"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert words in err
    assert "Traceback" not in err


def test_plots_are_drawn_and_need_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    gone = line("far", None, sizes={"T": 64}, reference=Side(refused="out of memory"))
    written = render.plot(record(line(), gone), tmp_path / "plots")
    assert [path.name for path in written] == ["speed.svg", "memory.svg"]
    assert "attention, float32, T=64: the original does not fit: out of memory" in render.plain(record(gone))
    for path in written:
        assert path.read_text().lstrip().startswith("<?xml")
        assert path.read_text().count("from here the original does not fit") == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run(capsys, "--plots", str(tmp_path / "more"))
    assert status == 2
    assert "pip install 'equivcheck[report]'" in err
