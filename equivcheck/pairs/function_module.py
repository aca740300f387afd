"""A function of q, k, v as a module."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.tensors import attn_mask

__all__ = ["FunctionModule"]


class FunctionModule(nn.Module):
    """A function of q, k, v as a module, so that every kind runs in the same way.

    The mask is a buffer, which passes must not change. With `learned`, an additive mask is a parameter in every second
    case, and its gradient is a result. In the other cases it is no parameter: some kernels take no mask that requires a
    gradient.
    """

    def __init__(
        self, function: Callable[..., Any], case: Case, scale_optional: bool = False, learned: bool = False
    ) -> None:
        super().__init__()
        self.function, self.case, self.scale_optional, self.learned = function, case, scale_optional, learned
        mask = attn_mask(case)  # drawn here: inside of vmap each run would draw another mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(case.torch_dtype)  # the same numbers in the oracle as in the case's dtype
            if learned and case.seed // 2 % 2 == 0:  # independent of the seeds that leave `scale` out
                mask = nn.Parameter(mask)
        if isinstance(mask, nn.Parameter):
            self.attn_mask: Tensor | None = mask
        else:
            self.register_buffer("attn_mask", mask, persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
        rate = self.case.attn_pdrop if self.training else 0.0
        scale = self.case.head_size**-0.5 if self.case.scale is None else self.case.scale
        options = {"is_causal": self.case.is_causal, "dropout_p": rate, "scale": scale}
        if self.scale_optional and self.case.scale is None and self.case.seed % 2:
            del options["scale"]
        if self.case.kv_heads:
            options["enable_gqa"] = True
        mask = self.attn_mask
        if mask is not None:
            options["attn_mask"] = (mask.to(q.dtype) if mask.is_floating_point() else mask).to(q.device)
        return self.function(q, k, v, **options)

    def __deepcopy__(self, memo: Any) -> "FunctionModule":
        copied = FunctionModule(self.function, self.case, self.scale_optional, self.learned).train(self.training)
        return copied if self.attn_mask is None else copied.to(self.attn_mask.device)

    @property
    def arguments(self) -> dict[str, Tensor]:
        """What the function is given besides q, k, v, by name."""
        return {} if self.attn_mask is None else {"attn_mask": self.attn_mask}
