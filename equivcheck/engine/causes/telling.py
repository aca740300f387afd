"""The cases on which a cause is looked for: larger ones than the smallest that fails, as many readings fit small ones."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from equivcheck.cases.case import Case
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair

__all__ = ["larger_cases", "telling_cases"]

_LARGEST = 2**18  # scores of a case
_LONG = 24  # positions: a shorter case is made so much longer


def telling_cases(subject: Pair, failed: Sequence[Case]) -> Iterator[Case]:
    """The cases to fit on: a larger one in the widest dtype first, then the largest of those that failed.

    Args:
        subject: The pair: no case is outside of its domain.
        failed: The failing cases, the smallest first.
    """
    still = [case for case in failed if not (case.training and (case.attn_pdrop or case.resid_pdrop))]
    still = [case for case in still if _scores(case) <= _LARGEST]
    if not still:
        return
    widest = min(still, key=lambda case: (DTYPES.index(case.dtype), -_scores(case)))
    for case in dict.fromkeys((max(still, key=_scores), widest, still[0])):
        for dtype in dict.fromkeys(("float64", case.dtype)):
            yield from larger_cases(subject, case, dtype)


def larger_cases(subject: Pair, case: Case, dtype: str) -> Iterator[Case]:
    """The case in a dtype with several samples, heads and positions, as far as the domain has it; at last as it is.

    Args:
        subject: The pair.
        case: The case.
        dtype: The dtype.
    """
    heads = case.n_head * -(-3 // case.n_head)  # three at least
    sizes = {"batch_size": max(2, case.batch_size), "n_head": heads, "head_size": max(4, case.head_size)}
    sizes["head_size"] += sizes["head_size"] == heads  # so that no two scales are the same
    if case.kv_heads:
        sizes["kv_heads"] = case.kv_heads * (heads // case.n_head)
    length = case.seq_len if case.seq_len >= _LONG or case.seq_len == 1 < case.kv_len else _LONG + case.seq_len
    longer = {"seq_len": length, "block_size": max(case.block_size, length)}
    if case.kv_len:
        longer["kv_len"] = case.kv_len + length - case.seq_len
    for changes in (sizes | longer, sizes, longer, {}):
        with suppress(UsageError):
            other = case.but(dtype=dtype, **changes)
            if _scores(other) <= _LARGEST and (not subject.domain or subject.domain.allows(other)):
                yield other


def _scores(case: Case) -> int:
    return case.batch_size * case.n_head * case.seq_len * (case.kv_len or case.seq_len)
