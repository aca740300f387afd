"""Reports to be shown and saved: small ones, full ones, strange ones, and a strategy for all of them."""

import math
from dataclasses import replace

from hypothesis import strategies as st

from equivcheck.report.model import (
    CheckResult,
    Combinations,
    Counterexample,
    Deviation,
    Package,
    Report,
    Sensitivity,
    Timing,
)

CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"


OUTPUT = CheckResult("output", "equivalent", 60, 1.5, 0.412, CASE, "y[0, 2, 1]")


GRADIENTS = CheckResult("gradients", "equivalent", 40, 2.0, 0.73, CASE, "key.weight", notes=("2 zero gradients",))


BROKEN = replace(
    OUTPUT,
    outcome="different",
    worst_ratio=math.inf,
    counterexample=Counterexample(
        CASE, "3 of 12 values differ\nlargest: nan", f"equivcheck replay {CASE} a:A b:B", math.inf
    ),
)


SENSITIVE = Sensitivity(("mask_off_by_one", "scale_of_embedding"), (), {"mask_off_by_one": f"output on {CASE}"}, 3.0)


def report_of(*results: CheckResult, sensitivity: Sensitivity = SENSITIVE, **changes: object) -> Report:
    facts = {
        "reference": "a:A",
        "candidate": "b:B",
        "kind": "module",
        "device": "cpu",
        "profile": "gate",
        "seed": 0,
        "complete": True,
        "seconds": 41.23,
        "created": "2026-01-02T03:04:05+00:00",
        "environment": {"torch": "2.13.0", "python": "3.11"},
        "sources": {"candidate": "0" * 64},
    }
    return Report(results=results, sensitivity=sensitivity, **{**facts, **changes})  # type: ignore[arg-type]


TEXT = st.text(
    st.characters(codec=None), max_size=12
)  # lone surrogates and control characters too: strangers name things


RATIO = st.none() | st.floats(allow_nan=False)  # NaN is tested by itself: it is not equal to itself


COUNTEREXAMPLES = st.builds(Counterexample, TEXT, TEXT, TEXT, RATIO)


RESULTS = st.builds(
    CheckResult,
    name=TEXT,
    outcome=st.sampled_from(["equivalent", "different", "unsupported", "deviation"]),
    cases=st.integers(0, 999),
    seconds=st.floats(0, 999),
    worst_ratio=RATIO,
    worst_case=st.none() | TEXT,
    worst_where=st.none() | TEXT,
    counterexample=st.none() | COUNTEREXAMPLES,
    detail=TEXT,
    notes=st.tuples(TEXT),
    unsupported=st.tuples(TEXT),
    visited=st.dictionaries(TEXT, st.dictionaries(TEXT, st.integers(0, 9), max_size=2), max_size=2),
)


REPORTS = st.builds(
    report_of,
    RESULTS,
    RESULTS,
    candidate=TEXT,
    complete=st.booleans(),
    environment=st.dictionaries(TEXT, TEXT, max_size=2),
    packages=st.dictionaries(TEXT, st.builds(Package, TEXT, TEXT), max_size=2),
    not_covered=st.tuples(TEXT) | st.just(()),
    dtypes=st.tuples(TEXT) | st.just(()),
    dtypes_not_run=st.dictionaries(TEXT, TEXT, max_size=2),
    remembered=st.none() | st.tuples(RESULTS),
    sensitivity=st.builds(Sensitivity, st.tuples(TEXT), st.tuples(TEXT) | st.just(()), st.dictionaries(TEXT, TEXT)),
)


VISITED = {
    "dtype": {"bfloat16": 3, "float32": 5},
    "regime": {"sharpened": 6, "tiny": 2},
    "mode": {"eval": 8},
    "length": {"up to 128": 1, "up to 16": 3, "longer": 4},
    "dtype × regime": {"bfloat16 × sharpened": 3, "float32 × sharpened": 3, "float32 × tiny": 2},
    "dtype × mode": {"bfloat16 × eval": 3, "float32 × eval": 5},
}


TIMINGS = {
    f"attention, {dtype}, T={T}": Timing("attention", dtype, T, T / 100, T / 250, 2.5, 2.4, 2.6, T * T, T * 64)
    for dtype in ("float32", "bfloat16")
    for T in (1024, 4096, 16384)
}


ONE_LENGTH = {"GPT $forward$ <b>": Timing("GPT", "float32", 399, 43.9, 25.9, 1.7, None, None, 2**30, 2**28, "a remark")}


FULL = report_of(
    replace(OUTPUT, visited=VISITED, by_dtype={"float32": 0.412, "bfloat16": 0.09}),
    replace(BROKEN, name="gradients", visited=VISITED, by_dtype={"float32": float("inf"), "float16": 0.73}),
    replace(GRADIENTS, name="errors", outcome="deviation", detail="declared: it runs past its block"),
    replace(GRADIENTS, name="compile", outcome="unsupported", unsupported=("compile: RuntimeError",)),
    sensitivity=Sensitivity(("a", "b"), ("b",), {"a": f"output on {CASE}"}, 3.0),
    deviations=(Deviation("errors", "it runs past its block", "2027-01-31", True),),
    kernels={"bfloat16, head size 64": "cudnn"},
    dtypes=("float32", "bfloat16"),
    dtypes_not_run={"float16": "RuntimeError: no"},
    packages={"einops": Package("0.8.1", "0" * 64)},
    not_covered=("what the network answered: 10.0.0.1",),
    candidate_file="pkg/fast.py",
    candidate_line=12,
    coverage={"output": {"pairs": Combinations(948, 948, {"cost": 42})}},
)


SCRIPT = "<script>alert(1)</script>"


STRANGE = replace(
    FULL,
    candidate=f"pkg:{SCRIPT}",
    results=(
        *FULL.results,
        CheckResult(SCRIPT, "different", 1, counterexample=Counterexample(SCRIPT, f"</pre>{SCRIPT}", f"'{SCRIPT}\"")),
        CheckResult("\u0628\u062f\u064a\u0644 \u202eevil", "equivalent", 1, notes=("\u05d0\u05d1\u05d2",)),
        CheckResult("n" * 2000, "equivalent", 1, 0.1, 0.5, "c" * 2000, "w" * 2000, by_dtype={"d" * 2000: 0.5}),
    ),
    environment={SCRIPT: "x" * 2000},
    dtypes=(SCRIPT,),
    packages={SCRIPT: Package("1" * 2000)},
    not_covered=(SCRIPT, "f" * 2000),
)


MANY = report_of(*(replace(BROKEN, name=f"check-{number}") for number in range(500)))


EMPTY = report_of(complete=False, sensitivity=Sensitivity(), environment={}, sources={}, candidate="", reference="")


SPEED = {"full": TIMINGS, "strange": {"n" * 2000: ONE_LENGTH["GPT $forward$ <b>"], **ONE_LENGTH}}


PAGES = {"full": FULL, "strange": STRANGE, "many": MANY, "empty": EMPTY, "green": report_of(OUTPUT, GRADIENTS)}
