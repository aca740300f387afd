"""What is known of a difference beyond its smallest case: its cause, its region, the module in which it begins."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Cause", "Diagnosis"]


@dataclass(frozen=True)
class Cause:
    """A known fault that, planted into the original, gives the candidate's numbers."""

    id: str
    words: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The cause, the region and the place of a difference; empty fields where nothing is known.

    Attributes:
        causes: The causes that fit all that was compared; more than one if the cases do not tell them apart.
        region: The condition under which cases fail: `seq_len >= 257`.
        tried: The values that fail and that pass, in words, from which the region was read.
        module: The first submodule, in the order of execution, whose output or gradient leaves its budget.
        beside: Where in the code of that module itself, or of the model if it is empty: `before NAME` or `after NAME` of
            a submodule, all of which are right.
        layers: The ratio of each such module on the original's input, in the same order.
        largest_case: The id of the case that fails with the largest ratio.
        largest_ratio: That ratio.
        plainly: The difference on the case in an ordinary call, if that shows one as well.
        gaps: What was not looked for, and why, where the code of equivcheck itself raised.
    """

    causes: tuple[Cause, ...] = ()
    region: str = ""
    tried: str = ""
    module: str = ""
    beside: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    largest_case: str = ""
    largest_ratio: float | None = None
    plainly: str = ""
    gaps: tuple[str, ...] = ()

    @property
    def first_lines(self) -> list[str]:
        """Cause, region and place in words, which stand before the numbers; no line for what is unknown."""
        lines = []
        if self.causes:
            lines.append("cause: " + ", or: ".join(cause.words for cause in self.causes))
        if self.region:
            lines.append(f"fails where {self.region}" + (f" ({self.tried})" if self.tried else ""))
        if self.place:
            lines.append(f"begins in {self.place}")
        return lines

    @property
    def place(self) -> str:
        """The submodule in which the difference begins, or the place in the code around right ones; empty if unknown."""
        if self.beside:
            return f"the code of {self.module or 'the model'}, {self.beside}"
        return self.module

    @property
    def last_lines(self) -> list[str]:
        """What stands after the numbers: an ordinary call, and the largest failure."""
        lines = []
        if self.plainly:
            lines.append(f"in an ordinary call, too: {self.plainly}")
        if self.largest_case and self.largest_ratio is not None:
            lines.append(f"largest: {self.largest_ratio:.3g} times the budget, on {self.largest_case}")
        return [*lines, *self.gaps]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Diagnosis":
        """The diagnosis whose `plain` is this mapping."""
        causes = tuple(Cause(**cause) for cause in plain.get("causes", ()))
        return cls(**{**plain, "causes": causes, "gaps": tuple(plain.get("gaps", ()))})

    def plain(self) -> dict[str, Any]:
        """The diagnosis in the types of JSON."""
        return asdict(self)
