"""One stream and one text: failures are kept, commands to GitHub's runner are none, and excerpts count lines."""

import os
import threading

import pytest

from equivcheck.report.clean_text import clean
from equivcheck.report.printed import Excerpt, shown
from equivcheck.report.text_stream import Stream, put


@pytest.mark.parametrize("text", ["::error::x", " \t::error::x", "a\n ::warning::x", "a ##[error]x", "#::x\n##[x]"])
def test_no_text_of_a_strangers_is_a_command_to_githubs_runner(text: str) -> None:
    assert len(clean(text)) > len(text)  # nothing is left out, and something is spelled out
    for line in clean(text).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    assert clean("x[::2] and a::b") == "x[::2] and a::b"


def test_an_excerpt_counts_lines_with_and_without_an_end() -> None:
    for pieces, heading in (([b"a\nb"], "x (2 lines):"), ([b"a", b"\n"], "x (1 line):"), ([b"\r\n\n"], "x (2 lines):")):
        excerpt = Excerpt()
        for piece in pieces:
            excerpt.add(piece)
        assert excerpt.section("x")[0] == heading
    assert shown(Excerpt(), Excerpt()) == ""


def test_a_stream_keeps_its_first_failure_and_raises_nothing() -> None:
    stream = Stream(None, "nothing")
    assert stream.write("x") == 1
    assert str(stream.failure) == "it is closed"
    with pytest.raises(OSError, match="it is closed"):
        put(stream, "x")
    with pytest.raises(TypeError):
        stream.write(b"x")  # type: ignore[arg-type]


def test_a_pipe_that_does_not_block_takes_all_of_a_long_text() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    text, received = "ä" * 300_000, bytearray()

    def read() -> None:
        while data := os.read(out, 65536):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    put(Stream(into, "pipe"), text)
    os.close(into)
    reader.join()
    os.close(out)
    assert received.decode() == text
