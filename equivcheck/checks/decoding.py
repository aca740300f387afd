"""Cached decoding: with a cache of earlier keys and values, logits are those of the whole sequence at once."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.cases.names import CACHES
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import GENERATED
from equivcheck.checks.base.within import within
from equivcheck.numerics.oracle import Widened, math_backend
from equivcheck.pairs.forward import is_adapted, tensor_of
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import ensure_foreign, foreign
from equivcheck.runtime import clock
from equivcheck.runtime.rng import seeded

__all__ = ["decoding"]

_SAME = 2.0**-10  # of the largest logit: the original's cache may round, but may not change the model


def decoding(pair: Pair, case: Case) -> CaseResult:
    """Cached logits are the oracle's of the full forward pass: prefill and steps, in chunks, and token by token."""
    problem = pair.problem(case.but(training=False, attn_pdrop=0.0, resid_pdrop=0.0))
    name = cache_name(problem.reference)
    if not name:
        return CaseResult(
            notes=("the original takes no cache: no forward parameter is called " + ", ".join(CACHES),),
            judged=False,
            applies=False,
        )
    truth = problem.truth(gradients=False)
    worst = CaseResult()
    for how, chunks in _plans(case.seq_len):
        oracle, inputs = problem.original_in_float64()  # on the oracle's device
        try:
            with clock.in_part(clock.ORACLE), math_backend(), Widened():
                cached_logits = _decoded(problem, oracle, inputs[0], chunks, name)["logits"]
        except Exception as error:  # the candidate need not do it either
            ensure_foreign(error)
            note = f"not judged where the original itself raises {type(error).__name__} with a cache"
            return CaseResult(notes=(note,), judged=False, applies=False)
        full_logits = truth.values["logits"]
        if cached_logits is None or not float((cached_logits - full_logits).abs().max()) <= _SAME * float(
            full_logits.abs().max()
        ):
            return CaseResult(
                notes=(f"not judged where the original's own cache gives other logits ({how})",),
                judged=False,
                applies=False,
            )

        def run(module: nn.Module, chunks: Sequence[int] = chunks) -> Results:
            return _decoded(problem, module, problem.inputs[0], chunks, name)

        with within(f"with a cache, {how}", plain=True):
            candidate_results = candidate_run(problem, run)
            result = compare_all(
                problem,
                truth,
                candidate_results,
                lambda run=run: run(problem.reference),  # type: ignore[misc]
                ["logits"],
            )
        worst = CaseResult.worst((worst, result))
    return worst


def cache_name(module: nn.Module) -> str:
    """The forward parameter that takes a cache; empty if there is none, or if a user's `inputs=` adapts the call."""
    if is_adapted(module):
        return ""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in CACHES if name in parameters), "")


def _plans(length: int) -> list[tuple[str, list[int]]]:
    half = max(1, length // 2)
    plans = [
        ("half at once and then token by token", [half, *[1] * (length - half)]),
        ("in chunks of a third", [c for c in (length // 3, length // 3, length - 2 * (length // 3)) if c]),
        ("token by token", [1] * length),
    ]
    return [(how, chunks) for how, chunks in plans if len(chunks) > 1] or [("at once", [length])]


def _decoded(problem: Problem, module: nn.Module, idx: Tensor, chunks: Sequence[int], name: str) -> Results:
    """The logits of all tokens, (B, T, V); each chunk hands the cache to the next."""
    flag = {"use_cache": True} if "use_cache" in inspect.signature(module.forward).parameters else {}
    cache, logits, start = None, [], 0
    with seeded(problem.case.seed, problem.device), torch.no_grad():
        for chunk in chunks:
            with foreign():
                out = module(idx[:, start : start + chunk], **{name: cache}, **flag)
                logits.append(tensor_of(out))
                cache = _cache_of(out, name)
            start += chunk
    return {"logits": torch.cat(logits, 1)}


def _cache_of(out: object, name: str) -> object:
    """The cache that a forward pass returned: an attribute of the same name, or the last of a tuple."""
    cache = getattr(out, name, None)
    if cache is None and isinstance(out, tuple | list) and len(out) > 1:
        cache = out[-1]
    if cache is None:
        raise TypeError(f"the forward pass returned no cache: neither an attribute {name!r} nor the last of a tuple")
    return cache


CHECKS = (Check.of("decoding", decoding, GENERATED.but(regimes=("sharpened", "ties"))),)
