"""The value of `--shard`: which part of a run, and of how many."""

import re

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import SCREEN

__all__ = ["refuse_contradictions", "shard_from"]

_MOST = 10_000


def shard_from(text: str | None, *, profile: str, fail_fast: bool) -> tuple[int, int] | None:
    """The number of the shard, from 1, and how many there are; None for None.

    Args:
        text: The value of the option.
        profile: The profile of the run.
        fail_fast: Whether the run is to end at its first difference.

    Raises:
        UsageError: The text is not I/N, or other options contradict it.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= _MOST:
        raise UsageError(f"--shard {text!r}: I/N is allowed, with 1 <= I <= N <= {_MOST}, such as 2/7")
    refuse_contradictions(f"--shard {text}", profile=profile, fail_fast=fail_fast)
    return int(match[1]), int(match[2])


def refuse_contradictions(option: str, *, profile: str, fail_fast: bool) -> None:
    """Refuse what contradicts a run that is cut into shards.

    Args:
        option: The option that cuts it, as the user gave it.
        profile: The profile of the run.
        fail_fast: Whether the run is to end at its first difference.

    Raises:
        UsageError: One of them does.
    """
    if profile == SCREEN:
        raise UsageError(f"{option} with --profile {SCREEN}: a screen is too small to be cut; leave one of them out")
    if fail_fast:
        raise UsageError(f"{option} with --fail-fast: a shard runs all of its cases; leave one of them out")
