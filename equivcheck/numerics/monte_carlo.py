"""The size of the error that rounding explains: the original in float64 with the result of every operation perturbed.

This is Monte Carlo arithmetic (Parker 1997) under the probabilistic model of rounding errors (Higham and Mary 2019):
each operation of the original commits an independent error of mean zero, as large as one rounding in the case's dtype
can be. `docs/tolerance.md` derives the model, and names its sources and its gaps.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from equivcheck.numerics.error_model import ErrorModel, Rule
from equivcheck.numerics.op_rules import RULES
from equivcheck.numerics.oracle import Widened

__all__ = ["Rounding"]

# operations with exact results; views are recognised by their schemas
_EXACT_NAMES = (
    # copies, and views whose schemas do not show it
    "clone copy _to_copy detach lift_fresh set _unsafe_view _reshape_alias view_as_real view_as_complex "
    # constants
    "fill zero zeros ones full empty arange scalar_tensor zeros_like ones_like full_like empty_like new_zeros new_ones "
    "new_empty new_full new_empty_strided empty_strided empty_permuted local_scalar_dense "
    # elements taken, placed or reordered
    "where index index_select embedding gather cat stack masked_fill masked_select tril triu constant_pad_nd roll flip "
    "repeat repeat_interleave scatter index_put _index_put_impl sort topk "
    # the same in backward passes: elements that are placed among zeros
    "select_backward slice_backward unfold_backward diagonal_backward select_scatter slice_scatter as_strided_scatter "
    # one of the operands, signs, whole numbers and tests
    "max min amax amin maximum minimum relu neg abs sign floor ceil round isfinite "
    # random numbers, which are the same in every run
    "bernoulli native_dropout rand randn rand_like randn_like normal uniform "
)
_EXACT = frozenset(_EXACT_NAMES.split())


class Rounding(Widened):
    """While active, adds a rounding error to the float64 result of every arithmetic operation.

    Args:
        model: The size of errors, and their generator.
        overload_rules: Rules of single overloads; they take precedence over all others.
    """

    def __init__(self, model: ErrorModel, overload_rules: Mapping[Any, Rule] | None = None) -> None:
        super().__init__()
        self.model, self.overload_rules = model, overload_rules or {}

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = self.widen(args, kwargs or {})
        name, exact = _described(func)
        if _opaque(func) and func not in self.overload_rules:
            return self._within(func, args, kwargs)
        out = func(*args, **kwargs)
        rule = self.overload_rules.get(func) or (None if exact else RULES.get(name))
        if rule is not None:
            return rule(self.model, out, args, kwargs)
        if isinstance(out, Tensor):
            if exact or out.is_floating_point():
                self.model.origins.follow(args, out)
            # computed results are float64 here: a narrower one is a counter of an optimizer
            if not exact and out.dtype is torch.float64:
                self.model.perturb(out, self.model.relative(out))
        elif isinstance(out, tuple | list) and not exact:
            for item in out:
                if isinstance(item, Tensor) and item.is_floating_point():
                    self.model.perturb(item, self.model.relative(item))
        return out

    def _within(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operation of many steps without a rule: rounding errors are added to operands and result."""

        def perturbed(x: Any) -> Any:
            if not (isinstance(x, Tensor) and x.dtype is torch.float64):
                return x
            return self.model.perturb(x.clone(), self.model.relative(x))

        out = func(*tree_map(perturbed, args), **tree_map(perturbed, dict(kwargs)))
        items = out if isinstance(out, tuple | list) else (out,)
        computed = all(item is None or (isinstance(item, Tensor) and item.is_floating_point()) for item in items)
        if not computed and torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)  # a choice or a test, which takes exact values
        for item in items:
            if isinstance(item, Tensor) and item.dtype is torch.float64:
                self.model.origins.follow(args, item)
                self.model.perturb(item, self.model.relative(item))
        return out


@cache
def _opaque(func: Any) -> bool:
    """Whether an operation has no rule and many roundings: a convolution, a running sum, a fused kernel."""
    name, exact = _described(func)
    schema = func._schema
    simple = torch.Tag.pointwise in func.tags or name.startswith("_foreach") or schema.is_mutable
    return not (exact or simple or name in RULES) and any("Tensor" in str(r.type) for r in schema.returns)


@cache
def _described(func: Any) -> tuple[str, bool]:
    """The name of an operation without the in-place underscore, and whether its result is exact, as a copy."""
    name = func.overloadpacket.__name__
    name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    return name, view or name in _EXACT
