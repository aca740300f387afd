"""Generation: the same prompt gives the same tokens, greedy or sampled, except where rounding decides between two.

Both models generate along their own paths. At the first difference, the oracle's logits for that prefix are moved by as
much as rounding may move them. They decide whether the candidate's token can be right as well.
"""

import inspect
from collections.abc import Iterator, Mapping
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

_NEW = 12  # tokens: past the end of the block, if the prompt nearly fills it
_WIDER = 3.0  # times the perturbed run: the largest of many is some three standard deviations


@dataclass(frozen=True)
class _Way:
    description: str
    sampled: bool
    temperature: float = 1.0
    top_k: int = 0  # 0: all


_WAYS = (_Way("greedy", False), _Way("sampled", True), _Way("sampled of the first three, cooled,", True, 0.6, 3))


def generation(pair: Pair, case: Case) -> CaseResult:
    """The tokens that are generated, greedily and sampled from the same generator state, are the original's."""
    inside = pair.within_gpt()
    problem = inside.problem(case.but(training=False, attn_pdrop=0.0, resid_pdrop=0.0))
    longest = min(case.seq_len + _NEW, case.block_size)
    if not all(problem.allows(seq_len=length) for length in range(case.seq_len, longest)):
        note = "the lengths of a growing sequence are outside of the domain"
        return CaseResult(notes=(note,), judged=False, applies=False)
    prompt = problem.inputs[0].clone()
    ties = 0
    for way, options in _ways(problem, prompt):
        reference_tokens = _generated(problem, problem.reference, prompt, way, options)
        candidate_tokens = candidate_run(problem, partial(_generated, problem, prompt=prompt, way=way, options=options))
        if candidate_tokens.shape != reference_tokens.shape or candidate_tokens.dtype != reference_tokens.dtype:
            raise Mismatch(
                f"generate gives {tuple(candidate_tokens.shape)} {candidate_tokens.dtype}, "
                f"and {tuple(reference_tokens.shape)} {reference_tokens.dtype} in the original"
            )
        ties += _count_ties(problem, reference_tokens, candidate_tokens, way)
    return CaseResult(notes=("a token lay at a tie that rounding explains",) if ties else ())


def _ways(problem: Problem, prompt: Tensor) -> Iterator[tuple[_Way, dict[str, Any] | None]]:
    """Each way in which tokens are generated, with the arguments of the original's `generate`.

    They are None if it has no `generate`, or one that takes no number of tokens alone: then forward passes choose the
    tokens. A `generate` that takes nothing else is called in one way, which is greedy if another seed changes nothing.
    """
    model = problem.reference
    count = _count_of(model)
    if count is not None and len(count) == 1 and not {"do_sample", "top_k"} & _parameters(model).keys():
        draws = not torch.equal(
            _generated(problem, model, prompt, _WAYS[0], count), _generated(problem, model, prompt, _WAYS[0], count, 1)
        )
        yield replace(_WAYS[1] if draws else _WAYS[0], description="generated"), count
        return
    for way in _WAYS:
        options = _options(model, way)
        if options is not None or not way.top_k:  # without arguments none takes a top_k
            yield way, options


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of the model's `generate`; none if it has no such method."""
    generate = getattr(model, "generate", None)
    return inspect.signature(generate).parameters if callable(generate) else {}


def _count_of(model: nn.Module) -> dict[str, Any] | None:
    """The argument of `generate` that is the number of new tokens; None if there is none, or if it requires others."""
    parameters = _parameters(model)
    required = [name for name, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if "max_new_tokens" in parameters and set(required[1:]) <= {"max_new_tokens"}:
        return {"max_new_tokens": _NEW}
    return {required[1]: _NEW} if len(required) == 2 else None


def _options(model: nn.Module, way: _Way) -> dict[str, Any] | None:
    """Arguments of the model's `generate` for this way; None if it has no `generate`, or one that lacks an argument."""
    takes, options = _parameters(model).keys(), _count_of(model)
    if options is None:
        return None
    if "do_sample" in takes:
        options["do_sample"] = way.sampled
    elif not way.sampled:
        options["top_k"] = 1  # nanoGPT's `generate` always draws
    if way.top_k:
        options |= {"temperature": way.temperature, "top_k": way.top_k}
    return options if options.keys() <= takes else None


def _generated(
    problem: Problem,
    module: nn.Module,
    prompt: Tensor,
    way: _Way,
    options: Mapping[str, Any] | None,
    later: int = 0,
) -> Tensor:
    """Prompt and new tokens, (B, T + _NEW), by the model's `generate` or, without one, by its forward pass.

    They start from the case's seed, or from one that is so much later.
    """
    generate = getattr(module, "generate", None)
    with seeded(problem.case.seed + later, problem.device), torch.no_grad():
        if callable(generate) and options is not None:
            with foreign():
                tokens: Tensor = generate(prompt, **options)
            return tokens
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


def _count_ties(problem: Problem, reference_tokens: Tensor, candidate_tokens: Tensor, way: _Way) -> int:
    """Number of sequences that part at a token that rounding may decide; raises Mismatch for any other difference."""
    prompt = problem.inputs[0].shape[1]
    if not torch.equal(reference_tokens[:, :prompt], candidate_tokens[:, :prompt]):
        raise Mismatch("generate changes the prompt", where="prompt")
    count = 0
    for row in range(reference_tokens.shape[0]):
        differs = (reference_tokens[row] != candidate_tokens[row]).nonzero()
        if not len(differs):
            continue
        at = int(differs[0])
        if not _rounding_explains(problem, reference_tokens, row, at, int(candidate_tokens[row, at]), way):
            raise Mismatch(
                f"{way.description} token {at - prompt + 1} of sequence {row} is {int(candidate_tokens[row, at])}, and "
                f"{int(reference_tokens[row, at])} in the original: rounding does not explain it",
                where=way.description,
            )
        count += 1
    return count


def _rounding_explains(problem: Problem, reference_tokens: Tensor, row: int, at: int, token: int, way: _Way) -> bool:
    """Whether `token` may come at position `at` of a sequence, if rounding moves the oracle's logits."""
    window = reference_tokens[:, max(0, at - problem.case.block_size) : at]
    prefix = replace(problem, inputs=(window, window), memory=Memory(), memory_key="prefix")
    truth = prefix.truth(gradients=False)
    logits = truth.values["logits"][:, -1]  # (B, vocab_size)
    spread = truth.sample(refined=True).deviations["logits"][:, row, -1].abs().amax(0) * _WIDER  # (vocab_size,)
    chosen = int(reference_tokens[row, at])
    moved = logits.clone()
    moved[row, token] += spread[token]
    moved[row, chosen] -= spread[chosen]
    if not way.sampled:
        return bool(moved[row, token] >= moved[row, chosen])
    earlier = at - problem.inputs[0].shape[1]
    if _redrawn(problem, logits, earlier, row, way) not in (chosen, token):
        return True  # the original draws in another way, so its token for other logits is unknown
    if way.top_k and way.top_k < logits.shape[-1]:
        order = logits[row].argsort(descending=True)[way.top_k - 1 :]  # the last of the top k, and all after it
        if bool((logits[row, order[1:]] + spread[order[1:]] >= logits[row, order[0]] - spread[order[0]]).any()):
            return True  # rounding may decide which tokens are among the top k
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
