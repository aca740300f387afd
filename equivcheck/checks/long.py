"""Long sequences: where the original's T x T scores do not fit, its definition by blocks of queries is the oracle.

A case stands for a longer one (`lengthened`), so that ids stay small, counterexamples shrink and a replay needs nothing
but the id. The original is never built or run at that length: at a short one it must be plain causal attention, that is
`blocks.attention` between its own linears; then those linears around `blocks.attention` take its place.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck import blocks
from equivcheck.budget import Rounding, Sample
from equivcheck.cases import REPEATING, Case, arrange
from equivcheck.checks.holding import Held, Pair, candidate_run, hold
from equivcheck.comparison import Mismatch
from equivcheck.oracle import to_float64
from equivcheck.problem import Problem, Truth, seeded
from equivcheck.weights import qkv, sequence, upstream

__all__ = ["NotPlain", "lengthened", "long", "long_problem", "long_truth"]

_LENGTHS = {"cpu": (1024, 4096, 16384), "cuda": (1024, 16384, 131072)}
_WIDTH = 16
_SHORT = 1100  # where the original is held against plain attention: past the windows and blocks that people use
_SAME = 2.0**-30  # of the largest value: far above rounding in float64, far below any other attention
_LINEARS = ("key", "query", "value", "proj")


class NotPlain(Exception):
    """The original is not plain causal attention, so that nothing is known of it at a length where it does not run."""


def lengthened(case: Case, device: torch.device) -> Case:
    """The long case that a small one stands for, on this kind of device.

    T is one of `_LENGTHS` by the small case's `seq_len`, and one more, none or one less by its seed; heads are 16 times
    as wide, so that the simplest case is one that fused kernels take. In eval mode, with rates of 0, and with as much
    room in `block_size` past T as the small case has.
    """
    lengths = _LENGTHS[device.type]
    length = lengths[min(case.seq_len, len(lengths)) - 1] + (1, 0, -1)[case.seed % 3]
    return case.but(
        seq_len=length,
        block_size=length + case.block_size - case.seq_len,
        head_size=_WIDTH * case.head_size,
        training=False,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )


def long(pair: Pair, case: Case) -> Held:
    """Where the original's T x T scores do not fit, outputs and gradients are within budget of the oracle by blocks."""
    longer = lengthened(case, pair.device)
    problem = long_problem(pair, longer)
    try:
        truth = long_truth(pair, problem)
    except NotPlain as why:
        return Held(None, notes=(f"long sequences were not judged: {why}",), judged=False)
    try:
        got = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
        unrecorded = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
    except Mismatch as mismatch:
        if does_not_fit(mismatch.__cause__):
            return Held(
                None,
                notes=(f"the candidate does not fit in memory at T={longer.seq_len}, {longer.dtype}",),
                judged=False,
            )
        raise
    names = tuple(dict.fromkeys((*truth.values, *got)))
    try:
        held = max(
            hold(problem, truth, got, dict, names),
            hold(problem, truth, unrecorded, dict, ("output",)),
            key=lambda h: h.ratio or 0.0,
        )
    except Mismatch as mismatch:
        told = f"at T={longer.seq_len}, for which the case stands:\n{mismatch}"
        raise Mismatch(told, ratio=mismatch.ratio, where=mismatch.where) from None
    return Held(held.ratio, held.where, (*held.notes, f"T={longer.seq_len}, judged by blocks of queries"))


def does_not_fit(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


# --- the problem at its length ----------------------------------------------------------------------------------------


def long_problem(pair: Pair, longer: Case) -> Problem:
    """The long case made real, with plain attention by blocks in the place of the original."""
    small = pair.problem(longer.but(seq_len=1, block_size=1))

    def plain() -> nn.Module:
        return _plain(pair, pair.build_reference(small.case), longer)

    if pair.kind == "function":
        inputs = tuple(arrange(x, longer.layout) for x in qkv(longer))
    else:  # the projections have the names by which `weights` sharpens them: `_plain` asks for those
        inputs = (arrange(sequence(longer, sharpen=False), longer.layout),)
    flowing = upstream(longer, "output", inputs[-1].shape)
    return replace(
        small,
        case=longer,
        make_reference=plain,
        make_candidate=lambda _: _candidate(pair, small.case, longer),
        inputs=tuple(x.to(pair.device) for x in inputs),
        upstream={"output": flowing.to(pair.device)},
        memory_key=("long", pair.kind, longer),
    )


class _PlainFunction(nn.Module):
    """Causal attention of q, k, v by blocks."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return blocks.attention(q, k, v, scale=self.scale)


class _PlainModule(nn.Module):
    """The original's four linears around causal attention by blocks."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        for name in _LINEARS:
            linear = getattr(original, name, None)
            if not isinstance(linear, nn.Linear):
                raise NotPlain(f"the original has no nn.Linear named {name!r}")
            self.add_module(name, linear)
        heads = getattr(original, "n_head", None)
        if not isinstance(heads, int):
            raise NotPlain("the original has no n_head")
        self.n_head = heads
        self.train(original.training)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        parts = (self.get_submodule(name)(x) for name in ("query", "key", "value"))  # (B, T, C) each
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in parts)  # (B, nh, T, hs) each
        y = blocks.attention(q, k, v, scale=1.0 / math.sqrt(q.shape[-1]))  # (B, nh, T, hs)
        return self.get_submodule("proj")(y.transpose(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


def _plain(pair: Pair, original: nn.Module, case: Case) -> nn.Module:
    if pair.kind == "function":
        return _PlainFunction(case.head_size**-0.5 if case.scale is None else case.scale).train(case.training)
    return _PlainModule(original)


def _candidate(pair: Pair, small: Case, longer: Case) -> nn.Module:
    """The candidate at its length, on its device from the start, with the weights of a short original.

    Weights do not depend on `block_size`; a buffer that does, such as a mask, stays the candidate's own.
    """
    original = pair.build_reference(small)
    if pair.kind == "function":
        return pair.build_candidate(longer, original)
    module = _built_on_device(pair, longer)
    state, own = original.state_dict(), module.state_dict()
    for name, _ in module.named_buffers():
        if name in state and own[name].shape != state[name].shape:
            state[name] = own[name]
    module.load_state_dict(state, strict=True)
    return module.train(longer.training)


def _built_on_device(pair: Pair, case: Case) -> nn.Module:
    # a T x T mask may fit where the two of them that are there while it is made, in float32, do not
    for made_in in dict.fromkeys((torch.float32, case.torch_dtype)):
        try:
            with seeded(case.seed + 1, pair.device), torch.device(pair.device), _default_dtype(made_in):
                module: nn.Module = pair.candidate(case.config())
                return module.to(device=pair.device, dtype=case.torch_dtype)
        except torch.OutOfMemoryError:
            if made_in is case.torch_dtype:
                raise
    raise AssertionError("not reached: the last dtype raises")


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- the truth at its length ------------------------------------------------------------------------------------------


def long_truth(pair: Pair, problem: Problem) -> Truth:
    """The oracle by blocks and what rounding may move; raises NotPlain where it does not stand for the original."""

    def make() -> Truth:
        _must_be_plain(pair, problem.case)
        values = problem.oracle_values(gradients=True)
        return _LongTruth(values, lambda count: _perturbed(problem, values, count), first=2)

    return problem.memory.recall(problem.memory_key, make)


class _LongTruth(Truth):
    """A truth with so many elements that few perturbed runs tell how far rounding goes."""

    def sample(self, *, refined: bool) -> Sample:
        count = 8 if refined else self.first
        if count not in self._samples:
            self._samples[count] = self.perturbed(count)
        return self._samples[count]


def _must_be_plain(pair: Pair, case: Case) -> None:
    """Hold the original against plain attention in float64, forward and backward, at a length at which it runs."""
    if not case.is_causal:
        raise NotPlain("only causal attention is known by blocks")
    length = min(case.seq_len, _SHORT)
    short = case.but(
        batch_size=1, seq_len=length, block_size=length, dtype="float64", regime="sharpened", layout="contiguous"
    )
    problem = pair.problem(short)
    try:
        own = problem.oracle_values(gradients=True)
    except Exception as error:
        raise NotPlain(f"the original raises {type(error).__name__} at T={length}") from error
    plain = _plain(pair, problem.make_reference(), short)
    got = problem.run(plain, problem.inputs, gradients=True)
    # not of each tensor's own: the gradient of a key's bias is zero but for rounding
    largest = max(float(value.abs().max()) for value in own.values())
    for name in dict.fromkeys((*own, *got)):
        mine, its = got.get(name), own.get(name)
        if mine is None or its is None or mine.shape != its.shape:
            raise NotPlain(f"the original is not plain causal attention: {name} is not what that has")
        if not float((mine - its).abs().max()) <= _SAME * largest:
            raise NotPlain(f"the original is not plain causal attention: {name} differs at T={length}")


def _perturbed(problem: Problem, values: Mapping[str, Tensor], count: int) -> Sample:
    """Perturbed runs of the oracle by blocks, one after the other."""
    oracle, inputs = to_float64(problem.make_reference(), problem.inputs)
    flowing = {name: value.to(torch.float64) for name, value in problem.upstream.items()}
    noise = torch.Generator(device=problem.device).manual_seed(problem.case.seed * 64 + count)
    deviations: dict[str, list[Tensor]] = {name: [] for name in values}
    for _ in range(count):
        with _BlockRounding(problem.case, problem.device, noise):
            run = problem.run(oracle, inputs, gradients=True, upstream=flowing)
        for name, found in deviations.items():
            value = run[name]
            assert value is not None, "the oracle gave this tensor before and now it does not"
            found.append(value.sub_(values[name]))
    return Sample(count, {name: torch.stack(found) for name, found in deviations.items()})


class _BlockRounding(Rounding):
    """Rounding for attention by blocks: running sums are kept as kernels for long sequences keep them.

    On CUDA in float32. On a CPU, in half precision, from one block of 256 terms to the next in the dtype itself, as the
    backward pass of torch's CPU kernel does; more often than that nobody may round who wants long sequences.
    """

    _STEP = 256

    def __init__(self, case: Case, device: torch.device, noise: torch.Generator) -> None:
        super().__init__(
            case.torch_dtype, device, noise, subnormal=case.regime == "tiny", coherent=case.regime in REPEATING
        )
        self.stepped, self.blocked = self.blocked and device.type == "cpu", False
        _, queries = blocks.block_shape(case.batch_size * case.n_head, case.seq_len, device)
        self.u_add = self.u * math.sqrt(min(1.0, queries / self._STEP)) if self.stepped else self.u_sum

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.add_.Tensor:  # a block's part of dk or dv
            total: Tensor = func(*args, **(kwargs or {}))
            return self._perturb(total, total.abs().mul_(self.u_add))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _sum_error(self, total: Tensor, root_of_squares: Tensor, n: int) -> Tensor:
        size = super()._sum_error(total, root_of_squares, n)
        if self.stepped and n > self._STEP:
            size = size + (self.u * math.sqrt(n / self._STEP)) * (root_of_squares + total.abs() / math.sqrt(3))
        return size

    def _remember(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Keep nothing: the products of all blocks are T x T, and delta is taken from a rounded O anyway."""
