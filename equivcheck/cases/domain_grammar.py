"""The grammar of a domain: an expression of fields of a case, read by a list of allowed forms and never run as code."""

import ast
import difflib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.domain_fields import DEFINED_BY, FLAG, NAMES, NUMBER, TEXT, WORDS, value_of
from equivcheck.errors import UsageError

__all__ = ["Node", "parse"]

_LONGEST = 4000
_LARGEST = 2**63
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_LIST = "a list"
_ALLOWED = "names, literals, lists, comparisons, in, not in, and, or, not, + - * / // % and brackets"


@dataclass(frozen=True, eq=False)
class Node:
    """A part of an expression.

    Attributes:
        text: As the user wrote it.
        kind: The type of its value.
        names: The names that it depends on, those that define `n_embd` in its place.
        constants: The numbers in it.
        equates: Whether an `==` or `in` in it binds several names.
        value: Its value where some names are known; None if that is open, and if it divides by zero.
        parts: The sides of an `and`; of any other part itself alone.
    """

    text: str
    kind: str
    names: frozenset[str]
    constants: frozenset[float]
    equates: bool
    value: Callable[[Mapping[str, Any]], Any]
    parts: "tuple[Node, ...]" = ()


def parse(text: str) -> tuple[Node, ...]:
    """The conditions of an expression, all of which must hold.

    Args:
        text: The expression, in one line.

    Raises:
        UsageError: It has another form: the message names the place, what is allowed, and what to do.
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes = text.encode()

    def read(self) -> tuple[Node, ...]:
        if len(self._text) > _LONGEST:
            raise UsageError(f"domain: {len(self._text)} characters were given, {_LONGEST} are allowed: shorten it")
        try:
            tree = ast.parse(self._text, mode="eval")
            node = self._node(tree.body)
        except SyntaxError as error:
            at = max(1, min(error.offset or 1, len(self._text) + 1))
            rest = self._text[at - 1 : at + 19].strip() or "its end"
            raise UsageError(
                f"domain {self._text!r}: {error.msg} at column {at}, at {rest!r}; allowed are {_ALLOWED}, "
                "as in 'head_size in (64, 128)'"
            ) from None
        except (ValueError, RecursionError, MemoryError):
            raise UsageError(
                f"domain {self._text[:60]!r}: it cannot be read, as it nests too deep or has a character that no "
                f"expression has; allowed are {_ALLOWED}"
            ) from None
        self._must_be(FLAG, node, tree.body, "a domain is a condition: compare it, as in 'head_size <= 128'")
        return node.parts or (node,)

    def _refusal(self, at: ast.AST, message: str) -> UsageError:
        column = len(self._bytes[: getattr(at, "col_offset", 0)].decode()) + 1
        return UsageError(f"domain {self._text!r}: at column {column}, {self._source(at)!r}: {message}")

    def _source(self, at: ast.AST) -> str:
        start, end = getattr(at, "col_offset", 0), getattr(at, "end_col_offset", None)
        return self._bytes[start:end].decode()

    def _must_be(self, kind: str, node: Node, at: ast.AST, why: str) -> None:
        if node.kind != kind:
            raise self._refusal(at, f"it is {node.kind}, and {kind} is allowed; {why}")

    def _made(self, at: ast.AST, kind: str, made_of: Sequence[Node], value: Any, **more: Any) -> Node:
        fields: dict[str, Any] = {
            "text": self._source(at),
            "kind": kind,
            "names": frozenset().union(*(part.names for part in made_of)),
            "constants": frozenset().union(*(part.constants for part in made_of)),
            "equates": any(part.equates for part in made_of),
            "value": value,
        }
        return Node(**(fields | more))

    def _node(self, at: ast.expr) -> Node:
        match at:
            case ast.Name():
                return self._name(at)
            case ast.Constant():
                return self._constant(at)
            case ast.BoolOp():
                return self._joined(at)
            case ast.UnaryOp(op=ast.Not()):
                part = self._node(at.operand)
                self._must_be(FLAG, part, at.operand, "not stands before a condition")
                return self._made(at, FLAG, [part], lambda v: None if (x := part.value(v)) is None else not x)
            case ast.UnaryOp(op=ast.USub()):
                part = self._node(at.operand)
                self._must_be(NUMBER, part, at.operand, "- stands before a number")
                return self._made(at, NUMBER, [part], lambda v: None if (x := part.value(v)) is None else -x)
            case ast.BinOp() if type(at.op) in _ARITHMETIC:
                return self._calculated(at)
            case ast.Compare() if all(type(op) in _COMPARISONS for op in at.ops):
                return self._compared(at)
        raise self._refusal(at, f"{type(at).__name__} is not allowed; allowed are {_ALLOWED}")

    def _name(self, at: ast.Name) -> Node:
        if at.id not in NAMES:
            near = difflib.get_close_matches(at.id, NAMES, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise self._refusal(at, f"unknown name; {meant}Allowed are {', '.join(NAMES)}")
        names = frozenset(DEFINED_BY.get(at.id, (at.id,)))
        return Node(at.id, NAMES[at.id], names, frozenset(), False, lambda values: value_of(at.id, values))

    def _constant(self, at: ast.Constant) -> Node:
        value = at.value
        if isinstance(value, bool):
            return self._made(at, FLAG, [], lambda _: value)
        if isinstance(value, str):
            return self._made(at, TEXT, [], lambda _: value)
        if isinstance(value, int | float) and abs(value) < _LARGEST:
            return self._made(at, NUMBER, [], lambda _: value, constants=frozenset([float(value)]))
        raise self._refusal(at, "no such literal is allowed: write a number below 2**63, a text, True or False")

    def _joined(self, at: ast.BoolOp) -> Node:
        parts = [self._node(value) for value in at.values]
        for part, value in zip(parts, at.values, strict=True):
            self._must_be(FLAG, part, value, "and, or stand between conditions, such as 'seq_len >= 16'")
        both = isinstance(at.op, ast.And)

        def joined(values: Mapping[str, Any]) -> bool | None:
            open_one = False
            for part in parts:
                value = part.value(values)
                if value is None:
                    open_one = True
                elif value is not both:
                    return not both
            return None if open_one else both

        sides = tuple(side for part in parts for side in (part.parts or (part,))) if both else ()
        return self._made(at, FLAG, parts, joined, parts=sides)

    def _calculated(self, at: ast.BinOp) -> Node:
        parts = [self._node(at.left), self._node(at.right)]
        for part, value in zip(parts, (at.left, at.right), strict=True):
            self._must_be(NUMBER, part, value, "+ - * / // % stand between numbers")
        left, right = (part.value for part in parts)
        if isinstance(at.op, _DIVISIONS) and not parts[1].names and not right({}):
            raise self._refusal(at, "it divides by zero: divide by another number")
        function = _ARITHMETIC[type(at.op)]

        def calculated(values: Mapping[str, Any]) -> Any:
            one, other = left(values), right(values)
            if one is None or other is None:
                return None
            return function(one, other)

        return self._made(at, NUMBER, parts, calculated)

    def _compared(self, at: ast.Compare) -> Node:
        sides = [at.left, *at.comparators]
        nodes = [
            self._elements(side) if isinstance(side, ast.Tuple | ast.List) else [self._node(side)] for side in sides
        ]
        tests: list[tuple[Callable[[Any, Any], bool], int]] = []
        for number, op in enumerate(at.ops):
            inside = isinstance(op, ast.In | ast.NotIn)
            self._check_types(op, sides[number], nodes[number][0], sides[number + 1], nodes[number + 1])
            if isinstance(sides[number], ast.Tuple | ast.List):
                raise self._refusal(sides[number], f"{_LIST} is allowed to the right of in and not in alone")
            if inside is not isinstance(sides[number + 1], ast.Tuple | ast.List):
                allowed = "a list such as (64, 128)" if inside else "a single value, or in"
                raise self._refusal(sides[number + 1], f"{allowed} is allowed here")
            tests.append((_COMPARISONS[type(op)], number))
        lists = [isinstance(side, ast.Tuple | ast.List) for side in sides]

        def value_at(number: int, values: Mapping[str, Any]) -> Any:
            each = [node.value(values) for node in nodes[number]]
            if not lists[number]:
                return each[0]
            return None if None in each else each

        def compared(values: Mapping[str, Any]) -> bool | None:
            open_one = False
            try:
                for test, number in tests:
                    one, other = value_at(number, values), value_at(number + 1, values)
                    if one is None or other is None:
                        open_one = True
                    elif not test(one, other):
                        return False
            except (ZeroDivisionError, OverflowError):
                return False  # it has no value there
            return None if open_one else True

        parts = [node for side in nodes for node in side]
        binds = any(isinstance(op, ast.Eq | ast.In) for op in at.ops)
        names = frozenset().union(*(part.names for part in parts))
        return self._made(at, FLAG, parts, compared, equates=binds and len(names) > 1)

    def _elements(self, at: ast.Tuple | ast.List) -> list[Node]:
        if not at.elts:
            raise self._refusal(at, "an empty list allows nothing: give at least one value")
        return [self._node(element) for element in at.elts]

    def _check_types(self, op: ast.cmpop, left: ast.expr, one: Node, right: ast.expr, others: Sequence[Node]) -> None:
        elements: Iterator[tuple[ast.expr, Node]] = zip(getattr(right, "elts", [right]), others, strict=True)
        for at, other in elements:
            if one.kind != other.kind:
                raise self._refusal(
                    at, f"{other.text} is {other.kind}, and {one.text} is {one.kind}: compare it with {one.kind}"
                )
            if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and one.kind != NUMBER:
                raise self._refusal(left, f"it is {one.kind}, which has no order: compare it by ==, != or in")
            for name, (place, word) in ((one.text, (at, other)), (other.text, (left, one))):
                if name in WORDS and not word.names and word.value({}) not in WORDS[name]:
                    near = difflib.get_close_matches(str(word.value({})), WORDS[name], 1)
                    meant = f"did you mean {near[0]!r}? " if near else ""
                    raise self._refusal(
                        place, f"{meant}{name} is one of {', '.join(repr(word) for word in WORDS[name])}"
                    )
