"""equivcheck: is this fast attention the one the model was trained with?

Give it the attention that you trained with and the fast one that you want to run. It says whether they are the same,
shows the smallest case in which they are not, and proves on every run that it would have noticed.

    report = equivcheck.verify("package.slow:Attention", "package.fast:Attention")
    equivcheck.assert_equivalent(Slow, Fast)          # raises Mismatch, or returns the report
    TestFast = equivcheck.suite(Slow, Fast)           # a pytest class: one test per check and device

The words: the *reference* is the original attention, the *candidate* wants to replace it, the *oracle* is the original
in float64. A *case* is one generated problem, a *check* a property that is tested on it. The *budget* is the error that
rounding may explain, the *ratio* error / budget. A *counterexample* is the smallest failing case. *Faults* are planted
in every run; a run that misses one is not equivalent but insensitive.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equivcheck.api import assert_equivalent as assert_equivalent
    from equivcheck.api import verify as verify
    from equivcheck.cases.case import Case as Case
    from equivcheck.errors import Mismatch as Mismatch
    from equivcheck.errors import UsageError as UsageError
    from equivcheck.pytest_plugin.suite import suite as suite
    from equivcheck.report.model import CheckResult as CheckResult
    from equivcheck.report.model import Report as Report

__version__ = "0.1.0"

# loaded when first used: importing equivcheck, as a pytest plugin does, must not cost an import of torch
_PUBLIC = {
    "Case": "equivcheck.cases.case",
    "CheckResult": "equivcheck.report.model",
    "Mismatch": "equivcheck.errors",
    "Report": "equivcheck.report.model",
    "UsageError": "equivcheck.errors",
    "assert_equivalent": "equivcheck.api",
    "suite": "equivcheck.pytest_plugin.suite",
    "verify": "equivcheck.api",
}

__all__ = [
    "Case",
    "CheckResult",
    "Mismatch",
    "Report",
    "UsageError",
    "__version__",
    "assert_equivalent",
    "suite",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
