"""Known faults, built into attentions that are not minGPT's: is the cause that a report names the one that was built in?

    python benchmarks/diagnosis.py [--draws 1] [--seed 0] [--profile quick]

Each fault is built into a blockwise attention and run through `verify` against an original that computes in another way:
a function, a module as nanoGPT's, one with grouped heads, one with rotary positions. Numbers are drawn. A cause is right
if its family is the one that was built in and its numbers are, as far as it has any; a fault that no reading has must
have no cause. Faults under a condition ask for the region: it is right if it is true of the same cases of a grid. Exit
status 1 where fewer than 80 % of the causes or of the regions are right, or more than 2 % of the causes are wrong, or a
cause is named for more than 5 % of the faults that have none.
"""

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from with_readings import Built, Grouped, NanoGPT, Rotary, function

from equivcheck.adapters.readings import softmax_attention_top_left
from equivcheck.api import verify
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain

MODULES = {"nanogpt": NanoGPT, "grouped": Grouped, "rotary": Rotary}
CHECKS = ["output", "gradients"]


@dataclass(frozen=True)
class Fault:
    """A fault, the ids that are right for it, and the parameters that it was drawn with."""

    built: Built
    right: tuple[str, ...]
    parameters: dict[str, Any]
    forms: tuple[str, ...] = ("function", "nanogpt", "grouped", "rotary")


def faults(rng: random.Random) -> Iterator[Fault]:
    """One fault of each family, with drawn numbers."""
    modules = ("nanogpt", "grouped", "rotary")
    offset, window, chunk = rng.randint(1, 3), rng.randint(3, 40), rng.choice((8, 12, 16, 24, 32))
    prefix, scale, cap = rng.randint(3, 20), round(rng.uniform(0.6, 1.7), 2), round(rng.uniform(1, 12), 1)
    yield Fault(Built(offset=offset), ("offset",), {"keys": offset})
    yield Fault(Built(window=window), ("window",), {"keys": window})
    yield Fault(Built(chunk=chunk), ("chunk",), {"keys": chunk})
    yield Fault(Built(prefix=prefix), ("prefix",), {"keys": prefix})
    yield Fault(Built(causal=False), ("mask-missing", "corner"), {})
    yield Fault(Built(scale=scale), ("scale",), {"factor": scale})
    yield Fault(Built(cap=cap), ("cap",), {"cap": cap})
    yield Fault(Built(heads="tiled"), ("heads-tiled", "heads"), {}, ("grouped",))
    yield Fault(Built(heads="first"), ("first-head-read", "heads"), {}, ("grouped",))
    yield Fault(Built(one_added=True), ("one-added-to-the-sum",), {})
    names = {"q": "queries", "k": "keys", "v": "values"}
    for how, factor in (("detached", 0.0), ("halved", 0.5)):
        name = rng.choice("qkv")
        yield Fault(Built(**{how: name}), ("gradient",), {"of": names[name], "factor": factor})  # type: ignore[arg-type]
    yield Fault(Built(eval_dropout=True), ("dropout-in-eval",), {}, modules)
    yield Fault(Built(rescaled=True), ("rescaled-without-dropout",), {}, modules)
    yield Fault(Built(odd_channels=scale), ("output-scaled",), {"factor": scale})
    yield Fault(Built(lost_first=1), (), {})
    yield Fault(Built(sample=scale), (), {}, modules)
    yield Fault(Built(swapped_halves=True), (), {}, modules)


CONDITIONS = (
    "seq_len >= 33",
    "seq_len >= 100",
    "seq_len % 16 != 0",
    "batch_size >= 3",
    "n_head == 12",
    "head_size >= 17",
    "head_size % 8 != 0",
    "dtype in ('float16', 'bfloat16')",
    "dtype == 'float64'",
    "training",
    "n_head >= 2 and seq_len >= 9",
    "batch_size >= 2 and head_size == 64",
)
"""Conditions of a module's case, as a domain is declared."""


def wrong_under(condition: str, config: Any) -> Any:
    """An attention whose result is half too large in the cases in which a condition is true."""
    domain = Domain.parse(condition)

    class Wrong(NanoGPT):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            B, T, C = x.shape
            sizes = {"batch_size": B, "seq_len": T, "n_head": self.n_head, "head_size": C // self.n_head}
            name = str(x.dtype).removeprefix("torch.")
            case = Case(**sizes, block_size=T, dtype=name, training=self.training)  # type: ignore[arg-type]
            return y * 1.5 if domain.allows(case) else y

    return Wrong(config)


def grid() -> list[Case]:
    """Cases on which two conditions are compared."""
    numbers = itertools.product(
        (1, 2, 3, 8), (1, 8, 9, 16, 32, 33, 99, 100, 256), (1, 2, 3, 12), (8, 16, 17, 20, 64, 80)
    )
    dtypes = ("float64", "float32", "float16", "bfloat16")
    return [
        Case(batch_size=B, seq_len=T, block_size=T, n_head=H, head_size=D, dtype=dtype, training=training)
        for (B, T, H, D), dtype, training in itertools.product(numbers, dtypes, (False, True))
    ]


def region_of(condition: str, profile: str, seed: int) -> str:
    """The region in a report of a fault under a condition; empty if it has none."""
    report = verify(NanoGPT, partial(wrong_under, condition), kind="module", device="cpu", profile=profile,
                    checks=["output", "dropout"], seed=seed)  # fmt: skip
    examples = [result.counterexample for result in report.results if result.counterexample is not None]
    return next((example.diagnosis.region for example in examples if example.diagnosis.region), "")


def original(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
    """Attention spelled out."""
    return softmax_attention_top_left(q, k, v, is_causal=is_causal)


def causes(fault: Fault, form: str, profile: str, seed: int) -> list[tuple[str, dict[str, Any]]] | None:
    """The causes that the first difference is given; None where there is no difference."""
    if form == "function":
        pair: tuple[Any, Any] = (original, partial(function, built=fault.built))
    else:
        pair = (MODULES[form], partial(MODULES[form], built=fault.built))
    report = verify(*pair, kind="function" if form == "function" else "module", device="cpu", profile=profile,
                    checks=CHECKS, seed=seed, domain="kv_len == seq_len" if form == "function" else None)  # fmt: skip
    for result in report.results:
        if result.outcome == "different" and result.counterexample is not None:
            return [(cause.id, dict(cause.parameters)) for cause in result.counterexample.diagnosis.causes]
    return None


def judged(fault: Fault, given: list[tuple[str, dict[str, Any]]] | None) -> str:
    """`right`, `wrong`, `silent`, or `unseen` where the run saw no difference."""
    if given is None:
        return "unseen"
    if not given:
        return "silent"

    def fits(name: str, parameters: dict[str, Any]) -> bool:
        return name in fault.right and all(_near(parameters.get(key), value) for key, value in fault.parameters.items())

    return "right" if any(fits(*one) for one in given) else "wrong"


def _near(one: Any, other: Any) -> bool:
    return bool(abs(one - other) <= 1e-2 * abs(other)) if isinstance(one, float) else bool(one == other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="quick")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    known: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for _ in range(options.draws):
        for fault in faults(rng):
            for form in fault.forms:
                began = time.monotonic()
                given = causes(fault, form, options.profile, options.seed)
                word = judged(fault, given)
                counts = known if fault.right else unknown
                counts[word] = counts.get(word, 0) + 1
                print(f"{word:7} {form:9} {fault.built} -> {given} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"faults that have a reading: {known}; that have none: {unknown}")
    of_known, of_unknown = sum(known.values()), sum(unknown.values())
    right, wrong = known.get("right", 0) / of_known, known.get("wrong", 0) / of_known
    silent = (unknown.get("silent", 0) + unknown.get("unseen", 0)) / of_unknown
    print(f"right {right:.0%}, wrong {wrong:.0%}; without a reading silent {silent:.0%}")
    cases, of_regions = grid(), 0
    for condition in CONDITIONS:
        region, meant = region_of(condition, options.profile, options.seed), Domain.parse(condition)
        read = Domain.parse(region) if region else None
        same = read is not None and all(read.allows(case) == meant.allows(case) for case in cases)
        of_regions += same
        print(f"{'right' if same else 'wrong':7} region of {condition!r}: {region!r}", flush=True)
    print(f"regions: {of_regions} of {len(CONDITIONS)} right")
    regions = of_regions / len(CONDITIONS) >= 0.8
    return 0 if right >= 0.8 and wrong <= 0.02 and silent >= 0.95 and regions else 1


if __name__ == "__main__":
    sys.exit(main())
