"""The judging code, before foreign code is imported and after it has run: same functions, same verdicts."""

import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

__all__ = ["Judging"]

_NAME = "equivcheck"
_MOST_NAMED = 5
_KNOWN = Case(batch_size=2, seq_len=9, n_head=2, head_size=4, block_size=12, seed=5)
_ORIGINAL = "equivcheck.attention:CausalSelfAttention"
_PAIRS = {  # a check, and the candidate that it looks at
    "output": "equivcheck.worker.judging:wrong",
    "gradients": "equivcheck.attention:FlashCausalSelfAttention",
}


def wrong(config: Any) -> torch.nn.Module:
    """An attention whose difference is known."""
    from equivcheck.attention import CausalSelfAttention

    class Wrong(CausalSelfAttention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = super().forward(x)
            return y * 1.001

    return Wrong(config)


class Judging:
    """The functions and methods of equivcheck as they are now, and their verdicts on two known pairs."""

    def __init__(self) -> None:
        """Record them."""
        self._subjects = {
            name: resolve(_ORIGINAL, candidate, kind="module", device="cpu") for name, candidate in _PAIRS.items()
        }
        self._functions = _functions()
        self._known = _verdicts(self._subjects)

    def changed(self) -> list[str]:
        """The changes in words: functions that were replaced, and a known pair with another verdict."""
        now = _functions()
        names = sorted(name for name, value in self._functions.items() if now.get(name) != value)
        changes = [f"{name} is not the function that it was" for name in names[:_MOST_NAMED]]
        try:
            known: Any = _verdicts(self._subjects)
        except Exception as error:
            known = f"{type(error).__name__}: {error}"
        if known != self._known:
            changes.append("what judges gives another result on a pair that is known than before the pair was imported")
        return changes


def _functions() -> dict[str, tuple[int, int]]:
    functions: dict[str, tuple[int, int]] = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == _NAME and isinstance(module, types.ModuleType):
            for key, value in list(vars(module).items()):
                if isinstance(value, types.FunctionType):
                    functions[f"{name}.{key}"] = (id(value), id(value.__code__))
                elif isinstance(value, type) and value.__module__ == name:
                    for inner, method in list(vars(value).items()):
                        plain = method.fget if isinstance(method, property) else method
                        plain = getattr(plain, "__func__", plain)
                        if isinstance(plain, types.FunctionType):
                            functions[f"{name}.{key}.{inner}"] = (id(plain), id(plain.__code__))
    return functions


def _verdicts(subjects: Mapping[str, Pair]) -> list[str]:
    """The verdict of one check on a wrong attention, and of another on a right one, to the last digit."""
    verdicts = []
    for check in CHECKS:
        if check.name in subjects:
            try:
                result = check.run(replace(subjects[check.name], memory=Memory()), _KNOWN)
            except Mismatch as mismatch:
                verdicts.append(f"{mismatch} {mismatch.ratio!r} {mismatch.where}")
            else:
                verdicts.append(f"{result.ratio!r} {result.where}")
    return verdicts
