"""The spaces of cases that several checks share."""

from equivcheck.cases.strategies import CaseSpace

__all__ = ["BATCHED", "GENERATED", "ORDINARY", "SMALL", "TRANSFORMED"]

ORDINARY = ("sharpened", "near_initial")
"""The regimes of values that a model meets."""

SMALL = CaseSpace(max_seq_len=40, max_batch_size=3, max_heads=4, max_head_size=32)

BATCHED = SMALL.but(min_seq_len=2, min_batch_size=2, regimes=(*ORDINARY, "same_sign_v", "ties"))

TRANSFORMED = CaseSpace(
    regimes=ORDINARY,
    layouts=("contiguous", "transposed"),
    min_seq_len=2,
    max_seq_len=24,
    min_batch_size=2,
    max_batch_size=3,
    max_heads=3,
    max_head_size=16,
)

GENERATED = CaseSpace(
    regimes=ORDINARY,
    layouts=("contiguous",),
    max_seq_len=24,
    max_batch_size=3,
    max_heads=3,
    max_head_size=16,
    n_layers=(1, 2),
    training=False,
)
