"""How much error rounding explains: the original, run in float64 with every operation's result perturbed.

This is Monte Carlo arithmetic (Parker 1997) under the probabilistic model of rounding errors (Higham and Mary 2019):
each operation of the original commits an independent error of mean zero, as large as one rounding in the case's dtype
can be. `docs/tolerance.md` derives the model, names its sources and says where it is loose.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivcheck.oracle import Widened

__all__ = ["EXP_ULPS", "ROUNDINGS", "Rounding", "Sample", "unit_roundoff"]

ROUNDINGS = 4
"""A right implementation may commit this many times the roundings of the original: running sums by blocks, spelled-out
softmax, rescaling, recomputation in the backward pass. Independent errors add up as the root of their number."""

_BLOCK = 16  # in half precision a sum may be kept in the dtype itself from one block of this many terms to the next
EXP_ULPS = 16.0  # vectorised float32 exponentials are good to some 20 units in the last place (Sleef's u20 variants)

_EXACT = frozenset(
    [
        "clone",
        "copy",
        "_to_copy",
        "masked_fill",
        "fill",
        "zero",
        "zeros",
        "ones",
        "full",
        "empty",
        "where",
        "index",
        "index_select",
        "embedding",
        "gather",
        "cat",
        "stack",
        "max",
        "min",
        "amax",
        "amin",
        "maximum",
        "minimum",
        "relu",
        "neg",
        "abs",
        "tril",
        "triu",
        "lift_fresh",
        "detach",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_empty_strided",
        "empty_strided",
        "arange",
        "select_backward",
        "slice_backward",
        "select_scatter",
        "slice_scatter",
        "masked_select",
        "constant_pad_nd",
        "roll",
        "flip",
        "repeat",
        "scatter",
        "index_put",
        "_index_put_impl",
        "unfold_backward",
        "diagonal_backward",
        "as_strided_scatter",
        "sort",
        "topk",
        "bernoulli",
        "native_dropout",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "normal",
        "uniform",
        "repeat_interleave",
        "scalar_tensor",
        "sign",
        "floor",
        "ceil",
        "round",
        "isfinite",
        "_unsafe_view",
        "_reshape_alias",
        "set",
        "view_as_real",
        "view_as_complex",
        "local_scalar_dense",
        "empty_permuted",
    ]
)
_PRODUCTS = frozenset(["mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addmv", "vdot"])


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number: the largest relative error of one rounding to nearest."""
    return float(torch.finfo(dtype).eps) / 2


def accumulation_roundoff(dtype: torch.dtype, device: torch.device) -> float:
    """The roundoff of the running sums inside a matmul: the dtype's own from float32 up, float32's for half precision."""
    return min(unit_roundoff(dtype), 2.0**-24)


def product_roundoff(dtype: torch.dtype, device: torch.device) -> float:
    """The roundoff of the factors inside a matmul: TF32's where the process allows it for float32 on CUDA."""
    if dtype is torch.float32 and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return 2.0**-11 if torch.get_float32_matmul_precision() == "high" else 2.0**-9
    if dtype is torch.float32 and device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2.0**-11
    return 0.0


class Rounding(Widened):
    """While active, every arithmetic operation's float64 result is off by what rounding in `dtype` may do to it.

    Draws from `noise`, a generator on the device of the tensors. `subnormal` says that values may be so small that the
    spacing of subnormals, or flushing them to zero, counts; `coherent` that values repeat. `runs` is how many runs go
    through together, in the outermost dimension.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        noise: torch.Generator,
        *,
        subnormal: bool = False,
        coherent: bool = False,
        runs: int = 1,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.coherent, self.runs = coherent, runs
        amplitude = math.sqrt(ROUNDINGS)
        info = torch.finfo(dtype)
        self.u = amplitude * unit_roundoff(dtype)
        self.u_sum = amplitude * accumulation_roundoff(dtype, device)
        self.u_factor = amplitude * product_roundoff(dtype, device)
        # half keeps subnormals; the others may flush them to zero
        half = dtype is torch.float16
        self.smallest = amplitude * float(2.0**-25 if half else info.smallest_normal)
        self.floor = self.smallest if half or subnormal else 0.0
        self.u_exp = (EXP_ULPS if dtype is torch.float32 else 4.0 if dtype is torch.float64 else 0.0) * unit_roundoff(
            dtype
        )
        self.blocked = dtype in (torch.float16, torch.bfloat16)
        self.noise = noise
        self._summed: Tensor | None = None  # relative error of the sums in the latest matmul
        self._products: dict[Any, Tensor] = {}  # right factor of a matmul -> its result
        self._terms: dict[Any, Tensor] = {}  # gradient of the probabilities -> rowsum((dO * O)**2)
        self._alive: list[Tensor] = []  # storages that the two dictionaries name must not be reused meanwhile

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = self.widen(args, kwargs or {})
        out = func(*args, **kwargs)
        name, exact = _describe(func)
        if exact:
            self._follow(args, out)
            return out
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self, out, args, kwargs)
        if isinstance(out, Tensor):
            if out.is_floating_point():
                self._follow(args, out)
                self._perturb(out, self._relative(out))
        elif isinstance(out, tuple | list):
            for item in out:
                if isinstance(item, Tensor) and item.is_floating_point():
                    self._perturb(item, self._relative(item))
        return out

    def _relative(self, out: Tensor) -> Tensor:
        # an infinity (a mask that is added) has no error, and infinity minus infinity would be NaN
        return out.abs().mul_(self.u).clamp_(max=1e300)

    # --- the errors -------------------------------------------------------------------------------------------------

    def _draw(self, value: Tensor) -> Tensor:
        """Errors of mean zero and standard deviation one, uniform ones: they are quick, and their sums become normal.

        Where values repeat, equal ones get equal errors, as they do in every implementation: a hash of the value says which.
        """
        if not self.coherent:
            draw = torch.rand(value.shape, dtype=torch.float32, device=value.device, generator=self.noise)
            return draw.sub_(0.5).mul_(2 * math.sqrt(3))
        # the lowest bits may differ between equal rows of one float64 matmul
        bits = value.contiguous().view(torch.int64) >> 14
        runs = self.runs if value.dim() and value.numel() % self.runs == 0 else 1
        salt = torch.randint(-(2**62), 2**62, (runs, 1), device=value.device, generator=self.noise)
        mixed = (bits.reshape(runs, -1) ^ salt) * -7046029254386353131
        mixed = (mixed ^ (mixed >> 31)) * -4658895280553007687
        # no last xor with a shift: shifted bits carry the sign along, and would take it away
        return mixed.reshape(value.shape).double().mul_(math.sqrt(3) * 2.0**-63)

    def _perturb(self, out: Tensor, std: Tensor) -> Tensor:
        """Add errors of the given size in place, and where subnormals matter one of their spacing; exact zeros stay."""
        if self.floor:
            std = std + self.floor * (out != 0)
        return out.add_(std.mul_(self._draw(out)))

    def _steps(self, n: int) -> float:
        return float(n) if self.coherent else math.sqrt(n)

    def _sum_error(self, total: Tensor, root_of_squares: Tensor, n: int) -> Tensor:
        """Error of a sum of n terms: random walks of the roundings of its partial sums, plus its own final rounding.

        `root_of_squares` is the root of the summed squares of the terms. Partial sums grow like the root of their number
        for terms of random sign and in proportion to it for terms of one sign; both are admitted. Equal terms are rounded
        alike, time after time: then the errors of n partial sums add up as n and not as its root.
        """
        drift = root_of_squares + total.abs() / math.sqrt(3)
        size = self.u * total.abs() + (self.u_sum * self._steps(n)) * drift
        if self.blocked and n > _BLOCK:
            size = size + (self.u * math.sqrt(n / _BLOCK)) * drift
        return size

    # --- operations with a rule of their own --------------------------------------------------------------------------

    def _product(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        a, b = args[-2:]
        root = torch.matmul(a * a, b * b).sqrt_()
        size = self._sum_error(out, root, a.shape[-1]) + self.u_factor * root
        self._perturb(out, size)
        self._summed = self.u_sum * math.sqrt(a.shape[-1]) * root / out.abs()
        if b.dim() >= 2:
            self._remember(a, b, out)
        return out

    def _softmax(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        # p = exp(s - lse): an error of the exponent is a relative error of p, and |s - lse| = |log p|
        logarithm = torch.log(out.clamp_min(torch.finfo(out.dtype).tiny)).abs_()
        # a backward pass may compute the scores again, and then nothing normalises their errors away
        again = self.u * args[0].abs()
        if self._summed is not None and self._summed.numel() == again.numel():
            again = again + again * self._summed.reshape(again.shape) / self.u  # the latest product: q kᵀ, summed anew
        again = torch.nan_to_num(again, nan=0.0).clamp_(max=1.0)
        # a log-sum-exp that is kept (for a backward pass) is rounded once for its whole row, and exponentials of
        # arguments that lie close together err alike
        kept = torch.logsumexp(args[0], args[1], keepdim=True).abs_()
        shared = self._draw(kept)
        # probabilities underflow in every regime, whatever the size of the values
        self._perturb(out, out * (self.u * (1 + logarithm) + again + self.u_exp) + self.smallest * (out != 0))
        # the exponential of a large error is not linear in it
        growth = torch.nan_to_num(shared * (self.u * (1 + kept) + self.u_exp), nan=0.0, posinf=0.0, neginf=0.0)
        return out.mul_(growth.clamp(-1.0, 1.0).exp_())

    def _softmax_backward(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        g, p, dim = args[0], args[1], args[2]
        terms = p * g
        delta = terms.sum(dim, keepdim=True)
        root = (terms * terms).sum(dim, keepdim=True).sqrt_()
        shared = self._sum_error(delta, root, g.shape[dim]) + self.u * root
        flash = self._terms.get(_key(g))
        if flash is not None and flash.numel() == delta.numel() and dim in (-1, g.dim() - 1):
            # a flash backward takes rowsum(dO * O) from O as it was summed and rounded; the same error for a whole row
            size = self.u + self.u_sum * self._steps(g.shape[dim])
            shared = shared + size * flash.reshape(delta.shape).sqrt()
        out.sub_(p * (shared * self._draw(delta)))
        return self._perturb(out, self.u * out.abs() + p * (self.u * (g.abs() + delta.abs())))

    def _sum(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        x = args[0]
        dim = args[1] if len(args) > 1 and isinstance(args[1], int | list | tuple) else None
        keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
        if not out.is_floating_point() or out.numel() == 0:
            return out
        n = max(1, x.numel() // out.numel())
        if dim is None or (isinstance(dim, list | tuple) and not dim):
            root = (x * x).sum().sqrt()
        else:
            root = (x * x).sum(dim, keepdim=keep).sqrt()
        return self._perturb(out, self._sum_error(out, root, n))

    def _mean(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        n = max(1, args[0].numel() // max(out.numel(), 1))
        return self._perturb(out, self.u * out.abs() + self.u_sum * math.sqrt(n) * out.abs())

    def _layer_norm(self, out: tuple[Tensor, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        x, weight, bias = args[0], args[2], args[3]
        y, mean, rstd = out
        scaled = y if bias is None else y - bias
        spread = (x.abs() + mean.abs()) * rstd
        if weight is not None:
            spread = spread * weight.abs()
        self._perturb(y, self.u * (y.abs() + scaled.abs()) + self.u_sum * spread)
        # what is kept for the backward pass may be kept in the dtype itself
        self._perturb(mean, self._relative(mean))
        self._perturb(rstd, self._relative(rstd))
        return out

    def _layer_norm_backward(
        self, out: tuple[Tensor | None, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        g, x, shape, mean, rstd, weight = args[:6]
        normed = (x - mean) * rstd
        scaled = g if weight is None else g * weight
        dx, dw, db = out
        if dx is not None:
            dims = tuple(range(-len(shape), 0))
            root = scaled.square().mean(dims, keepdim=True).sqrt()
            size = self.u * dx.abs() + 4 * self.u_sum * rstd * (scaled.abs() + root * (1 + normed.abs()))
            self._perturb(dx, size)
        rows = tuple(range(x.dim() - len(shape)))
        n = max(1, x.numel() // max(1, math.prod(shape)))
        if dw is not None:
            self._perturb(dw, self._sum_error(dw, (g * normed).square().sum(rows).sqrt(), n))
        if db is not None:
            self._perturb(db, self._sum_error(db, g.square().sum(rows).sqrt(), n))
        return out

    def _gelu(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return self._perturb(out, self.u * out.abs() + self.u_sum * args[0].abs())

    def _log_softmax(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return self._perturb(out, self.u * out.abs() + self.u_sum * args[0].abs())

    def _log_softmax_backward(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        g, log_p, dim = args[0], args[1], args[2]
        size = self.u * (out.abs() + g.abs() + log_p.exp() * g.sum(dim, keepdim=True).abs())
        return self._perturb(out, size)

    def _logsumexp(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return self._perturb(out, self.u * (1 + out.abs()) + self.u_exp)

    def _exp(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return self._perturb(out, (self.u + self.u_exp) * out.abs())

    def _embedding_backward(self, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        root = torch.ops.aten.embedding_dense_backward(args[0].square(), *args[1:]).sqrt()
        n = max(1, args[1].numel())
        return self._perturb(out, self._sum_error(out, root, n))

    # --- where a gradient came from -----------------------------------------------------------------------------------

    def _remember(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Keep O = P @ V by its V, and when dP = dO @ Vᵀ is formed, keep rowsum((dO * O)**2) by that dP."""
        earlier = self._products.get(_key(b))
        if earlier is not None and earlier.shape == a.shape:
            self._terms[_key(out)] = (a * earlier).square().sum(-1)
            self._alive.append(out)
            return
        self._products[_key(b)] = out.clone()
        self._alive.append(b)

    def _follow(self, args: tuple[Any, ...], out: Any) -> None:
        """An elementwise result (dropout's backward, a cast) inherits the origin of its operand."""
        if not self._terms or not isinstance(out, Tensor):
            return
        for arg in args:
            if isinstance(arg, Tensor) and arg.numel() == out.numel():
                terms = self._terms.get(_key(arg))
                if terms is not None:
                    self._terms[_key(out)] = terms
                    self._alive.append(out)
                    return


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_PRODUCTS, Rounding._product),
    "_softmax": Rounding._softmax,
    "_safe_softmax": Rounding._softmax,
    "_softmax_backward_data": Rounding._softmax_backward,
    "sum": Rounding._sum,
    "mean": Rounding._mean,
    "native_layer_norm": Rounding._layer_norm,
    "native_layer_norm_backward": Rounding._layer_norm_backward,
    "gelu": Rounding._gelu,
    "_log_softmax": Rounding._log_softmax,
    "_log_softmax_backward_data": Rounding._log_softmax_backward,
    "logsumexp": Rounding._logsumexp,
    "exp": Rounding._exp,
    "embedding_dense_backward": Rounding._embedding_backward,
}

_described: dict[Any, tuple[str, bool]] = {}


def _describe(func: Any) -> tuple[str, bool]:
    """An operation's name without the in-place underscore, and whether its result is exact: a view, a copy, a choice."""
    known = _described.get(func)
    if known is None:
        name = func.overloadpacket.__name__
        name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        returns = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        known = _described[func] = (name, view or name in _EXACT)
    return known


def _key(x: Tensor) -> tuple[int, int, int]:
    return x.untyped_storage().data_ptr(), int(x.storage_offset()), x.numel()


@dataclass(frozen=True)
class Sample:
    """What `count` perturbed runs gave: per tensor their deviations from the truth, stacked as (count, *shape)."""

    count: int
    deviations: Mapping[str, Tensor]
