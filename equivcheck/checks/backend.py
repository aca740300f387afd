"""Backend: which attention kernel the candidate dispatches, and whether it is the required one."""

from collections.abc import Iterable, Mapping
from functools import partial

from torch import nn

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.errors import Mismatch
from equivcheck.numerics.dtypes import WIDE
from equivcheck.pairs.pair import Pair
from equivcheck.runtime.kernel_trace import kernels_of
from equivcheck.runtime.required_kernels import requirement
from equivcheck.runtime.rng import seeded

__all__ = ["HEAD_SIZES", "backend", "requiring"]

HEAD_SIZES = (32, 64, 128)
"""The head sizes for which a requirement is judged: every fused kernel has them."""
_RECORDED = (32, 36, 64, 80, 128, 256)
_RATE = 0.1
_TYPICAL = {"batch_size": 1, "seq_len": 32, "n_head": 1, "block_size": 32, "training": True, "resid_pdrop": 0.0}


def backend(pair: Pair, case: Case, *, required: Mapping[str, str] | None = None) -> CaseResult:
    """The kernel is recorded per dtype, head size and dropout; if one is required, no other one runs in its place."""
    required_kernel = (required or {}).get(case.dtype)
    if required_kernel is None or case.head_size not in HEAD_SIZES:
        return _recorded(pair, case, judged=False)
    kernels = _kernels(pair, case)
    if kernels != (required_kernel,):
        dropout = f"dropout {case.attn_pdrop:g}" if case.training and case.attn_pdrop else "no dropout"
        raise Mismatch(
            f"the kernel that ran is {' and '.join(kernels)}, and {required_kernel} is required: "
            f"{case.dtype}, head size {case.head_size}, {dropout}, on {pair.device}"
            f"{_hint(pair, case, required_kernel)}",
            where="kernel",
        )
    return _recorded(pair, case, judged=True)


def _hint(pair: Pair, case: Case, required_kernel: str) -> str:
    is_wide = case.dtype in WIDE
    if _has_kernels_of_cuda(pair) and required_kernel in ("flash", "cudnn") and is_wide:
        return (
            f"; no {required_kernel} kernel takes {case.dtype} on CUDA: require it where it can run, as in "
            f"--require-backend bfloat16={required_kernel}"
        )
    return ""


def _has_kernels_of_cuda(pair: Pair) -> bool:
    """Whether the kernels are CUDA's: there flash and cuDNN take only half precision; on a CPU flash takes all."""
    return pair.device.type == "cuda"


def _kernels(pair: Pair, case: Case) -> tuple[str, ...]:
    problem = pair.problem(case)

    def forward(module: nn.Module) -> None:
        # with autograd: torch does not choose a kernel without a backward pass then
        with seeded(case.seed, problem.device):
            problem.outputs(module, [x.detach().requires_grad_(x.is_floating_point()) for x in problem.inputs])

    return candidate_run(problem, lambda module: kernels_of(lambda: forward(module)))


def _recorded(pair: Pair, case: Case, *, judged: bool) -> CaseResult:
    """The result of a case that passed, with the kernels that run in its dtype as a note and as data."""
    kernels = _description(pair, case)
    return CaseResult(notes=(f"{case.dtype}: {kernels}",), judged=judged, data={case.dtype: kernels})


def _description(pair: Pair, case: Case) -> str:
    """The kernels of the case's dtype over head sizes, without and with dropout: the same for all cases of a dtype."""
    descriptions = []
    for rate in (0.0, _RATE):
        sizes: dict[str, list[str]] = {}
        for size in _RECORDED:
            try:
                kernels = " and ".join(_kernels(pair, case.but(head_size=size, attn_pdrop=rate, seed=0, **_TYPICAL)))
            except Mismatch as mismatch:
                kernels = f"{mismatch.where} is raised"
            sizes.setdefault(kernels, []).append(str(size))
        descriptions.append(
            f"{next(iter(sizes))} at every head size from {_RECORDED[0]} to {_RECORDED[-1]}"
            if len(sizes) == 1
            else "; ".join(f"{names} at {', '.join(heads)}" for names, heads in sizes.items())
        )
    text = f"{descriptions[0]}, " + (
        "with dropout too" if descriptions[0] == descriptions[1] else f"with dropout {descriptions[1]}"
    )
    if case.dtype == "float32" and _has_kernels_of_cuda(pair):
        text += "; in float32 no flash kernel ever runs on CUDA"
    return text


def requiring(checks: Iterable[Check], texts: Iterable[str]) -> list[Check]:
    """The checks, with a `backend` that judges the kernels that `texts` require."""
    texts = tuple(texts)
    required = requirement(texts)
    if not required:
        return list(checks)
    options = [word for text in texts for word in ("--require-backend", text)]
    run = partial(backend, required=required)
    return [check.judging(run, *options) if check.name == "backend" else check for check in checks]


_RUN = CaseSpace(
    regimes=("sharpened",),
    layouts=("contiguous",),
    max_seq_len=64,
    max_batch_size=2,
    max_heads=2,
    head_sizes=HEAD_SIZES,
    train_rates=(0.0, 0.1),
)

CHECKS = (Check.of("backend", backend, _RUN),)
