"""The words that fields of a case can have as values, the simplest first."""

__all__ = ["LAYOUTS", "MASKS", "REGIMES", "REPEATING", "TOKENS"]

LAYOUTS = ("contiguous", "transposed", "strided", "offset", "expanded")
REGIMES = (
    "sharpened",  # softmax entropy of about 0.3 to 0.6 of its maximum, as in a trained attention
    "near_initial",  # minGPT's initial weights: attention is almost uniform
    "large_scores",  # saturated softmax
    "ties",  # exact ties at the maximum
    "one_hot",  # inputs with one nonzero entry
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
    "some",  # each query sees other keys, at random
    "rows",  # some queries see no key at all
    "heads",  # as `some`, other keys for each head
    "plane",  # as `some`, the same for all samples and heads, in two dimensions
    "additive",  # finite numbers that are added to the scores
    "both",  # finite numbers and minus infinity
    "bias",  # finite numbers, other ones for each head
)
"""The kinds of `attn_mask` of a function; boolean up to `plane`, True for a visible key."""

REPEATING = ("ties", "one_hot", "constant_v", "zero_rows")
"""The regimes in which values repeat, and rounding errs in the same direction each time."""
