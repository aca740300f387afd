"""A domain: the cases that an original is meant for, as an expression of fields of a case or as a function of a case."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from equivcheck.cases.domain_fields import values_of
from equivcheck.cases.domain_grammar import Node, parse
from equivcheck.errors import UsageError

__all__ = ["EVERYWHERE", "IMPORTS", "Domain", "require_grammar"]


IMPORTS = re.compile(r"(?P<spec>[^\s:'\"()<>=]+:[A-Za-z_][\w.]*)(?: and (?P<rest>.+))?")
"""The text of a domain that a function makes: its import string, which may stand before an expression."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The cases that an original is meant for; two are equal if their texts and devices are.

    Attributes:
        text: The expression, behind the import strings of functions; empty if every case is allowed.
        conditions: The conditions of the expression, all of which hold inside.
        functions: Functions of a case that are true inside, each with its name.
        device: The type of the device of the run; empty as long as it is open.
    """

    text: str = ""
    conditions: tuple[Node, ...] = ()
    functions: tuple[tuple[str, Callable[[Any], Any]], ...] = ()
    device: str = ""

    @classmethod
    def parse(cls, text: str) -> "Domain":
        """The domain of an expression.

        Args:
            text: The expression; `docs/domain.md` has its grammar.

        Raises:
            UsageError: It has another form, or a name in it is unknown.
        """
        line = " ".join(text.split())
        if not line:
            raise UsageError("domain '': it is empty; give a condition, such as 'head_size in (64, 128)'")
        return cls(line, parse(line))

    @classmethod
    def of(cls, function: Callable[[Any], Any], name: str = "") -> "Domain":
        """The domain in which a function of a case is true.

        Args:
            function: A function of a case.
            name: Its import string; by default made of its module and name.
        """
        module, called = getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
        name = name or f"{module}:{called}"
        return cls(name, functions=((name, function),))

    def __and__(self, other: "Domain") -> "Domain":
        """The cases in both."""
        functions = (*self.functions, *(pair for pair in other.functions if pair not in self.functions))
        known = {node.text for node in self.conditions}
        conditions = (*self.conditions, *(node for node in other.conditions if node.text not in known))
        # a function's name stands first, and what was learned of it is no part of the text
        texts = (*(name for name, _ in functions), *self._expressions(), *other._expressions())
        text = " and ".join(dict.fromkeys(texts))
        return Domain(text, conditions, functions, self.device or other.device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and (self.text, self.device) == (other.text, other.device)

    def __hash__(self) -> int:
        return hash((self.text, self.device))

    def __bool__(self) -> bool:
        """Whether it leaves any case out."""
        return bool(self.text)

    @property
    def can_be_written(self) -> bool:
        """Whether its text stands for it on a command line: some case is left out, and each function has a name."""
        return bool(self.text) and not any("<" in name for name, _ in self.functions)

    def _expressions(self) -> Iterator[str]:
        """The conditions that the text has, in brackets where `and` would take them apart."""
        for node in self.conditions:
            if node.text in self.text:
                yield f"({node.text})" if " or " in node.text else node.text

    def on(self, device: str) -> "Domain":
        """The same domain in a run on a device of this type."""
        return replace(self, device=device)

    def known(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with the type of the device, and without those that say nothing of an attention alone."""
        known = {"device": self.device, **values} if self.device else dict(values)
        if values.get("n_layer") == 0:
            for name in ("n_layer", "vocab_size"):
                known.pop(name, None)
        return known

    def allows(self, case: Any) -> bool:
        """Whether a case is inside; a condition on a name that says nothing of the case allows it.

        Raises:
            UsageError: A function of the domain raised.
        """
        return self.may_allow(values_of(case)) and self.accepts(case)

    def may_allow(self, values: Mapping[str, Any]) -> bool:
        """Whether a case may be inside of which some values are known, as far as the expression tells."""
        known = self.known(values)
        return all(node.value(known) is not False for node in self.conditions)

    def accepts(self, case: Any) -> bool:
        """Whether all functions are true of a case.

        Raises:
            UsageError: One of them raised.
        """
        for name, function in self.functions:
            try:
                if not function(case):
                    return False
            except Exception as error:
                line = " ".join(str(error).split()) or "no message"
                raise UsageError(
                    f"domain {name!r} raised {type(error).__name__} on {case.id}: {line[:160]}; "
                    "let it return True or False for every case"
                ) from error
        return True


EVERYWHERE = Domain()
"""Every case is inside."""


def require_grammar(text: str | None) -> None:
    """Make sure that a text is a domain, before anything is imported: an expression, or an import string.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return
    match = IMPORTS.fullmatch(" ".join(text.split()))
    if match is None:
        Domain.parse(text)
    elif match["rest"]:
        Domain.parse(match["rest"])
