"""Dropout, compared exactly under the candidate's own masks; and a test that these masks are random.

Masks are read off (`equivcheck.checks.dropout.masks`) and put into the oracle. Then outputs and all gradients are
compared within the budget like any others. So another mask or another scale in the backward pass is an error. Rate and
independence are judged on larger masks than a case has, in a problem that differs from the case in size alone.
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
from equivcheck.checks.dropout.exact import compare_exactly, forward, must_open, read_masks, visible_in
from equivcheck.checks.dropout.masks import Masks, inject
from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.checks.dropout.statistics import OUTPUTS, PROBABILITIES, check_mask
from equivcheck.checks.dropout.torch_masks import drawn_by_torch
from equivcheck.checks.dropout.under_masks import compare_under_masks
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.report.catalogue import PARTS
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["dropout", "generator_is_used"]

_SAMPLES, _HEADS, _LENGTH, _CALLS = 16, 4, 64, 2
"""Some 266,000 probabilities: a rate of 0.09 instead of 0.1 is 0.01 off, and chance and granularity allow 0.008."""
_LARGE = {
    "n_head": _HEADS,
    "seq_len": _LENGTH,
    "head_size": _LENGTH,
    "block_size": _LENGTH,
    "regime": "sharpened",
    "layout": "contiguous",
}
_LONG = _LARGE | {"n_head": 2, "seq_len": 288, "block_size": 288, "batch_size": 1}
"""Long enough to show a mask that comes again in each tile of 16 to 256 keys or queries."""
_FEW = 32  # up to this length the masks of a case of one sample are tested
_RECOMPUTED = 64  # up to this length results are also compared with a backward pass that runs the forward pass again


def dropout(pair: Pair, case: Case) -> CaseResult:
    """In train mode outputs and gradients are the oracle's under the candidate's own masks, and masks are random."""
    if pair.traits.function and "dropout_p" not in pair.options:
        if "dropout_p" in pair.reference_alone:
            return CaseResult(judged=False, unsupported=("dropout_p, which the candidate does not take",))
        return CaseResult(notes=("the original takes no dropout_p",), judged=False, applies=False)
    problem = pair.problem(case.but(training=True))
    try:
        must_open(pair, case)
        result = _compare(problem)
        if case.seq_len <= _FEW and case.batch_size == 1:  # masks have a fixed size: some of the cases suffice
            samples = max(1, _SAMPLES // max(1, case.n_layer))  # each layer has separate masks
            notes = _random(pair, problem.case.but(**_LARGE, batch_size=samples))
            result = replace(result, notes=(*result.notes, *notes, *_random_in_tiles(pair, problem.case)))
    except NotOpened as why:
        small = pair.problem(pair.inside(problem.case.but(**small_sizes(case))))
        candidate = candidate_run(small, lambda m: m, reference=small.make_reference)
        result = compare_moments(small, small.reference, candidate)
        note = f"masks cannot be read off, and dropout was judged by its distribution alone: {why}"
        result = replace(result, notes=(*result.notes, note))
    generator_is_used(problem, problem.reference, problem.candidate)
    return result


def _compare(problem: Problem) -> CaseResult:
    """Compare results under the candidate's own masks, for short cases also with activation checkpointing."""
    result, masked = compare_exactly(problem, problem.candidate)
    if problem.case.seq_len > _RECOMPUTED:
        return result

    def outputs(module: nn.Module, inputs: object) -> dict[str, Tensor]:
        def inside(*given: Tensor) -> dict[str, Tensor]:
            return problem.outputs(module, given)

        return recomputed(inside, *inputs, use_reentrant=False)  # type: ignore[misc,no-any-return]  # untyped in torch

    recomputing = replace(problem, outputs=outputs)
    with within("with activation checkpointing, where the forward pass is run again", plain=True):
        candidate_results = candidate_run(problem, lambda m: recomputing.run(m, problem.inputs, gradients=True))
        recomputed_result = compare_under_masks(masked, candidate_results)
    return CaseResult.worst((result, recomputed_result))


def _random_in_tiles(pair: Pair, case: Case) -> tuple[str, ...]:
    """Test masks over several tiles of an attention alone on a CPU; elsewhere a note says that they were not tested."""
    longer = case.but(**_LONG)
    if pair.device.type != "cpu" or case.n_layer or not pair.domain.allows(longer):
        # those of CUDA's kernels were not studied beyond their tiles, and a model has masks of several layers
        return (f"masks were tested at {_LENGTH} positions alone, and not over several tiles",)
    try:
        return _random(pair, longer)
    except NotOpened as why:
        return (f"masks were not tested over several tiles: {why}",)


def _random(pair: Pair, case: Case) -> tuple[str, ...]:
    """Test rate and independence of masks of successive calls, and return notes; masks of each layer count as calls.

    Raises:
        Mismatch: The masks are not random as they must be.
    """
    problem, visible = pair.problem(case), visible_in(pair, case)
    candidate = candidate_run(problem, lambda m: m, reference=problem.make_reference)

    def successive(module: nn.Module) -> list[Masks]:
        return [read_masks(problem, module, gradients=True, calls=calls) for calls in range(_CALLS)]

    # at these sizes nothing has run: it is the candidate's failure only where the original is read in the same way
    masks_by_call = candidate_run(
        problem, lambda _: successive(candidate), reference=lambda: successive(problem.make_reference())
    )
    original, inputs, masks = problem.reference, problem.inputs, masks_by_call[0]
    if problem.has_users_oracle:  # masks may not be put into a kernel
        original, inputs = problem.original_in_float64()
        masks = masks.to(problem.judged_on)
    with inject(masks, original, case) as injected, seeded(case.seed, problem.device):
        forward(problem, original, inputs, gradients=False)
    whole = torch.ones(1, 1, dtype=torch.bool, device=problem.device)
    layers_alike = [
        ("probabilities", PROBABILITIES, _alike(injected.attention_rates, visible.layers)),
        ("outputs", OUTPUTS, _alike(injected.residual_rates, [whole] * len(injected.residual_rates))),
    ]
    notes = []
    for what, axes, groups in layers_alike:
        for rate, seen, layers in groups:
            keep_mask = _stacked(masks_by_call, what, layers)

            def peers(
                what: str = what, layers: Sequence[int] = tuple(layers), rate: float = rate, seen: Tensor = seen
            ) -> Iterator[Tensor]:
                yield _stacked(successive(problem.reference), what, layers)
                # a kernel that is not causal drops hidden keys, too, and these are not looked at
                drawn = case.but(is_causal=not bool(seen.triu(1).any()))
                with seeded(case.seed, problem.device):
                    yield from drawn_by_torch(what, drawn, rate, problem.device, _CALLS * len(layers))

            notes.append(_judge_mask(what, keep_mask, seen, rate, axes, peers))
    return tuple(note for note in notes if note)


def _alike(rates: Sequence[float], visible: Sequence[Tensor]) -> list[tuple[float, Tensor, list[int]]]:
    """The layers that share a rate and the visible keys, by number, with both; the lowest rate first."""
    groups: list[tuple[float, Tensor, list[int]]] = []
    for number, (rate, seen) in enumerate(zip(rates, visible, strict=True)):
        group = next((g for g in groups if g[0] == rate and torch.equal(g[1], seen)), None)
        if group is None:
            groups.append((rate, seen, [number]))
        else:
            group[2].append(number)
    return sorted(groups, key=lambda group: group[0])


def _stacked(masks_by_call: Sequence[Masks], what: str, layers: Sequence[int]) -> Tensor:
    """The masks of some layers in successive calls: probabilities (calls, B, H, T, T), outputs (calls, B, 1, T, C)."""
    if what == "probabilities":
        return torch.stack([masks.attention[layer] for masks in masks_by_call for layer in layers])
    return torch.stack([masks.residual[layer].unsqueeze(1) for masks in masks_by_call for layer in layers])


def _judge_mask(
    what: str,
    keep_mask: Tensor,
    visible: Tensor,
    rate: float,
    axes: Sequence[str],
    peers: Callable[[], Iterator[Tensor]],
) -> str:
    """Test the masks of one kind and rate, and return a note; masks pass if the original has the same."""
    try:
        note = check_mask(keep_mask, visible, rate, tail=FALSE_ALARM, axes=axes, peers=peers)
    except Mismatch as error:
        if torch.equal(keep_mask, next(iter(peers()))):  # such as kernels of torch that keep everything at a rate of 1
            return f"{what}: {error}; and so it is in the original, whose masks are the same"
        with within(f"the dropout mask of the {what}, at B={keep_mask.shape[1]}, T={keep_mask.shape[-2]}"):
            raise
    return f"{what}: {note}" if note else ""


def generator_is_used(problem: Problem, reference: nn.Module, candidate: nn.Module) -> None:
    """Check that the candidate uses the generator as the original does.

    Raises:
        Mismatch: The same state gives two results, the generator is seeded again, or numbers are drawn that the
            original does not draw.
    """

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
    reference_reseeded, reference_drawn = two_runs(reference)
    if reseeded and not reference_reseeded:
        raise Mismatch("after a forward pass the generator is in the same state whatever it was before: it is reseeded")
    whole = any(isinstance(m, nn.Dropout) and m.training and m.p >= 1 for m in reference.modules())
    if drawn and not reference_drawn and not whole:  # dropping everything may draw numbers or not
        raise Mismatch("the generator was drawn from, and the original draws nothing here", where="generator")


_DROPPED = CaseSpace(
    max_seq_len=512,
    max_head_size=64,
    max_chunks=16,
    training=True,
    train_rates=(0.1, 0.25, 0.5, 0.8, 0.0, 0.3),  # the check `limits` has a rate of 1
    regimes=("sharpened", "near_initial", "same_sign_v", "zero_rows", "ties"),
)

CHECKS = (Check.of("dropout", dropout, _DROPPED, covering=PARTS),)
