"""The cache of truths: what it keeps fits its limit, whatever has grown since it was stored."""

import torch

from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.cache import ByteLimitedLRU


def truth() -> Truth:
    values = {"output": torch.zeros(100, dtype=torch.float64)}
    return Truth(values, lambda count: Sample(count, {"output": torch.zeros(count, 100, dtype=torch.float64)}))


def test_a_refined_sample_counts_towards_the_limit() -> None:
    cache: ByteLimitedLRU[Truth] = ByteLimitedLRU(4 * truth().size_bytes)
    for number in range(4):
        cache.keep(number, truth())
    assert all(number in cache for number in range(4))
    grown = cache.known(3)
    assert grown is not None
    grown.sample(refined=True)  # the memory of five others
    cache.keep(4, truth())
    assert [number for number in range(5) if number in cache] == [4]


def test_the_newest_value_is_kept_though_it_is_larger_than_the_limit() -> None:
    cache: ByteLimitedLRU[Truth] = ByteLimitedLRU(1)
    cache.keep(0, truth())
    cache.keep(1, truth())
    assert 1 in cache
    assert 0 not in cache
