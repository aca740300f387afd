"""The innermost wrong part of a whole whose parts lie inside of each other."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["innermost"]

Part = TypeVar("Part", bound=Hashable)


def innermost(
    part: Part, inner: Mapping[Part, Sequence[Part]], wrong: Callable[[Part], bool | None]
) -> tuple[Part, bool]:
    """The innermost wrong part at or below a wrong one, and whether all that lies inside of it is known to be right.

    Of several wrong parts beside each other the first is taken. A part in which a right one lies around a wrong one is
    not taken: what is wrong there is made good. Where nothing is known of a part, those inside of it stand in its place.

    Args:
        part: A part that is wrong.
        inner: The parts directly inside of each part, in the order in which they are looked at.
        wrong: Whether a part is wrong; None if that cannot be known.
    """
    waiting, right = list(inner.get(part, ())), []
    clear = True
    while waiting:
        looked_at = waiting.pop(0)
        answer = wrong(looked_at)
        if answer:
            return innermost(looked_at, inner, wrong)
        if answer is None:
            clear = False
            waiting = [*inner.get(looked_at, ()), *waiting]
        else:
            right.append(looked_at)
    if clear:
        below = [lower for one in right for lower in _below(one, inner)]
        clear = not any(wrong(lower) for lower in below)
    return part, clear


def _below(part: Part, inner: Mapping[Part, Sequence[Part]]) -> list[Part]:
    """All parts inside of one."""
    return [lower for one in inner.get(part, ()) for lower in (one, *_below(one, inner))]
