"""The gate of `equivcheck bench --against`: does a slowed candidate trip it, and the same one never?

    python benchmarks/tripwire.py [--preset small] [--device cpu] [--again 10] [--slower 40] [--max-seconds 10] [--out FILE]

Measures the shipped pair once for a record, then N times again against it: none may trip. Then the same with a candidate that
takes 40 % longer: it must. It works that much longer itself, after each forward pass: on the CPU in a loop for 40 % of what this
very pass took (the machine may be busier than it was), on CUDA in a kernel for 40 % of the time that it had been measured to take.
Attention alone in eval, the preset's first row. Exit status 1 where either is not so.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.bench.paired_timing import alone
from equivcheck.bench.record import TRIPWIRE
from equivcheck.bench.runner import against, bench
from equivcheck.bench.workloads import makes, rows
from equivcheck.errors import UsageError
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import device_name


def slowed(share, ms):
    """The fused attention, which works longer in each forward pass by a share of its time, on CUDA of `ms`."""

    class Slowed(FlashCausalSelfAttention):
        def forward(self, x):
            began = time.perf_counter()
            y = super().forward(x)
            if x.is_cuda:
                torch.cuda._sleep(int(share * ms * CYCLES_PER_MS))
            else:
                until = time.perf_counter() + share * (time.perf_counter() - began)
                while time.perf_counter() < until:
                    pass
            return y

    return Slowed


CYCLES_PER_MS = 0.0


def interval(line):
    return f"{line['ratio']:.3f} × ({line['low']:.3f} … {line['high']:.3f})"


def cycles_per_ms():
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(2):  # the first warms up
        start.record()
        torch.cuda._sleep(50_000_000)
        end.record()
        torch.cuda.synchronize()
    return 50_000_000 / start.elapsed_time(end)


def main() -> None:
    global CYCLES_PER_MS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--again", type=int, default=10)
    parser.add_argument("--slower", type=float, default=40.0)
    parser.add_argument("--max-seconds", type=float, default=10.0, help="for each measurement")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device=args.device)
    if subject.device.type == "cuda":
        CYCLES_PER_MS = cycles_per_ms()
    row = next(row for row in rows(args.preset, (args.dtype,), "module") if row.work == "attention")
    ms = alone(makes(subject, row)[1], subject.device, max_seconds=1.0).median_ms

    def measure(candidate):
        return lambda names: bench(
            CausalSelfAttention,
            candidate,
            device=args.device,
            preset=args.preset,
            dtypes=(args.dtype,),
            max_seconds=args.max_seconds,
            only=names,
        )

    def tried(candidate):
        now = measure(candidate)([row.name])
        told, unclear = [], ""
        try:
            told, _ = against(record, now, "the record", TRIPWIRE, measure(candidate))
        except UsageError as error:
            unclear = str(error)
        line = now.lines[0]
        return {"ratio": line.ratio, "low": line.low, "high": line.high, "told": told, "could not be judged": unclear}

    record = measure(FlashCausalSelfAttention)([row.name])
    same = [tried(FlashCausalSelfAttention) for _ in range(args.again)]
    slow = tried(slowed(args.slower / 100, ms))
    found = {
        "device": device_name(subject.device),
        "environment": environment(subject.device),
        "row": row.name,
        "tripwire": TRIPWIRE,
        "record": {"ratio": record.lines[0].ratio, "low": record.lines[0].low, "high": record.lines[0].high},
        "the same again": same,
        f"{args.slower:g} % slower": slow,
    }
    tripped = sum(bool(one["told"]) for one in same)
    page = (
        f"# The performance gate\n\n{found['device']}, torch {found['environment']['torch']}, {row.name}; "
        f"tripwire {TRIPWIRE:g} %.\n\n"
        f"The record says {interval(found['record'])}. Measured again {args.again} times, the same candidate has "
        f"{min(o['ratio'] for o in same):.3f} to {max(o['ratio'] for o in same):.3f} ×, and trips {tripped} times "
        f"({sum(bool(one['could not be judged']) for one in same)} could not be judged).\n"
        f"A candidate slowed by {args.slower:g} % has {interval(slow)}, and "
        + (f"trips: {slow['told'][0]}." if slow["told"] else "does not trip.")
        + "\n"
    )
    print(page)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(page)
    caught = any("% slower" in told for told in slow["told"])
    sys.exit(0 if caught and not tripped else 1)


if __name__ == "__main__":
    main()
