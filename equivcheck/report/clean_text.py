"""Text in which no character drives a terminal, breaks XML or commands GitHub's runner."""

import re
import unicodedata

__all__ = ["clean", "one_line"]

_COMMAND = re.compile(r"(?m)^(\s*)(:)(?=:)|()(#)(?=#\[)")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """`text` with every character that could drive a terminal, or that XML cannot hold, as an escape.

    The beginning of a command to GitHub's runner is escaped, too: `::` at the beginning of a line, and `##[` anywhere.
    """
    text = _COMMAND.sub(lambda match: f"{match[1] or ''}\\x{ord(match[2] or match[4]):02x}", text)
    return "".join(character if _harmless(character) else _escape(character) for character in text)


def one_line(text: str) -> str:
    """`text` in one line, cleaned."""
    return clean(" ".join(text.split()))


def _harmless(character: str) -> bool:
    if character in "\n\t":
        return True
    return unicodedata.category(character) not in ("Cc", "Cs", "Cn") and character not in _BIDI


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
