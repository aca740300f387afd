"""Cases that Hypothesis draws from a strategy: the strategy, their number and the seed determine them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from equivcheck.cases.case import Case

__all__ = ["draw_cases"]


def draw_cases(strategy: Any, count: int, seed: int, property_of: Callable[[Case], None]) -> None:
    """Run a property on cases of a strategy, and shrink the first that fails.

    Args:
        strategy: A strategy of Hypothesis that draws cases.
        count: The greatest number of cases that are drawn before one fails.
        seed: The seed of the cases.
        property_of: A function that raises if a case fails.

    Raises:
        Exception: The error of the property on the smallest case that fails, or the one that ended the drawing.
    """

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @given(strategy)
    def property_holds(case: Case) -> None:
        property_of(case)

    with _without_local_constants():
        property_holds()


@contextmanager
def _without_local_constants() -> Iterator[None]:
    """Keep Hypothesis from drawing constants that it reads from the sources of loaded modules, the candidate's too.

    Hypothesis has no setting for it. In a version without such constants nothing is replaced.
    """
    names = ("Constants", "_get_local_constants", "CONSTANTS_CACHE")
    try:
        providers: Any = import_module("hypothesis.internal.conjecture.providers")
        constants, local, cache = (getattr(providers, name) for name in names)
    except (ImportError, AttributeError):
        yield
        return
    none = constants()
    providers._get_local_constants, providers.CONSTANTS_CACHE = lambda: none, type(cache)(cache.max_size)
    try:
        yield
    finally:
        providers._get_local_constants, providers.CONSTANTS_CACHE = local, cache
