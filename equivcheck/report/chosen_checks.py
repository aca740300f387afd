"""The checks that a user chose by name: unknown names are refused without torch."""

from collections.abc import Iterable, Sequence

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import CATALOGUE, Listed, check_names, is_listed, listed
from equivcheck.runtime.nearest_name import did_you_mean

__all__ = ["chosen_checks", "expand_families", "refuse_unknown_checks"]


def chosen_checks(
    names: Sequence[str] | None, exclude: Iterable[str], kind: str, also: Iterable[str] = ()
) -> list[Listed]:
    """The checks to run on a pair of this kind, in the order of a run.

    Args:
        names: The names of checks or families to run; None for all that apply, without those on request.
        exclude: The names of checks or families to leave out.
        kind: The kind of the pair.
        also: The names of checks on request that an option asks for.

    Raises:
        UsageError: A name is unknown, a check does not apply to the kind, or no check is left.
    """
    names, exclude = expand_families(names or ()), expand_families(exclude)
    refuse_unknown_checks(names, exclude)
    for name in names:
        if kind not in listed(name).kinds:
            fitting = [check.name for check in CATALOGUE if kind in check.kinds]
            raise UsageError(f"check {name!r} does not apply to a {kind}: allowed are {', '.join(fitting)}")
    if not names:
        names = [check.name for check in CATALOGUE if not check.on_request or check.name in also]
    chosen = [check for check in CATALOGUE if kind in check.kinds and check.name in {*names} - {*exclude}]
    if not chosen:
        raise UsageError("no check is left: every one that applies was excluded; leave one in")
    return chosen


def refuse_unknown_checks(*lists: Iterable[str] | None) -> None:
    """Make sure that each name in these lists is that of a check or of a family.

    Raises:
        UsageError: One is not.
    """
    for names in lists:
        for name in expand_families(names or ()):
            if not is_listed(name):
                meant = did_you_mean(name, check_names())
                allowed = f"allowed are {', '.join(check.name for check in CATALOGUE)}"
                raise UsageError(
                    f"unknown check {name!r}{meant}: {'equivcheck checks lists them' if meant else allowed}"
                )


def expand_families(names: Iterable[str]) -> list[str]:
    """The names, with each family replaced by its members: `replacement` stands for each `replacement.…`."""
    members = [[c.name for c in CATALOGUE if c.name.startswith(f"{name}.")] or [name] for name in names]
    return [name for family in members for name in family]
