"""Dropout, compared exactly under the candidate's own masks; and the masks, which must be random as they should be.

Masks are read off (`equivcheck.checks.dropout.masks`) and put into the oracle; then outputs and all gradients are held against the
budget like any others: a mask that is another one in the backward pass, or scaled otherwise, is an error like any other. Rate and
independence are judged on larger masks than a case has, in a problem that differs from it in nothing but size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.within import within
from equivcheck.checks.dropout.exact import compare_exactly, compare_under_masks, forward, must_open, read_masks
from equivcheck.checks.dropout.masks import Masks, inject, visible_keys
from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.checks.dropout.statistics import OUTPUTS, PROBABILITIES, check_mask
from equivcheck.checks.dropout.torch_masks import drawn_by_torch
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["dropout", "generator_is_used"]

_SAMPLES, _HEADS, _LENGTH, _CALLS = 16, 4, 64, 2
"""Some 266,000 probabilities: a rate of 0.09 instead of 0.1 is 0.01 off, where chance and granularity allow 0.008."""
_LARGE = {
    "n_head": _HEADS,
    "seq_len": _LENGTH,
    "head_size": _LENGTH,
    "block_size": _LENGTH,
    "regime": "sharpened",
    "layout": "contiguous",
}
_FEW = 32
_RECOMPUTED = 64  # up to this length results are also compared where the backward pass runs the forward pass again


def dropout(pair: Pair, case: Case) -> CaseResult:
    """In train mode outputs and gradients are the oracle's under the candidate's own masks, and the masks are random."""
    if pair.traits.function and "dropout_p" not in pair.options:
        return CaseResult(notes=("not both of the functions take dropout_p",), judged=False)
    problem = pair.problem(case.but(training=True))
    try:
        must_open(pair, case)
        held = _hold(problem)
        if case.seq_len <= _FEW and case.batch_size == 1:  # masks have a size of their own: some of the cases will do
            samples = max(1, _SAMPLES // max(1, case.n_layer))  # each layer has masks of its own
            notes = _random(pair.problem(problem.case.but(**_LARGE, batch_size=samples)))
            held = replace(held, notes=(*held.notes, *notes))
    except NotOpened as why:
        small = pair.problem(problem.case.but(**small_sizes(case)))
        held = CaseResult(
            compare_moments(small, small.reference, candidate_run(small, lambda m: m, reference=small.make_reference)),
            "the distribution over masks",
            notes=(f"masks cannot be read off, and dropout was judged by its distribution alone: {why}",),
        )
    generator_is_used(problem, problem.reference, problem.candidate)
    return held


def _hold(problem: Problem) -> CaseResult:
    held, masked = compare_exactly(problem, problem.candidate)
    if problem.case.seq_len > _RECOMPUTED:
        return held

    def outputs(module: nn.Module, inputs: object) -> dict[str, Tensor]:
        def inside(*given: Tensor) -> dict[str, Tensor]:
            return problem.outputs(module, given)

        return recomputed(inside, *inputs, use_reentrant=False)  # type: ignore[misc,no-any-return]  # untyped in torch

    again = replace(problem, outputs=outputs)
    with within("with activation checkpointing, where the forward pass is run again", plain=True):
        got = candidate_run(problem, lambda m: again.run(m, problem.inputs, gradients=True))
        other = compare_under_masks(masked, got)
    return CaseResult.worst((held, other))


def _random(problem: Problem) -> tuple[str, ...]:
    """Hold rate and independence of the masks of two calls in a row, those of all layers count as calls; what is worth a note."""
    case = problem.case
    candidate = candidate_run(problem, lambda m: m, reference=problem.make_reference)
    found = [read_masks(problem, candidate, gradients=True, calls=calls) for calls in range(_CALLS)]
    with inject(found[0], problem.reference, case) as injected, seeded(case.seed, problem.device):
        forward(problem, problem.reference, problem.inputs, gradients=False)
    sides = (
        ("probabilities", injected.attention_rates, PROBABILITIES, visible_keys(case, _LENGTH, problem.device)),
        ("outputs", injected.residual_rates, OUTPUTS, torch.ones(1, 1, dtype=torch.bool, device=problem.device)),
    )
    notes = []
    for what, rates, axes, visible in sides:
        for rate in sorted(set(rates)):
            layers = [number for number, its in enumerate(rates) if its == rate]
            kept = _stacked(found, what, layers)
            seen = visible.expand(kept.shape[-2:])

            def peers(what: str = what, layers: Sequence[int] = tuple(layers), rate: float = rate) -> Iterator[Tensor]:
                own = [read_masks(problem, problem.reference, gradients=True, calls=calls) for calls in range(_CALLS)]
                yield _stacked(own, what, layers)
                with seeded(case.seed, problem.device):
                    yield from drawn_by_torch(what, case, rate, problem.device, _CALLS * len(layers))

            notes.append(_told(what, kept, seen, rate, axes, peers))
    return tuple(note for note in notes if note)


def _stacked(found: Sequence[Masks], what: str, layers: Sequence[int]) -> Tensor:
    """The masks of some layers in successive calls: of probabilities (calls, B, H, T, T), of outputs (calls, B, 1, T, C)."""
    if what == "probabilities":
        return torch.stack([masks.attention[layer] for masks in found for layer in layers])
    return torch.stack([masks.residual[layer].unsqueeze(1) for masks in found for layer in layers])


def _told(
    what: str,
    kept: Tensor,
    visible: Tensor,
    rate: float,
    axes: Sequence[str],
    peers: Callable[[], Iterator[Tensor]],
) -> str:
    try:
        note = check_mask(kept, visible, rate, tail=FALSE_ALARM, axes=axes, peers=peers)
    except Mismatch as error:
        if torch.equal(kept, next(iter(peers()))):  # as where torch's kernels keep everything at a rate of 1
            return f"{what}: {error}; and so it is in the original, whose masks are the same"
        with within(f"the dropout mask of the {what}, at B={kept.shape[1]}, T={kept.shape[-2]}"):
            raise
    return f"{what}: {note}" if note else ""


def generator_is_used(problem: Problem, reference: nn.Module, candidate: nn.Module) -> None:
    """It is drawn from where the original draws, the same state gives the same result, and it is not seeded anew."""

    def two_runs(module: nn.Module) -> tuple[bool, bool]:
        states = []
        for seed in (problem.case.seed, problem.case.seed + 1):
            with seeded(seed, problem.device):
                before = generator_state(problem.device)
                first = problem.outputs(module, problem.inputs)
                states.append(generator_state(problem.device))
            with seeded(seed, problem.device):
                second = problem.outputs(module, problem.inputs)
            for name, value in first.items():
                if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(second[name])):
                    raise Mismatch("the same generator state gives two different results", where=name)
        return torch.equal(*states), not torch.equal(before, states[-1])

    reseeded, drawn = candidate_run(problem, lambda _: two_runs(candidate), reference=lambda: two_runs(reference))
    if not reseeded and not drawn:
        return
    its_reseeded, its_drawn = two_runs(reference)
    if reseeded and not its_reseeded:
        raise Mismatch("after a forward pass the generator is in the same state whatever it was before: it is reseeded")
    whole = any(isinstance(m, nn.Dropout) and m.training and m.p >= 1 for m in reference.modules())
    if drawn and not its_drawn and not whole:  # to drop everything, numbers may be drawn or not
        raise Mismatch("the generator was drawn from, and the original draws nothing here", where="generator")


_DROPPED = CaseSpace(
    max_seq_len=512,
    max_head_size=64,
    max_chunks=16,
    training=True,
    train_rates=(0.1, 0.25, 0.5, 0.8, 0.0, 1.0),
    regimes=("sharpened", "near_initial", "same_sign_v", "zero_rows", "ties"),
)

CHECKS = (Check.of("dropout", dropout, _DROPPED),)
