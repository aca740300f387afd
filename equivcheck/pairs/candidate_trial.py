"""A candidate built and called in the forms that its reference has, and the transfer that its weights need."""

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
    """The pair with its candidate built and called in the same forms, and a transfer where weights need one.

    What a candidate raises where the forms are known is a difference, and left to the checks.
    """
    said = subject.adaptation
    factory = factory_of(subject.candidate, said.config, subject.candidate_name, judged=True)
    try:
        with exits_as_errors(), seeded(0, subject.device), foreign(CANDIDATE):
            module = factory(SAMPLE.config())
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
    if callable(said.transfer):
        return _with_transfer_tried(replace(subject, transfer=Transfer(said.transfer, declared=True)))
    with seeded(0, subject.device):
        reference = subject.reference(SAMPLE.config())
    if not differs(reference, module):
        return subject
    found = find_transfer(reference, module, SAMPLE.config(), functools.partial(_distance, subject))
    if said.transfer and found is None:
        raise UsageError(f"transfer='auto' found no projection that stands against several: {HOW_TO_TRANSFER}")
    return replace(subject, transfer=found and replace(found, declared=said.transfer is not None))


def _with_transfer_tried(subject: Pair) -> Pair:
    problem = subject.problem(SAMPLE.but(dtype="float64"))
    assert subject.transfer is not None
    try:
        candidate = problem.candidate
    except UsageError:
        raise
    except Exception as error:
        told = f"transfer= does not fit: {type(error).__name__}: {line_of(error)}"
        raise UsageError(f"{told}; {HOW_TO_TRANSFER}") from error
    ones = {name: torch.ones_like(p) for name, p in candidate.named_parameters()}
    try:
        back = named_back(candidate, ones)
    except Exception as error:
        raise UsageError(
            f"transfer= cannot bring gradients back: {line_of(error)}; make it of cat, chunk, view and the like, "
            "without detach or .data"
        ) from error
    lost = [name for name, value in back.items() if value is None]
    if lost:
        raise UsageError(f"transfer= does not carry {', '.join(lost)} over: {HOW_TO_TRANSFER}")
    return subject


def _distance(subject: Pair, transfer: Transfer) -> tuple[float, float]:
    """How far apart the two are on one token and on several, in shares of the largest value, with weights carried over so."""
    found = []
    for length in (1, 5):
        case = SAMPLE.but(dtype="float64", seq_len=length)
        problem = replace(subject, transfer=transfer).problem(case)
        name = subject.traits.result
        try:
            own = problem.run(problem.reference, problem.inputs, gradients=False)[name]
            mine = problem.run(problem.candidate, problem.inputs, gradients=False)[name]
            assert own is not None
            assert mine is not None
            found.append(float((own - mine).abs().max() / own.abs().max()))
        except Exception as error:  # whatever does not run with these weights does not agree
            if not isinstance(error, AssertionError):
                ensure_foreign(error)
            found.append(math.inf)
    return found[0], found[1]
