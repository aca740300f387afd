"""Rules of a domain in words: where a side runs, and what it refuses."""

import re

__all__ = ["outside_in_words", "rule_in_words"]

_SET = re.compile(r"(?P<name>\w+) (?P<sign>in|not in) \((?P<values>[^()]*)\)")
_COMPARED = re.compile(r"(?P<left>\w+(?: [%*] \w+)?) (?P<sign>==|!=|<=|>=|<|>) (?P<right>[\w']+)")
_FLAG = re.compile(r"(?P<sign>not )?(?P<name>\w+)")
_OPPOSITE = {
    "==": "!=",
    "!=": "==",
    "<=": ">",
    ">": "<=",
    ">=": "<",
    "<": ">=",
    "in": "not in",
    "not in": "in",
}


def rule_in_words(rule: str) -> str:
    """A rule, with its sets written as sets: `head_size in {16, 32}`."""
    return _SET.sub(lambda match: f"{match['name']} {match['sign']} {{{_plain(match['values'])}}}", rule)


def outside_in_words(rule: str) -> str:
    """The cases outside of a rule: `head_size not in {16, 32}`."""
    if match := _SET.fullmatch(rule):
        return f"{match['name']} {_OPPOSITE[match['sign']]} {{{_plain(match['values'])}}}"
    if match := _COMPARED.fullmatch(rule):
        return f"{match['left']} {_OPPOSITE[match['sign']]} {match['right']}"
    if match := _FLAG.fullmatch(rule):
        return match["name"] if match["sign"] else f"not {match['name']}"
    return f"cases without {rule_in_words(rule)}"


def _plain(values: str) -> str:
    return values.replace("'", "")
