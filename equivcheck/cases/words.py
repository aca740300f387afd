"""The words that fields of a case may be, the simplest first."""

__all__ = ["LAYOUTS", "MASKS", "REGIMES", "REPEATING", "TOKENS"]

LAYOUTS = ("contiguous", "transposed", "strided", "offset", "expanded")
REGIMES = (
    "sharpened",  # softmax entropy between some 0.3 and 0.6 of its maximum: what a trained attention looks like
    "near_initial",  # minGPT's initial weights: attention is almost uniform
    "large_scores",  # saturated softmax
    "ties",  # exact ties at the maximum
    "one_hot",  # inputs with one entry that is not zero
    "constant_v",  # every key has the same value
    "zero_rows",  # half of the positions are zero
    "same_sign_v",  # values with a common mean: rowsum(dO * O) cancels
    "tiny",  # products underflow
    "near_limit",  # values near the largest number of the dtype
)
TOKENS = ("random", "text")
MASKS = (
    "",  # none
    "right",  # padding: the last keys of some samples are hidden, down to none
    "left",
    "middle",
    "some",  # each query has keys of its own, at random
    "rows",  # some queries see no key at all
    "heads",  # as `some`, each head for itself
    "plane",  # as `some`, for all samples and heads alike, in two dimensions
    "additive",  # finite numbers that are added to the scores
    "both",  # finite numbers and minus infinity
    "bias",  # finite numbers, other ones for each head
)
"""What a function's `attn_mask` hides or adds; boolean up to `plane`, True for what is seen."""

REPEATING = ("ties", "one_hot", "constant_v", "zero_rows")
"""The regimes in which the same values come up many times, and rounding errs the same way each time."""
