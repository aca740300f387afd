"""What counts as read: files and connections of foreign code, and nothing of equivcheck's own."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from equivcheck.report.files import read_bounded
from equivcheck.runtime.file_access import Access, watched


def accessed(folder: Path, code: str) -> Access:
    """What foreign code in this folder uses, that this source stands for."""
    (folder / "foreign.py").write_text(code)
    with watched() as access:
        exec(compile(code, str(folder / "foreign.py"), "exec"), {})
    return access


def test_what_foreign_code_reads_is_noted_and_what_it_writes_is_a_product(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"1")
    os.utime(tmp_path / "data.bin", (1, 1))
    place = str(tmp_path)
    access = accessed(
        tmp_path,
        f"import os, torch\nopen({place!r} + '/data.bin', 'rb').close()\ntorch.save(torch.ones(1), {place!r} + '/made.pt')\n"
        f"torch.load({place!r} + '/made.pt')\nopen('/dev/null').close()\nos.open({place!r}, os.O_RDONLY)\n",
    )
    assert set(access.read) == {f"{place}/data.bin", f"{place}/made.pt"}
    assert access.read[f"{place}/data.bin"][0] < access.began_ns <= access.read[f"{place}/made.pt"][0]


def test_what_equivcheck_and_packages_read_for_themselves_is_not_noted(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"1")
    with watched() as access:
        read_bounded(tmp_path / "data.bin")
        sha256((tmp_path / "data.bin").read_bytes())
    assert set(access.read) == {str(tmp_path / "data.bin")}  # this test is foreign
    assert read_in_a_check(tmp_path) == set()


def read_in_a_check(folder: Path) -> set[str]:
    """What is noted where equivcheck itself opens a file, called by nobody's code."""
    code = (
        "from equivcheck.runtime.file_access import watched\n"
        "from equivcheck.report.files import read_bounded\n"
        "from pathlib import Path\n"
        f"with watched() as access:\n    read_bounded(Path({str(folder / 'data.bin')!r}))\nprint(*access.read)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_connection_is_noted(tmp_path: Path) -> None:
    access = accessed(
        tmp_path,
        "import socket\nwith socket.socket() as s:\n    s.settimeout(0.1)\n    s.connect_ex(('127.0.0.1', 9))\n",
    )
    assert access.connected == {"127.0.0.1"}


def test_what_is_seen_within_is_seen_around() -> None:
    with watched() as around:
        with watched() as within:
            within.connected.add("10.0.0.1")
        assert around.connected == {"10.0.0.1"}
