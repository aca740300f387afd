"""Quantiles of Student's t and of the norm of a Gaussian vector: how large errors of a known spread may be."""

import math
from functools import lru_cache
from statistics import NormalDist

__all__ = ["norm_quantile", "student_quantile"]


_EXACT_BELOW = 1e5
"""From this many degrees of freedom on Wallace's quantile is right to 1e-9, as test_quantiles.py shows with scipy."""
_STEPS = 30
_TERMS = 10_000


@lru_cache(maxsize=4096)  # tails depend on sizes, which repeat
def _normal_quantile(tail: float) -> float:
    return -NormalDist().inv_cdf(tail)


@lru_cache(maxsize=4096)
def student_quantile(tail: float, dof: float) -> float:
    """The two-sided quantile of Student's t; the normal one where `dof` is infinite.

    Args:
        tail: The probability of a value beyond the quantile, on either side: 0 to 1.
        dof: Degrees of freedom, greater than 0, not only whole ones.

    Returns:
        Wallace's approximation (1959, inverted), made exact by Newton's steps on the logarithm of the tail.
    """
    tail = max(tail, 1e-300)
    z = _normal_quantile(tail / 2)
    if math.isinf(dof):
        return z
    exponent = (z * (8 * dof + 3) / (8 * dof + 1)) ** 2 / dof
    quantile = math.sqrt(dof * math.expm1(min(exponent, 500.0)))
    if dof >= _EXACT_BELOW or quantile == 0.0:
        return quantile
    for _ in range(_STEPS):
        log_tail = _log_student_tail(quantile, dof)
        # d log(tail) / d log(quantile)
        slope = -2 * quantile * math.exp(_log_student_density(quantile, dof) - log_tail)
        step = (math.log(tail) - log_tail) / slope
        quantile *= math.exp(max(-50.0, min(step, 50.0)))
        if abs(step) < 1e-12:
            break
    return quantile


def _log_student_density(t: float, dof: float) -> float:
    constant = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - math.log(dof * math.pi) / 2
    return constant - (dof + 1) / 2 * math.log1p(t * t / dof)


def _log_student_tail(t: float, dof: float) -> float:
    """log P(|T| > t), by the regularised incomplete beta function (DLMF 8.17)."""
    a, b, x = dof / 2, 0.5, dof / (dof + t * t)
    beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = a * math.log(x) + b * (2 * math.log(t) - math.log(dof + t * t)) - beta
    if x < (a + 1) / (a + b + 2):
        return front + math.log(_beta_fraction(a, b, x)) - math.log(a)
    return math.log1p(-math.exp(front) * _beta_fraction(b, a, 1 - x) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's algorithm."""
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def norm_quantile(tail: float, effective: float, dof: float) -> float:
    """A bound on a Gaussian vector's norm in units of its root mean square, exceeded with probability `tail` at most.

    This is the bound of Laurent and Massart (2000, lemma 1) for weighted chi-squares.

    Args:
        tail: The probability of a norm beyond the bound.
        effective: tr(S)²/tr(S²), the effective degrees of freedom of the covariance S.
        dof: The number of samples that the spread comes from. If it is finite, the bound is widened by the quotient of
            Student's quantile and the normal one.
    """
    x = -math.log(tail)
    root = 1 / math.sqrt(max(effective, 1.0))
    bound = math.sqrt(1 + 2 * root * math.sqrt(x) + 2 * root * x)
    if math.isinf(dof):
        return bound
    return bound * student_quantile(tail, dof * max(effective, 1.0)) / student_quantile(tail, math.inf)
