"""Which cases of an earlier run a check would still take: the pair, the domain and the dtypes may be others now."""

from collections.abc import Collection, Mapping
from typing import Literal

from equivcheck.cases.case import Case
from equivcheck.cases.features import mask_features
from equivcheck.checks import Check
from equivcheck.errors import UsageError
from equivcheck.pairs.pair import Pair

__all__ = ["Standing", "standing"]

Standing = Literal["now", "later", "never"]
"""Of a remembered case: it can be run, another run with other options can run it, or it is to be forgotten."""


def standing(check: str, case: str, *, subject: Pair, checks: Mapping[str, Check], dtypes: Collection[str]) -> Standing:
    """Whether a case is one that a check of this run could have drawn or made small.

    Args:
        check: The name of the check.
        case: The id of the case.
        subject: The pair, with its domain.
        checks: The checks of the run, by name.
        dtypes: The dtypes of the run.
    """
    try:
        parsed = Case.parse(case)
    except UsageError:
        return "never"
    if parsed.id != case or (subject.domain and not subject.domain.allows(parsed)) or not _fits(parsed, subject):
        return "never"
    if check not in checks or parsed.dtype not in {*dtypes} & {*checks[check].space.dtypes}:
        return "later"
    return "now"


def _fits(case: Case, subject: Pair) -> bool:
    """Whether both sides take what the case has beyond the plain one."""
    needs = set()
    if case.kv_len not in (0, case.seq_len):
        needs.add("causal lengths" if case.is_causal else "lengths")
    if case.kv_heads not in (0, case.n_head):
        needs.add("heads")
    if case.value_size not in (0, case.head_size):
        needs.add("value size")
    if case.mask:
        needs |= mask_features(case.mask, is_causal=case.is_causal)
    return needs <= subject.features and (case.scale is None or "scale" in subject.options)
