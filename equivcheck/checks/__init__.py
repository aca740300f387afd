"""The checks, one family a file; the tuple below is the registry, in the order in which they are run."""

from equivcheck.checks.autocast import autocast
from equivcheck.checks.backend import HEAD_SIZES, backend
from equivcheck.checks.base.base import Check, Held, Pair
from equivcheck.checks.batching import batching
from equivcheck.checks.bias import bias
from equivcheck.checks.causality import causality
from equivcheck.checks.checkpoint import checkpoint
from equivcheck.checks.compiled import compiled
from equivcheck.checks.decoding import decoding
from equivcheck.checks.derivatives import derivatives
from equivcheck.checks.dropout.dropout import dropout
from equivcheck.checks.extremes import extremes
from equivcheck.checks.generation import generation
from equivcheck.checks.interface import errors, interface
from equivcheck.checks.layouts import layouts
from equivcheck.checks.lengths import lengths
from equivcheck.checks.long.long import long
from equivcheck.checks.modes import STEPS, modes
from equivcheck.checks.purity import purity
from equivcheck.checks.replacement import attachments, coverage, state
from equivcheck.checks.training import training
from equivcheck.checks.values import gradients, logits, output

__all__ = ["CHECKS", "Check", "Held", "Pair"]

_MODULES = ("module", "model", "replacement")
_ALL = ("module", "function", "model", "replacement")
_RATES = (0.1, 0.25, 0.5, 0.8, 0.0, 1.0)
_MODEL_REGIMES = ("sharpened", "near_initial", "large_scores", "ties", "same_sign_v", "constant_v")
_PLAIN = ("sharpened", "near_initial")
_SMALL = {"max_seq_len": 40, "max_batch_size": 3, "max_heads": 4, "max_head_size": 32}
_STEPPED = {
    "max_seq_len": 24,
    "max_batch_size": 2,
    "max_heads": 3,
    "max_head_size": 16,
    "regimes": _PLAIN,
    "layouts": ("contiguous", "transposed"),
    "rates": _RATES[:3],
    "train_rates": _RATES[:3],
    "steps": "".join(STEPS),
}
_DROPPED = {
    "max_seq_len": 512,
    "max_head_size": 64,
    "max_chunks": 16,
    "training": True,
    "train_rates": _RATES,
    "regimes": ("sharpened", "near_initial", "same_sign_v", "zero_rows", "ties"),
}
_GENERIC = {
    "dtypes": ("bfloat16", "float16", "float32"),
    "regimes": _PLAIN,
    "layouts": ("contiguous",),
    "max_seq_len": 64,
    "max_batch_size": 2,
    "max_heads": 3,
    "max_head_size": 32,
}
_LONG = {  # its lengths are made from the drawn ones
    "dtypes": ("float32", "bfloat16"),
    "regimes": ("sharpened", "near_initial", "same_sign_v", "large_scores"),
    "layouts": ("contiguous", "transposed"),
    "max_seq_len": 3,
    "max_batch_size": 1,
    "max_heads": 2,
    "max_head_size": 4,
    "training": False,
}
_TRAINED = {
    "dtypes": ("float32", "float64"),
    "regimes": _PLAIN,
    "layouts": ("contiguous",),
    "max_seq_len": 24,
    "max_batch_size": 2,
    "max_heads": 3,
    "max_head_size": 16,
    "n_layers": (1, 2),
    "training": True,
    "train_rates": (0.0, 0.0, 0.2),
}
_GENERATED = {
    "regimes": _PLAIN,
    "layouts": ("contiguous",),
    "max_seq_len": 24,
    "max_batch_size": 3,
    "max_heads": 3,
    "max_head_size": 16,
    "n_layers": (1, 2),
    "training": False,
}
_DECODED = {**_GENERATED, "dtypes": ("float32", "bfloat16", "float64"), "regimes": ("sharpened", "ties")}
_RUN = {
    "regimes": ("sharpened",),
    "layouts": ("contiguous",),
    "max_seq_len": 64,
    "max_batch_size": 2,
    "max_heads": 2,
    "head_sizes": HEAD_SIZES,
    "train_rates": (0.0, 0.1),
}
_TRANSFORMED = {
    "dtypes": ("float32", "float64"),
    "regimes": _PLAIN,
    "layouts": ("contiguous", "transposed"),
    "min_seq_len": 2,
    "max_seq_len": 24,
    "min_batch_size": 2,
    "max_batch_size": 3,
    "max_heads": 3,
    "max_head_size": 16,
}
_REPLACED = _TRANSFORMED | {
    "layouts": ("contiguous",),
    "min_seq_len": 4,  # a prefix that a mask lets see itself, and what comes after it
    "min_heads": 2,  # that another block may have one
    "min_head_size": 4,
    "max_head_size": 8,
    "n_layers": (2, 3),
    "training": False,
}
_CAST = _TRANSFORMED | {"dtypes": ("bfloat16", "float16"), "max_seq_len": 160}
_COMPILED = _TRANSFORMED | {  # each is called with its first half, too
    "layouts": ("contiguous",),
    "min_seq_len": 34,
    "max_seq_len": 128,
    "min_heads": 2,
    "min_head_size": 4,
}
_BATCHED = _SMALL | {
    "min_seq_len": 2,
    "min_batch_size": 2,
    "regimes": ("sharpened", "near_initial", "same_sign_v", "ties"),
}
_CUT = {  # every eighth length up to the drawn one
    "regimes": (*_PLAIN, "same_sign_v"),
    "layouts": ("contiguous", "transposed"),
    "min_seq_len": 257,
    "max_seq_len": 600,
    "max_scores": 2**19,
    "max_batch_size": 3,
    "max_heads": 4,
    "head_sizes": (8, 64, 128, 16, 32, 80, 96),
}
_FAR = {"min_seq_len": 1089, "max_seq_len": 1100, "max_batch_size": 1, "max_heads": 1}
_MODEL = {
    "max_seq_len": 130,
    "max_heads": 4,
    "max_head_size": 24,
    "regimes": _MODEL_REGIMES,
    "layouts": ("contiguous", "expanded"),
}


def _cases(quick: int, gate: int, thorough: int) -> dict[str, int]:
    return {"quick": quick, "gate": gate, "thorough": thorough}


def _of_a_replacement() -> tuple[Check, ...]:
    """A check for each property of a replacement, so that each that is broken has an outcome and a case of its own."""
    properties = (
        coverage.returned,
        coverage.layers,
        coverage.blocks,
        state.modes,
        state.dtypes,
        state.frozen,
        state.parameters,
        state.weights,
        state.ties,
        state.shared,
        attachments.hooks,
        attachments.adapters,
        attachments.rates,
        attachments.masks,
        coverage.twice,
        coverage.root,
        coverage.others,
        coverage.process,
    )
    return tuple(
        Check(f"replacement.{run.__name__}", run.__doc__ or "", ("replacement",), run, _cases(1, 3, 20), _REPLACED)
        for run in properties
    )


CHECKS: tuple[Check, ...] = (
    Check("output", output.__doc__ or "", ("module", "function"), output, _cases(40, 170, 2000), cheap=True),
    Check("gradients", gradients.__doc__ or "", ("module", "function"), gradients, _cases(40, 110, 2000), cheap=True),
    Check(
        "causality",
        causality.__doc__ or "",
        _ALL,
        causality,
        _cases(15, 90, 600),
        {"max_seq_len": 140, "max_head_size": 64},
        cheap=True,
    ),
    Check("interface", interface.__doc__ or "", _ALL, interface, _cases(4, 12, 100), _SMALL),
    Check("checkpoint", checkpoint.__doc__ or "", _MODULES, checkpoint, _cases(4, 20, 100), _SMALL),
    Check("errors", errors.__doc__ or "", _MODULES, errors, _cases(4, 20, 100), _SMALL, cheap=True),
    Check("purity", purity.__doc__ or "", _ALL, purity, _cases(6, 40, 200), _SMALL),
    Check("layouts", layouts.__doc__ or "", _ALL, layouts, _cases(3, 10, 100), _BATCHED),
    Check("batching", batching.__doc__ or "", _ALL, batching, _cases(5, 32, 150), _BATCHED, cheap=True),
    Check("lengths", lengths.__doc__ or "", _ALL, lengths, _cases(4, 9, 60), _CUT, dear=True, once=_FAR),
    Check("modes", modes.__doc__ or "", _MODULES, modes, _cases(15, 60, 600), _STEPPED),
    Check("dropout", dropout.__doc__ or "", _ALL, dropout, _cases(8, 24, 400), _DROPPED),
    Check(
        "logits",
        logits.__doc__ or "",
        _MODULES,
        logits,
        _cases(16, 32, 400),
        {**_MODEL, "n_layers": (1, 2, 3, 4)},
    ),
    Check("training", training.__doc__ or "", _MODULES, training, _cases(2, 6, 40), _TRAINED, dear=True),
    Check("generation", generation.__doc__ or "", _MODULES, generation, _cases(4, 24, 100), _GENERATED),
    Check("decoding", decoding.__doc__ or "", ("model", "replacement"), decoding, _cases(6, 24, 200), _DECODED),
    Check("derivatives", derivatives.__doc__ or "", _ALL, derivatives, _cases(3, 8, 80), _TRANSFORMED),
    Check("autocast", autocast.__doc__ or "", _ALL, autocast, _cases(6, 24, 200), _CAST),
    Check("compile", compiled.__doc__ or "", _ALL, compiled, _cases(1, 2, 10), _COMPILED, dear=True),
    Check("extremes", extremes.__doc__ or "", ("module", "function"), extremes, _cases(3, 24, 80), _SMALL),
    *_of_a_replacement(),
    Check("long", long.__doc__ or "", ("module", "function"), long, _cases(1, 2, 12), _LONG),
    Check("bias", bias.__doc__ or "", ("module", "function"), bias, _cases(4, 12, 100), _GENERIC),
    Check("backend", backend.__doc__ or "", _ALL, backend, _cases(4, 8, 40), _RUN, judges=False),
)
