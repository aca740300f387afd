"""A pair at work in the sizes of a preset: attention alone, a GPT's forward pass, a training step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from equivcheck.bench.paired_timing import Action, Make
from equivcheck.bench.presets import ALONE, DTYPES, PRESETS, WHOLE, Size
from equivcheck.errors import UsageError
from equivcheck.pairs.kinds import KINDS
from equivcheck.pairs.named_outputs import model_outputs
from equivcheck.pairs.pair import Pair
from equivcheck.runtime.global_state import default_dtype
from equivcheck.runtime.rng import generators_kept

__all__ = ["Row", "flops", "makes", "rows"]

_BUFFERS = 3  # inputs that take turns


@dataclass(frozen=True)
class Row:
    """One line of a benchmark: a kind of work, a dtype and a size."""

    work: str
    dtype: str
    size: Size

    @property
    def name(self) -> str:
        """The row in words, the same in every record, so that records can be compared."""
        s = self.size
        whole = f" {s.layers} layers V={s.vocab_size}" if self.work in WHOLE else ""
        return f"{self.work}, {self.dtype}, B={s.B} T={s.T} H={s.H} C={s.C}{whole} block={s.block_size} rate={s.rate:g}"


def rows(preset: str, dtypes: tuple[str, ...], kind: str) -> Iterator[Row]:
    """The rows of a preset for a pair of this kind, in `dtypes` or, if that is empty, in those of the preset."""
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}: allowed are {', '.join(PRESETS)}")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not timed: allowed are {', '.join(DTYPES)}")
    chosen = PRESETS[preset]
    parts = () if KINDS[kind].whole_model else ALONE
    works = (*parts, *(() if KINDS[kind].function else WHOLE))
    selected = [
        Row(work, dtype, size)
        for work in works
        for dtype in dtypes or chosen.dtypes
        for size in chosen.sizes.get(work, ())
    ]
    if not selected:
        raise UsageError(f"preset {preset!r} times attention alone, and the pair is a {kind}: use guide, gpt2 or small")
    yield from selected


def makes(subject: Pair, row: Row) -> tuple[Make, Make]:
    """The builders of the reference's and the candidate's action; each builds on the device, from the same seed."""
    if subject.traits.function:
        reference, candidate = (
            partial(_function, f, row, subject.device, subject.heads_last)
            for f in (subject.reference, subject.candidate)
        )
        return reference, candidate
    config = row.size.config
    if row.work in ALONE:
        builds: tuple[Callable[[], nn.Module], ...] = (
            lambda: subject.reference(config()),
            lambda: subject.candidate(config()),
        )
    else:
        whole = subject.within_gpt()
        builds = (
            lambda: whole.reference(config()),
            (lambda: whole.candidate(whole.reference(config())))
            if subject.traits.replaces
            else (lambda: whole.candidate(config())),
        )
    work = _attention if row.work in ALONE else _gpt
    return partial(work, builds[0], row, subject.device), partial(work, builds[1], row, subject.device)


def _built(build: Callable[[], nn.Module], row: Row, device: torch.device) -> nn.Module:
    dtype: torch.dtype = getattr(torch, row.dtype)
    with generators_kept(device), torch.device(device):
        torch.manual_seed(0)
        try:
            # in its dtype from the beginning: a GPU has no memory for a mask of 131072 x 131072 in both dtypes
            with default_dtype(dtype):
                module = build()
        except NotImplementedError:  # an initial value that is computed in float32 only
            torch.manual_seed(0)
            module = build()
    return module.to(device=device, dtype=dtype).train(_trains(row))


def _trains(row: Row) -> bool:
    return row.work in ("attention + backward", "training step")


def _attention(build: Callable[[], nn.Module], row: Row, device: torch.device) -> Action:
    module, s = _built(build, row, device), row.size
    inputs = [_random((s.B, s.T, s.C), row, device) for _ in range(_BUFFERS)]  # each (B, T, C)
    if not _trains(row):

        def forward(number: int) -> object:
            with torch.no_grad():
                return module(inputs[number % _BUFFERS])

        return forward
    upstream = [_random((s.B, s.T, s.C), row, device) for _ in range(_BUFFERS)]  # each (B, T, C)

    def both(number: int) -> None:
        x = inputs[number % _BUFFERS].requires_grad_()
        x.grad = None
        module.zero_grad()
        out = module(x)
        (out[0] if isinstance(out, tuple) else out).backward(upstream[number % _BUFFERS])

    return both


def _function(function: Callable[..., Tensor], row: Row, device: torch.device, heads_last: bool) -> Action:
    s = row.size
    shape = (s.B, s.H, s.T, s.C // s.H)

    def heads() -> Tensor:  # (B, H, T, D), which lie in memory as the function takes them
        if heads_last:
            return _random((s.B, s.T, s.H, s.C // s.H), row, device).transpose(1, 2)
        return _random(shape, row, device)

    inputs = [tuple(heads() for _ in "qkv") for _ in range(_BUFFERS)]
    rate, scale = s.rate if _trains(row) else 0.0, shape[-1] ** -0.5
    if not _trains(row):

        def forward(number: int) -> object:
            with torch.no_grad():
                return function(*inputs[number % _BUFFERS], is_causal=True, dropout_p=rate, scale=scale)

        return forward
    upstream = [heads() for _ in range(_BUFFERS)]

    def both(number: int) -> None:
        q, k, v = (x.detach().requires_grad_() for x in inputs[number % _BUFFERS])
        function(q, k, v, is_causal=True, dropout_p=rate, scale=scale).backward(upstream[number % _BUFFERS])

    return both


def _gpt(build: Callable[[], nn.Module], row: Row, device: torch.device) -> Action:
    model, s = _built(build, row, device), row.size
    inputs = [torch.randint(s.vocab_size, (s.B, s.T + 1), device=device) for _ in range(_BUFFERS)]  # each (B, T + 1)
    if not _trains(row):

        def forward(number: int) -> object:
            with torch.no_grad():
                return model(inputs[number % _BUFFERS][:, :-1])

        return forward
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step(number: int) -> None:
        idx = inputs[number % _BUFFERS]
        optimizer.zero_grad()
        model_outputs(model, (idx[:, :-1], idx[:, 1:]))["loss"].backward()
        optimizer.step()

    return step


def _random(shape: tuple[int, ...], row: Row, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=getattr(torch, row.dtype), device=device)


def flops(row: Row, kind: str) -> float:
    """The floating-point operations that the work needs: those of matmuls, without masked scores.

    A backward pass counts twice its forward pass, and the attention in it 2.5 times: a fused kernel computes scores
    again.
    """
    s = row.size
    attention = 2.0 * s.B * s.T * s.T * s.C
    linears = 0.0 if KINDS[kind].function else 8.0 * s.B * s.T * s.C * s.C
    if row.work in WHOLE:
        attention *= s.layers
        linears = s.layers * 3 * linears + 2.0 * s.B * s.T * s.C * s.vocab_size
    return attention * 3.5 + linears * 3 if _trains(row) else attention + linears
