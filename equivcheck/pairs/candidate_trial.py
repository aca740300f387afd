"""A trial of the candidate: it is built and called as the reference is, and gets a transfer if its weights need one."""

import functools
import math
from dataclasses import replace

import torch
from torch import nn

from equivcheck.errors import UsageError
from equivcheck.pairs.factories import factory_of
from equivcheck.pairs.forward import Function, adapt
from equivcheck.pairs.kind_finding import inputs_of
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.projection_matching import differs, find_transfer
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, foreign
from equivcheck.pairs.weight_transfer import HOW_TO_TRANSFER, Transfer, named_back
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["with_candidate_tried"]


def with_candidate_tried(subject: Pair, outputs: Function) -> Pair:
    """The pair whose candidate is built and called as the reference is, with a transfer if weights need one.

    An exception of the candidate is a difference, which the checks report.

    Args:
        subject: The pair, with its reference adapted.
        outputs: Takes the tensor to compare out of the result of forward.

    Raises:
        UsageError: The candidate builds no module, or the transfer does not fit.
    """
    adaptation, sample = subject.adaptation, subject.inside(subject.anchor)
    factory = factory_of(subject.candidate, adaptation.config, subject.candidate_name, judged=True)
    try:
        with exits_as_errors(), seeded(0, subject.device), foreign(CANDIDATE):
            module = factory(sample.config())
    except UsageError:
        raise
    except Exception as error:
        ensure_foreign(error)
        return replace(subject, candidate=factory)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{subject.candidate_name} is no {subject.kind}: called with a config it returned {type(module).__name__}"
        )
    inputs = inputs_of(module, subject, subject.candidate_name, judged=True)
    subject = replace(subject, candidate=adapt(factory, inputs, outputs))
    if callable(adaptation.transfer):
        return _with_transfer_tried(replace(subject, transfer=Transfer(adaptation.transfer, declared=True)))
    with seeded(0, subject.device):
        reference = subject.reference(sample.config())
    if not differs(reference, module):
        return subject
    transfer = find_transfer(reference, module, sample.config(), functools.partial(_distance, subject))
    if adaptation.transfer and transfer is None:
        raise UsageError(f"transfer='auto' found no projection that stands against several: {HOW_TO_TRANSFER}")
    return replace(subject, transfer=transfer and replace(transfer, declared=adaptation.transfer is not None))


def _with_transfer_tried(subject: Pair) -> Pair:
    problem = subject.problem(subject.inside(subject.anchor).but(dtype="float64"))
    assert subject.transfer is not None
    try:
        candidate = problem.candidate
    except UsageError:
        raise
    except Exception as error:
        message = f"transfer= does not fit: {type(error).__name__}: {line_of(error)}"
        raise UsageError(f"{message}; {HOW_TO_TRANSFER}") from error
    ones = {name: torch.ones_like(p) for name, p in candidate.named_parameters()}
    try:
        carried_back = named_back(candidate, ones)
    except Exception as error:
        raise UsageError(
            f"transfer= cannot bring gradients back: {line_of(error)}; make it of cat, chunk, view and the like, "
            "without detach or .data"
        ) from error
    missing = [name for name, value in carried_back.items() if value is None]
    if missing:
        raise UsageError(f"transfer= does not carry {', '.join(missing)} over: {HOW_TO_TRANSFER}")
    return subject


def _distance(subject: Pair, transfer: Transfer) -> tuple[float, float]:
    """The distances of the two under a transfer on one token and on several, relative to the largest value."""
    distances = []
    anchor = subject.anchor
    # an original that refuses small sizes may refuse these lengths, too
    for length in (1, 5) if anchor == SAMPLE else (anchor.seq_len,) * 2:
        case = subject.inside(anchor.but(seq_len=length)).but(dtype="float64")
        problem = replace(subject, transfer=transfer).problem(case)
        name = subject.traits.result
        try:
            reference_value = problem.run(problem.reference, problem.inputs, gradients=False)[name]
            candidate_value = problem.run(problem.candidate, problem.inputs, gradients=False)[name]
            assert reference_value is not None
            assert candidate_value is not None
            distances.append(float((reference_value - candidate_value).abs().max() / reference_value.abs().max()))
        except Exception as error:  # weights with which a side does not run do not fit
            if not isinstance(error, AssertionError):
                ensure_foreign(error)
            distances.append(math.inf)
    return distances[0], distances[1]
