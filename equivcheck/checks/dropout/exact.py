"""Exact comparison of a random result: the candidate's own dropout masks are put into the oracle."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.dropout.masks import Masks, Recovery, inject
from equivcheck.checks.dropout.under_masks import compare_under_masks, under_masks
from equivcheck.checks.dropout.visibility import must_return_the_last_linear, must_show, read_visible
from equivcheck.errors import NotOpened, ToolError
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.pairs.visible import Visible
from equivcheck.runtime.rng import generator_state, seeded, set_generator_state

__all__ = ["compare_exactly", "forward", "must_open", "read_masks", "visible_in"]

T = TypeVar("T")

_LEAST = 6  # positions and channels: of some 100 numbers one is dropped at every rate that is drawn
_SAME = 2.0**-30  # of the largest value: far above rounding in float64, far below another mask


def forward(problem: Problem, module: nn.Module, inputs: Sequence[Tensor], *, gradients: bool) -> dict[str, Tensor]:
    """Run one forward pass as `Problem.run` does, without seeding the generators.

    Returns:
        The outputs by name.
    """
    leaves = [x.detach().requires_grad_(gradients) if x.is_floating_point() else x for x in inputs]
    with torch.set_grad_enabled(gradients):
        return problem.outputs(module, leaves)


def must_open(pair: Pair, case: Case) -> None:
    """Check that masks can be read off the candidate and put into the original, or the user's oracle in its place.

    Reading is tried at rates of 0, at which the result is known. Putting in is tried on the original at the case's
    rates: it may draw no random numbers but those of the masks.

    Raises:
        NotOpened: One of them is not possible.
    """
    # at least two heads and channels: with one, any order of channels looks right
    length = max(3, case.seq_len)
    sizes = {"n_head": max(2, case.n_head), "head_size": max(2, case.head_size), "seq_len": length}
    still = pair.problem(pair.inside(_without_dropout(case.but(block_size=max(length, case.block_size), **sizes))))
    visible = _visible(pair, still)
    length = still.case.seq_len
    must_return_the_last_linear(_recovery(still, still.reference, gradients=False), length)
    candidate_run(still, lambda m: must_show(_recovery(still, m, gradients=False), length, visible))
    short = pair.inside(case.but(seq_len=min(case.seq_len, case.head_size))).seq_len
    wide = max(case.head_size, short)
    if pair.domain and not pair.domain.allows(case.but(seq_len=short, head_size=wide)):
        wide = case.head_size
    plain = case.but(seq_len=short, head_size=wide, dtype="float64", training=True, steps="")
    problem = pair.of_oracle().problem(_grown(pair, plain))
    _must_take_masks(problem, visible)


def _grown(pair: Pair, case: Case) -> Case:
    """The case with so many elements that some are dropped: where nothing is, every way to drop gives one result.

    A case with a mask, grouped heads or other lengths of keys stays as it is: its sizes depend on one another.
    """
    length = max(_LEAST, case.seq_len)
    sizes = {"batch_size": max(2, case.batch_size), "head_size": max(length, case.head_size), "seq_len": length}
    if case.kv_len not in (0, case.seq_len) or case.kv_heads or case.mask:
        return case
    grown = case.but(n_head=max(2, case.n_head), block_size=max(length, case.block_size), **sizes)
    return case if pair.domain and not pair.domain.allows(grown) else grown


def visible_in(pair: Pair, case: Case) -> Visible:
    """Return the keys that each query of the original sees on a case, over its whole length.

    Raises:
        NotOpened: They cannot be read off.
    """
    case = _without_dropout(case)
    if pair.traits.within_gpt:
        case = case.but(batch_size=1)
        known = pair.memory.visible.known(_key(pair, case))
        if known is not None:
            return known
    return _visible(pair, pair.problem(case))


def _without_dropout(case: Case) -> Case:
    return case.but(attn_pdrop=0.0, resid_pdrop=0.0, training=True, steps="")


def _key(pair: Pair, case: Case) -> Hashable:
    """The key of what the original sees on a case: the sizes of a module, whose inputs are vectors and hide nothing.

    Token ids may be padding, and functions may take a mask from the seed.
    """
    sizes = case.but(seed=0, dtype="float32", regime="near_initial", layout="contiguous")
    return pair.traits.original, sizes if pair.traits.within_gpt else case


def _visible(pair: Pair, still: Problem) -> Visible:
    """The visible keys of the original in a problem without dropout; what another case showed is a guess."""
    key, memory = _key(pair, still.case), pair.memory.visible
    known = memory.known(key)
    visible = read_visible(_recovery(still, still.reference, gradients=False), still.case.seq_len, known)
    return visible if known is not None else memory.keep(key, visible)


def _must_take_masks(problem: Problem, visible: Visible) -> None:
    """Check that the original with its own masks put in gives its own result, and draws no other numbers.

    Raises:
        NotOpened: It does not.
    """
    try:
        masks = read_masks(problem, problem.reference, gradients=False)
        with seeded(problem.case.seed, problem.device):
            reference_results = forward(problem, problem.reference, problem.inputs, gradients=False)
        with inject(masks, problem.reference, problem.case) as injected, seeded(problem.case.seed, problem.device):
            before = generator_state(problem.device)
            results_under_masks = forward(problem, problem.reference, problem.inputs, gradients=False)
            after = generator_state(problem.device)
    except (NotOpened, ToolError):
        raise
    except Exception as error:
        ensure_foreign(error)
        raise NotOpened(f"the original raises {type(error).__name__} in float64") from error
    dropped = [_drops(*both) for both in zip(masks.attention, visible.layers, strict=True)]
    dropped += [not bool(keep_mask.all()) for keep_mask in masks.residual]
    rates = (*injected.attention_rates, *injected.residual_rates)
    ignored = [drops and not rate for drops, rate in zip(dropped, rates, strict=True)]
    if any(ignored) or not torch.equal(before, after):
        raise NotOpened("the original draws random numbers in a way of its own")
    for name, value in reference_results.items():
        if not float((value - results_under_masks[name]).abs().max()) <= _SAME * float(value.abs().max()):
            raise NotOpened("the original with its own masks put in gives another result: it drops in a way of its own")


def _drops(keep_mask: Tensor, visible: Tensor) -> bool:
    """Whether a query does not keep the key of its own position, (B, H, T), which mostly sees it at any length."""
    length = keep_mask.shape[-1]
    seen = visible.diagonal(dim1=-2, dim2=-1)[..., :length].all()
    return bool(seen) and not bool(keep_mask.diagonal(dim1=-2, dim2=-1).all())


def _recovery(problem: Problem, module: nn.Module, *, gradients: bool, calls: int = 0) -> Recovery:
    """A Recovery of the masks of the forward pass after `calls` others, from the case's generator state."""
    with seeded(problem.case.seed, problem.device):
        for _ in range(calls):
            forward(problem, module, problem.inputs, gradients=gradients)
        # a candidate may take its masks from the host's generator, whatever the device
        state, on_host = generator_state(problem.device), torch.default_generator.get_state()

    def run(inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        with seeded(problem.case.seed, problem.device):
            torch.default_generator.set_state(on_host)
            set_generator_state(problem.device, state)
            return forward(problem, module, inputs, gradients=gradients)

    return Recovery(problem.case, module, problem.inputs, run)


def read_masks(problem: Problem, module: nn.Module, *, gradients: bool, calls: int = 0) -> Masks:
    """Return the masks of a forward pass from the case's generator state, after `calls` other forward passes.

    Raises:
        NotOpened: They cannot be read off.
    """
    return _recovery(problem, module, gradients=gradients, calls=calls).masks(problem.case.seq_len)


def compare_exactly(problem: Problem, candidate: nn.Module) -> tuple[CaseResult, Problem]:
    """Compare the candidate's results, with gradients and without, with the oracle under the candidate's own masks.

    Weights, modes and rates are those of the originals that the problem makes.

    Returns:
        The comparison, and the problem with the masks.

    Raises:
        Mismatch: The results differ.
        NotOpened: The masks cannot be read off, or fit no dropout of the original.
    """
    results: list[CaseResult] = []
    seen: list[tuple[Masks, Problem]] = []
    for gradients in (True, False):
        run = partial(problem.run, inputs=problem.inputs, gradients=gradients)
        original = partial(_of_original, problem, run)
        reading = partial(_masks, problem, gradients)
        masks = candidate_run(
            problem, partial(_of_candidate, candidate, reading), reference=partial(_of_original, problem, reading)
        )
        candidate_results = candidate_run(problem, partial(_of_candidate, candidate, run), reference=original)
        # the masks of both runs are mostly the same: then one oracle serves both
        masked = next((m for before, m in seen if before.same(masks)), None) or under_masks(problem, masks)
        seen.append((masks, masked))
        results.append(compare_under_masks(masked, candidate_results))
    return CaseResult.worst(results), seen[0][1]


def _masks(problem: Problem, gradients: bool, module: nn.Module) -> Masks:
    return read_masks(problem, module, gradients=gradients)


def _of_candidate(candidate: nn.Module, run: Callable[[nn.Module], T], _: nn.Module) -> T:
    return run(candidate)


def _of_original(problem: Problem, run: Callable[[nn.Module], T]) -> T:
    return run(problem.make_reference())
