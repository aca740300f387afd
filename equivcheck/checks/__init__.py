"""The checks, one property a file; `CHECKS` is the registry, in the order in which they are run."""

from importlib import import_module

from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.report.catalogue import CATALOGUE

__all__ = ["CHECKS", "CaseResult", "Check"]

_modules = dict.fromkeys(entry.module for entry in CATALOGUE)
_checks: dict[str, Check] = {
    check.name: check for module in _modules for check in import_module(f"equivcheck.checks.{module}").CHECKS
}

CHECKS: tuple[Check, ...] = tuple(_checks[entry.name] for entry in CATALOGUE)
