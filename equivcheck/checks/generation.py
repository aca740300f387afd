"""Generation: the same prompt gives the same tokens, greedy or sampled, except where rounding decides between two.

Both models generate along their own paths. At the first difference the oracle's logits for that prefix, moved by what
rounding may move them, say whether the candidate's token can be the right one as well.
"""

import inspect
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run
from equivcheck.comparison import Mismatch
from equivcheck.problem import Problem, seeded
from equivcheck.truth import Memory

__all__ = ["generation"]

_NEW = 12  # tokens, past the end of the block in cases whose prompt nearly fills it
_WIDER = 3.0  # than a perturbed run: their largest, of many, is some three standard deviations


def generation(pair: Pair, case: Case) -> Held:
    """The tokens that are generated, greedily and sampled from the same generator state, are the original's."""
    inside = pair.within_gpt() if pair.kind == "module" else pair
    problem = inside.problem(case.but(training=False, attn_pdrop=0.0, resid_pdrop=0.0))
    prompt = problem.inputs[0].clone()
    explained = 0
    for sampled in (False, True):
        own = _generated(problem, problem.reference, prompt, sampled)
        mine = candidate_run(problem, partial(_generated, problem, prompt=prompt, sampled=sampled))
        if mine.shape != own.shape or mine.dtype != own.dtype:
            raise Mismatch(
                f"generate gives {tuple(mine.shape)} {mine.dtype}, and {tuple(own.shape)} {own.dtype} in the original"
            )
        explained += _explained(problem, own, mine, sampled)
    return Held(notes=("a token lay at a tie that rounding explains",) if explained else ())


def _generated(problem: Problem, module: nn.Module, prompt: Tensor, sampled: bool) -> Tensor:
    """Prompt and new tokens, (B, T + _NEW): by the model's own `generate` where it has one, else by its forward pass."""
    generate = getattr(module, "generate", None)
    takes = list(inspect.signature(generate).parameters) if callable(generate) else []
    with seeded(problem.case.seed, problem.device), torch.no_grad():
        if callable(generate) and {"max_new_tokens", "do_sample"} <= set(takes):
            found: Tensor = generate(prompt, max_new_tokens=_NEW, do_sample=sampled)
            return found
        idx = prompt
        for _ in range(_NEW):
            logits = _last_logits(problem, module, idx)
            token = torch.multinomial(logits.softmax(-1), 1) if sampled else logits.argmax(-1, keepdim=True)  # (B, 1)
            idx = torch.cat((idx, token), 1)
        return idx


def _last_logits(problem: Problem, module: nn.Module, idx: Tensor) -> Tensor:
    window = idx[:, -problem.case.block_size :]
    return problem.outputs(module, (window, window))["logits"][:, -1]  # (B, vocab_size)


def _explained(problem: Problem, own: Tensor, mine: Tensor, sampled: bool) -> int:
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
        if not _may_be(problem, own, row, at, int(mine[row, at]), sampled):
            raise Mismatch(
                f"{'sampled' if sampled else 'greedy'} token {at - prompt + 1} of sequence {row} is {int(mine[row, at])}, and "
                f"{int(own[row, at])} in the original: rounding does not explain it",
                where="sampled" if sampled else "greedy",
            )
        count += 1
    return count


def _may_be(problem: Problem, own: Tensor, row: int, at: int, token: int, sampled: bool) -> bool:
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
    if not sampled:
        return bool(moved[row, token] >= moved[row, chosen])
    earlier = at - problem.inputs[0].shape[1]
    if _redrawn(problem, logits, earlier, row) not in (chosen, token):
        return True  # the original draws in another way than this: what it would draw from other logits is not known
    return _redrawn(problem, moved, earlier, row) == token


def _redrawn(problem: Problem, logits: Tensor, earlier: int, row: int) -> int:
    """The token drawn from `logits` after `earlier` other draws from the case's generator state."""
    probabilities = logits.to(problem.device).softmax(-1).to(problem.case.torch_dtype)
    with seeded(problem.case.seed, problem.device):
        for _ in range(earlier):
            torch.multinomial(probabilities, 1)
        return int(torch.multinomial(probabilities, 1)[row])
