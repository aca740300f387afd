"""Generation: the same prompt gives the same tokens, greedy or sampled, except where rounding decides between two.

Both models generate along their own paths. At the first difference the oracle's logits for that prefix, moved by what
rounding may move them, say whether the candidate's token can be the right one as well.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.spaces import GENERATED
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import foreign
from equivcheck.runtime.rng import seeded

__all__ = ["generation"]

_NEW = 12  # tokens, past the end of the block in cases whose prompt nearly fills it
_WIDER = 3.0  # than a perturbed run: their largest, of many, is some three standard deviations


@dataclass(frozen=True)
class _Way:
    told: str
    sampled: bool
    temperature: float = 1.0
    top_k: int = 0  # 0: all


_WAYS = (_Way("greedy", False), _Way("sampled", True), _Way("sampled of the first three, cooled,", True, 0.6, 3))


def generation(pair: Pair, case: Case) -> CaseResult:
    """The tokens that are generated, greedily and sampled from the same generator state, are the original's."""
    inside = pair.within_gpt()
    problem = inside.problem(case.but(training=False, attn_pdrop=0.0, resid_pdrop=0.0))
    prompt = problem.inputs[0].clone()
    explained = 0
    for way in _WAYS:
        options = _options(problem.reference, way)
        if options is None and way.top_k:
            continue  # there is nothing that takes it
        own = _generated(problem, problem.reference, prompt, way, options)
        mine = candidate_run(problem, partial(_generated, problem, prompt=prompt, way=way, options=options))
        if mine.shape != own.shape or mine.dtype != own.dtype:
            raise Mismatch(
                f"generate gives {tuple(mine.shape)} {mine.dtype}, and {tuple(own.shape)} {own.dtype} in the original"
            )
        explained += _explained(problem, own, mine, way)
    return CaseResult(notes=("a token lay at a tie that rounding explains",) if explained else ())


def _options(model: nn.Module, way: _Way) -> dict[str, Any] | None:
    """How a model's own `generate` is asked to generate in this way; None where it has none, or it cannot be asked."""
    generate = getattr(model, "generate", None)
    takes = set(inspect.signature(generate).parameters) if callable(generate) else set()
    options: dict[str, Any] = {"max_new_tokens": _NEW}
    if "do_sample" in takes:
        options["do_sample"] = way.sampled
    elif not way.sampled:
        options["top_k"] = 1  # nanoGPT's always draws
    if way.top_k:
        options |= {"temperature": way.temperature, "top_k": way.top_k}
    return options if options.keys() <= takes else None


def _generated(
    problem: Problem, module: nn.Module, prompt: Tensor, way: _Way, options: Mapping[str, Any] | None
) -> Tensor:
    """Prompt and new tokens, (B, T + _NEW): by the model's own `generate` where it has one, else by its forward pass."""
    generate = getattr(module, "generate", None)
    with seeded(problem.case.seed, problem.device), torch.no_grad():
        if callable(generate) and options is not None:
            with foreign():
                found: Tensor = generate(prompt, **options)
            return found
        idx = prompt
        for _ in range(_NEW):
            logits = _last_logits(problem, module, idx)
            token = (
                torch.multinomial(logits.softmax(-1), 1) if way.sampled else logits.argmax(-1, keepdim=True)
            )  # (B, 1)
            idx = torch.cat((idx, token), 1)
        return idx


def _last_logits(problem: Problem, module: nn.Module, idx: Tensor) -> Tensor:
    window = idx[:, -problem.case.block_size :]
    return problem.outputs(module, (window, window))["logits"][:, -1]  # (B, vocab_size)


def _explained(problem: Problem, own: Tensor, mine: Tensor, way: _Way) -> int:
    """How many sequences part at a token that rounding may decide; a Mismatch for one that it may not."""
    prompt = problem.inputs[0].shape[1]
    if not torch.equal(own[:, :prompt], mine[:, :prompt]):
        raise Mismatch("generate changes the prompt", where="prompt")
    count = 0
    for row in range(own.shape[0]):
        differs = (own[row] != mine[row]).nonzero()
        if not len(differs):
            continue
        at = int(differs[0])
        if not _may_be(problem, own, row, at, int(mine[row, at]), way):
            raise Mismatch(
                f"{way.told} token {at - prompt + 1} of sequence {row} is {int(mine[row, at])}, and "
                f"{int(own[row, at])} in the original: rounding does not explain it",
                where=way.told,
            )
        count += 1
    return count


def _may_be(problem: Problem, own: Tensor, row: int, at: int, token: int, way: _Way) -> bool:
    """Whether `token` may come next in a sequence, as far as rounding moves the oracle's logits."""
    window = own[:, max(0, at - problem.case.block_size) : at]
    prefix = replace(problem, inputs=(window, window), memory=Memory(), memory_key="prefix")
    truth = prefix.truth(gradients=False)
    logits = truth.values["logits"][:, -1]  # (B, vocab_size)
    spread = truth.sample(refined=True).deviations["logits"][:, row, -1].abs().amax(0) * _WIDER  # (vocab_size,)
    chosen = int(own[row, at])
    moved = logits.clone()
    moved[row, token] += spread[token]
    moved[row, chosen] -= spread[chosen]
    if not way.sampled:
        return bool(moved[row, token] >= moved[row, chosen])
    earlier = at - problem.inputs[0].shape[1]
    if _redrawn(problem, logits, earlier, row, way) not in (chosen, token):
        return True  # the original draws in another way than this: what it would draw from other logits is not known
    if way.top_k and way.top_k < logits.shape[-1]:
        order = logits[row].argsort(descending=True)[way.top_k - 1 :]  # the last that is kept, and those that are not
        if bool((logits[row, order[1:]] + spread[order[1:]] >= logits[row, order[0]] - spread[order[0]]).any()):
            return True  # rounding may decide which tokens are drawn from
    return _redrawn(problem, moved, earlier, row, way) == token


def _redrawn(problem: Problem, logits: Tensor, earlier: int, row: int, way: _Way) -> int:
    """The token drawn from `logits` after `earlier` other draws from the case's generator state."""
    logits = logits.to(problem.device) / way.temperature
    if way.top_k:
        least = logits.topk(min(way.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1).to(problem.case.torch_dtype)
    with seeded(problem.case.seed, problem.device):
        for _ in range(earlier):
            torch.multinomial(probabilities, 1)
        return int(torch.multinomial(probabilities, 1)[row])


CHECKS = (Check.of("generation", generation, GENERATED, whole=True),)
