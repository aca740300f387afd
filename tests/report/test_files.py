"""Files are written whole or not at all, and read up to a bound."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from sample_reports import BROKEN, OUTPUT, report_of

from equivcheck.report import codec, files
from equivcheck.report.files import read_bounded
from equivcheck.report.model import Report


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


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bounded(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_bounded(tmp_path / "x", 4)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_up_to_its_bound_and_one_without_a_writer_is_empty(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert read_bounded(pipe) == b""

    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # without one, nobody can open it to write
    writer = os.open(pipe, os.O_WRONLY)

    def write_for_ever() -> None:
        with suppress(BrokenPipeError):
            while True:
                os.write(writer, b"0" * 2**16)

    thread = threading.Thread(target=write_for_ever, daemon=True)
    thread.start()
    with pytest.raises(OSError, match="larger than 0 MiB"):
        read_bounded(pipe, 2**17)
    os.close(reader)
    thread.join(timeout=30)
    assert not thread.is_alive()
    os.close(writer)
