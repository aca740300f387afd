"""How far errors of a known spread may lie out, but for a chance: quantiles of Student's t and of a Gaussian vector's norm."""

import math
from functools import lru_cache
from statistics import NormalDist

__all__ = ["norm_quantile", "student_quantile"]


@lru_cache(maxsize=4096)  # tails depend on sizes, which come again and again
def _normal_quantile(tail: float) -> float:
    return -NormalDist().inv_cdf(tail)


def student_quantile(tail: float, dof: float) -> float:
    """The two-sided quantile of Student's t (Wallace 1959, inverted); the normal one where `dof` is infinite."""
    z = _normal_quantile(max(tail, 1e-300) / 2)
    if math.isinf(dof):
        return z
    exponent = (z * (8 * dof + 3) / (8 * dof + 1)) ** 2 / dof
    return math.sqrt(dof * math.expm1(min(exponent, 500.0)))


def norm_quantile(tail: float, effective: float, dof: float) -> float:
    """How far a Gaussian vector's norm goes beyond its root mean square, but for a chance of `tail`.

    The bound of Laurent and Massart (2000, lemma 1) for weighted chi-squares with `effective` = tr(S)²/tr(S²) degrees of
    freedom; where the spread itself comes from `dof` samples, widened as Student's quantile is over the normal one.
    """
    x = -math.log(tail)
    root = 1 / math.sqrt(max(effective, 1.0))
    bound = math.sqrt(1 + 2 * root * math.sqrt(x) + 2 * root * x)
    if math.isinf(dof):
        return bound
    return bound * student_quantile(tail, dof * max(effective, 1.0)) / student_quantile(tail, math.inf)
