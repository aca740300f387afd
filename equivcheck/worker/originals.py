"""Whether the original stays the original: its functions and those of torch that were replaced, and its results."""

import base64
import ctypes
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.report.implementation_files import modules_of
from equivcheck.runtime.file_access import Access
from equivcheck.runtime.source_files import file_of, is_equivcheck

__all__ = ["Original"]

_TORCH = {  # namespaces in which others look functions up
    "torch": torch,
    "torch.nn.functional": F,
    "torch.Tensor": torch.Tensor,
    "torch.linalg": torch.linalg,
    "torch.special": torch.special,
    "torch.autograd": torch.autograd,
    "torch.autograd.Function": torch.autograd.Function,
    "torch.nn": nn,
    "torch.nn.Module": nn.Module,
    "torch.nn.Linear": nn.Linear,
    "torch.nn.Dropout": nn.Dropout,
    "torch.nn.Softmax": nn.Softmax,
    "torch.nn.LayerNorm": nn.LayerNorm,
    "torch.nn.Embedding": nn.Embedding,
}
_FUNCTIONS = types.FunctionType | types.BuiltinFunctionType | types.MethodDescriptorType
_MOST_NAMED = 8


@dataclass
class _Names:
    """The functions and classes in some modules and classes, by name, with the code that they run."""

    definitions: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    owners: dict[str, Any] = field(default_factory=dict)
    known: dict[str, frozenset[str]] = field(default_factory=dict)  # of classes: all names that were in them

    def of(self, prefix: str, owner: Any) -> None:
        """Record the functions and classes in `owner`, which is called `prefix`."""
        self.owners[prefix] = owner
        if isinstance(owner, type):
            self.known[prefix] = frozenset(vars(owner))
        for name, value in list(vars(owner).items()):
            plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(plain, _FUNCTIONS | type | property):
                self.definitions[f"{prefix}.{name}"] = (plain, getattr(plain, "__code__", None))

    def replaced(self) -> Iterator[str]:
        """The names that now have another value, or the same function with other code."""
        for name, (value, code) in self.definitions.items():
            prefix, _, last = name.rpartition(".")
            now = vars(self.owners[prefix]).get(last)
            now = now.__func__ if isinstance(now, staticmethod | classmethod) else now
            if now is not value or getattr(now, "__code__", None) is not code:
                yield name
        for prefix, known in self.known.items():  # names that were inherited before
            for name, value in vars(self.owners[prefix]).items():
                if name not in known and isinstance(value, _FUNCTIONS | type | property | staticmethod | classmethod):
                    yield f"{prefix}.{name}"


class Original:
    """The original of a pair, as it was before the candidate was imported."""

    def __init__(self, access: Access) -> None:
        """Record the functions of torch, before anything of the pair is imported."""
        self._access = access
        self._torch, self._names = _Names(), _Names()
        for prefix, owner in _TORCH.items():
            self._torch.of(prefix, owner)
        self._files: set[Path] = set()

    def loaded(self, reference: Any) -> None:
        """Record the functions of the original, which is imported; the candidate is not yet."""
        self._files = set(self._access.modules)
        with suppress(Exception):  # an original that cannot be recorded is compared by its results
            for module in modules_of(reference).values():
                if is_equivcheck(str(file_of(module))):
                    continue
                self._names.of(module.__name__, module)
                for name, value in list(vars(module).items()):
                    if isinstance(value, type) and value.__module__ == module.__name__:
                        self._names.of(f"{module.__name__}.{name}", value)

    def replaced(self) -> dict[str, list[str]]:
        """The names of replaced functions and classes: of the original's modules, and of torch."""
        return {
            "original": sorted(self._names.replaced())[:_MOST_NAMED],
            "torch": sorted(self._torch.replaced())[:_MOST_NAMED],
        }

    def notes(self, subject: Pair) -> list[str]:
        """The reason why the original could not be recorded apart from the candidate, if there is one."""
        defining = [next(iter(modules_of(side)), None) for side in (subject.reference, subject.candidate)]
        if any(file is not None and is_equivcheck(str(file)) for file in defining):
            return []
        if defining[0] is not None and defining[0] == defining[1]:
            return [
                f"both sides are in one file, {defining[0].name}: "
                "what it does when it is imported is done to both of them"
            ]
        if defining[1] is not None and defining[1] in self._files:
            return [
                f"importing the original imports {defining[1].name}, too: "
                "what that does when it is imported is done to both"
            ]
        return []

    def results(self, subject: Pair, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """The results of the original on these cases: tensors by name, as bytes of float64, or its exception."""
        answers = []
        for case in cases:
            try:
                problem = subject.problem(case)
                results = problem.run(problem.make_reference(), problem.inputs, gradients=True)
                answers.append({name: _bytes(value) for name, value in results.items() if value is not None})
            except Exception as error:
                ensure_foreign(error)
                answers.append({"raises": f"{type(error).__name__}: {error}"})
        return answers


def _bytes(value: torch.Tensor) -> str:
    flat = value.detach().to("cpu", torch.float64).contiguous().view(-1)
    return base64.b64encode(ctypes.string_at(flat.data_ptr(), flat.numel() * 8)).decode()
