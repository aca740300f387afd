"""How fast: what `equivcheck bench` times, original beside fused attention in one group, with what a record must carry."""

from typing import Any

import pytest
import torch

from equivcheck.bench.memory import peak_of
from equivcheck.bench.workloads import Row, flops, makes, rows
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime.device import device_name
from equivcheck.runtime.kernel_trace import kernels_of

SIDES = ("original", "flash")
ROUNDS = {"cuda": 20, "cpu": 5}
# the size that the guide's author trained, and what a CPU does in a moment
ROWS = {
    "cuda": list(rows("guide", (), "module")),
    "cpu": [row for row in rows("small", (), "module") if row.size.T == 128],
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("device", "row"),
    [pytest.param("cpu", row, id=f"cpu, {row.name}") for row in ROWS["cpu"]]
    + [pytest.param("cuda", row, id=f"cuda, {row.name}", marks=pytest.mark.gpu) for row in ROWS["cuda"]],
)
def test_speed(benchmark: Any, device: str, row: Row, side: str) -> None:
    subject = resolve(
        "equivcheck.attention:CausalSelfAttention",
        "equivcheck.attention:FlashCausalSelfAttention",
        kind="module",
        device=device,
    )
    make = makes(subject, row)[SIDES.index(side)]
    peak = peak_of(make, subject.device)
    action = make()
    repetition = iter(range(10**9))

    def finished() -> None:
        action(next(repetition))
        if device == "cuda":
            torch.cuda.synchronize()

    needed = flops(row, subject.kind)
    benchmark.group = f"{row.name} on {device_name(subject.device)}"
    benchmark.extra_info.update(
        case=row.name,
        side=side,
        kernels=kernels_of(lambda: action(0)),
        peak_bytes=peak.peak_bytes,
        peak_above_resident_bytes=peak.above_bytes,
        flops=needed,
        device=device_name(subject.device),
    )
    benchmark.pedantic(finished, rounds=ROUNDS[device], warmup_rounds=2)
    if (
        benchmark.stats is not None
    ):  # pytest-benchmark calls and measures nothing where several processes run the tests: -n 0
        benchmark.extra_info["flops_per_s"] = needed / benchmark.stats.stats.median
    assert benchmark.extra_info["kernels"]
