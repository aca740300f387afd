"""Faults that need two or three conditions on raw fields of a case: are they met by the cases of one run, and seen?

    python benchmarks/conjunctions.py [--faults 200] [--seeds 3] [--source 0] [--kind function|module] [--profile gate]

The cases are those of `output` in one real run a seed. Each fault adds half to the result where its conditions are true,
which bfloat16 does not hide. It is run on up to three of the cases in which they are, with the check itself. `edge`
conditions are those at which the classes of `equivcheck/cases/factors.py` begin or end; `inner` ones are drawn from the
raw numbers, without a look at the classes. The drawn cases alone are the cases that a run had before it met pairs.
Exit status 1 where a pair of edges is not seen that no bound on cost excuses.
"""

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.engine.covering import rows_of
from equivcheck.engine.plan import planned_cases
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

OUTPUT = next(check for check in CHECKS if check.name == "output")
TRIED = 3
EDGES = (
    *(("n_head", "==", n) for n in (1, 12, 16, 32, 40)),
    *(("head_size", "==", n) for n in (64, 80, 96, 128, 192, 256)),
    *(("seq_len", ">", n) for n in (8, 32, 128, 256, 512)),
    *(("batch_size", "==", n) for n in (1, 2)),
    *(("batch_size", ">", n) for n in (2, 8, 64)),
    ("seq_len", "==", 1),
    *(("dtype", "==", dtype) for dtype in DTYPES),
)


@dataclass(frozen=True)
class Condition:
    """One condition on a field: equal, greater, or with a remainder."""

    field: str
    word: str
    value: object
    modulus: int = 0

    def __str__(self) -> str:
        word = f"% {self.modulus} ==" if self.modulus else self.word
        return f"{self.field} {word} {self.value!r}"

    def holds(self, fields: dict[str, object]) -> bool:
        x = fields[self.field]
        if self.modulus:
            return isinstance(x, int) and x % self.modulus == self.value
        return x == self.value if self.word == "==" else isinstance(x, int) and x > self.value  # type: ignore[operator]


def edge(source: random.Random) -> Condition:
    return Condition(*source.choice(EDGES))


def inner(source: random.Random) -> Condition:
    """A condition on a raw number, as one might write it who knows kernels and not these classes."""
    field, largest = source.choice((("n_head", 24), ("head_size", 160), ("seq_len", 400), ("batch_size", 12)))
    if source.random() < 0.5:
        modulus = source.choice((2, 3, 4, 8, 16, 32))
        return Condition(field, "%", source.randrange(modulus), modulus)
    if source.random() < 0.5:
        return Condition(field, ">", source.randrange(1, largest))
    return Condition(field, "==", source.randrange(1, min(largest, 24)))


def drawn(source: random.Random, count: int, size: int, one: Callable[[random.Random], Condition]) -> list:
    """Conjunctions of conditions on different fields."""
    made: dict[tuple[Condition, ...], None] = {}
    while len(made) < count:
        of = [one(source) for _ in range(size)]
        if len({condition.field for condition in of}) == size:
            made[tuple(sorted(of, key=str))] = None
    return list(made)


def fields_of(x: Tensor, n_head: int, head_size: int) -> dict[str, object]:
    return {
        "batch_size": x.shape[0],
        "seq_len": x.shape[-2],
        "n_head": n_head,
        "head_size": head_size,
        "dtype": str(x.dtype).removeprefix("torch."),
    }


def faulty_function(conditions):
    def function(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        fields = fields_of(q, q.shape[1], q.shape[-1])
        return y * 1.5 if all(c.holds(fields) for c in conditions) else y

    return function


def faulty_module(conditions):
    class Faulty(FlashCausalSelfAttention):
        def forward(self, x):
            y = super().forward(x)
            fields = fields_of(x, self.n_head, x.shape[-1] // self.n_head)
            return y * 1.5 if all(c.holds(fields) for c in conditions) else y

    return Faulty


def cases_of(subject: Pair, profile: str, seed: int) -> tuple[list[Case], list[Case]]:
    """The drawn cases of a run, and those that meet every pair."""
    seen: list[Case] = []

    def collect(_: object, case: Case) -> CaseResult:
        seen.append(case)
        return CaseResult(judged=False)

    planned = planned_cases(OUTPUT, subject=subject, profile=profile, dtypes=len(DTYPES))
    search = Search(replace(OUTPUT, run=collect), subject, planned, 0.0, math.inf)
    search.run(classes(OUTPUT, subject, DTYPES, planned, profile=profile), seed_for(seed, OUTPUT.name))
    rows = rows_of([OUTPUT], subject, DTYPES, profile, seed).get("output", {"cases": ()})
    return seen, [Case.parse(case) for case in rows["cases"]]


def sees(subject: Pair, cases: list[Case]) -> bool:
    for case in cases[:TRIED]:
        try:
            OUTPUT.run(subject, case)
        except Mismatch:
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--source", type=int, default=0, help="the seed that draws the faults")
    parser.add_argument("--kind", default="function", choices=("function", "module"))
    parser.add_argument("--profile", default="gate")
    args = parser.parse_args()
    function = args.kind == "function"
    original = F.scaled_dot_product_attention if function else CausalSelfAttention
    right = F.scaled_dot_product_attention if function else FlashCausalSelfAttention
    subject = resolve(original, right, kind=args.kind, device="cpu")
    source, quarter = random.Random(args.source), args.faults // 4
    groups = {
        "pairs of edges": drawn(source, 2 * quarter, 2, edge),
        "inner pairs": drawn(source, quarter, 2, inner),
        "inner triples": drawn(source, quarter, 3, inner),
    }
    met, seen, before = Counter(), Counter(), Counter()
    for seed in range(args.seeds):
        chance, covered = cases_of(subject, args.profile, seed)
        print(f"seed {seed}: {len(chance)} drawn cases, {len(covered)} that meet pairs", flush=True)
        for group, faults in groups.items():
            for conditions in faults:
                there = [
                    [case for case in cases if all(c.holds(vars(case)) for c in conditions)]
                    for cases in (covered, chance)
                ]
                met[group] += any(there)
                make = (faulty_function if function else faulty_module)(conditions)
                wrong = subject.with_candidate(make if not function else _as_option(subject, make), "wrong")
                before_saw = sees(wrong, there[1])
                before[group] += before_saw
                saw = before_saw or sees(wrong, there[0])
                seen[group] += saw
                if not saw:
                    print(f"  not seen, {sum(map(len, there))} cases: {' and '.join(map(str, conditions))}", flush=True)
    for group, faults in groups.items():
        of = len(faults) * args.seeds
        print(f"{group}: met {met[group]} of {of}, seen {seen[group]}; by drawn cases alone {before[group]}")
    return int(seen["pairs of edges"] < met["pairs of edges"])


def _as_option(subject: Pair, function):
    """A function with the options of the pair's candidate, as the pair calls it."""
    options = subject.options

    def called(q, k, v, **given):
        return function(q, k, v, **{name: value for name, value in given.items() if name in options})

    return called


if __name__ == "__main__":
    sys.exit(main())
