"""Rounding as on another host: what hosts compute differently is off by as much as they differ, and the same each time.

    python -m pytest --perturb-rounding SEED tests/faults

Sums, matmuls and elementary functions give another last bit where another processor, another number of threads or another
library orders or approximates them otherwise; single additions, products and copies are the same everywhere. A test that
passes with several seeds does not depend on the host. What is compiled, or runs in another process, is left as it is.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from equivcheck.numerics.roundoff import accumulation_roundoff, unit_roundoff

_SUM_NAMES = """
    mm bmm addmm baddbmm addbmm addmv mv dot vdot linear convolution convolution_backward
    sum mean var std norm linalg_vector_norm cumsum embedding_dense_backward nll_loss_forward
    _softmax_backward_data _log_softmax_backward_data native_layer_norm native_layer_norm_backward
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
"""
_FUNCTION_NAMES = """
    exp exp2 expm1 log log2 log1p tanh sigmoid sin cos erf gelu silu rsqrt pow _softmax _log_softmax logsumexp
"""
_HOW = dict.fromkeys(_SUM_NAMES.split(), "sum") | dict.fromkeys(_FUNCTION_NAMES.split(), "function")

_UNITS = 2  # roundoffs of the accumulation, by which an operand of a sum or the value of a function is off at most


class PerturbedRounding(TorchDispatchMode):
    """While active, sums and elementary functions round as on another host, which `seed` numbers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = (args, dict(kwargs or {}))
        out = func(*args, **given[1])
        how = _how(func)
        operands = [x for x in tree_leaves(given) if _real(x)]
        if how is None or not operands or not all(kind in (Tensor, torch.nn.Parameter) for kind in types):
            return out
        if how == "sum" and all(torch.equal(x, x.round()) for x in operands):
            return out  # whole numbers are added without rounding, in whichever order
        u = _UNITS * accumulation_roundoff(min((x.dtype for x in operands), key=unit_roundoff), torch.device("cpu"))
        wide = tree_map(lambda x: x.double() if _real(x) else x, given)
        if how == "sum":  # what goes by name, such as a mask, is added to a term, which every host does alike
            at = 1 if func.overloadpacket.__name__.endswith("softmax_backward_data") else len(args)
            moved = tree_map(lambda x: self._moved(x, u, places=True) if _real(x) else x, wide[0][:at])
            wide = ((*moved, *wide[0][at:]), wide[1])  # a probability of one is one in the backward pass, too
        try:
            moved = func(*wide[0], **wide[1])
        except (RuntimeError, TypeError):  # a kernel for narrow dtypes alone
            return out
        if how == "function":  # of equal numbers it is equal, and the exponential of zero is one everywhere
            moved = torch.where(moved.abs() == 1.0, moved, self._moved(moved, u, places=False))
        return tree_map(lambda x, by: by.to(x.dtype) if _real(x) else x, out, moved)

    def _moved(self, x: Tensor, u: float, *, places: bool) -> Tensor:
        """Each element off by up to `u` of itself, as a hash of its value, the seed and perhaps its place says."""
        mixed = x.detach().contiguous().view(torch.int64) ^ (self.seed * 0x2545F491)
        if places:
            mixed = mixed ^ (torch.arange(x.numel()).reshape(x.shape) * 0x5851F42D4C957F2D)
        for odd, shift in ((-7046029254386353131, 31), (-4658895280553007687, 29)):
            mixed = mixed * odd
            mixed = mixed ^ (mixed >> shift)
        return torch.where(torch.isfinite(x), x * (1.0 + u * mixed.double() * 2.0**-63), x)


def _real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.device.type == "cpu"


@cache
def _how(func: Any) -> str | None:
    """How an operation rounds: as a sum, as an elementary function, or as it does everywhere."""
    return None if func._schema.is_mutable else _HOW.get(func.overloadpacket.__name__)
