"""The fused module beside the floor and beside the published one: is there time left in it?

    python benchmarks/floor.py [--preset gpt2]... [--device cuda] [--dtype bfloat16]... [--lengths 1024,8192] [--max-seconds 60]
                               [--again] [--out FILE]

For every row of attention alone in a preset, forward and with its backward pass, three things are measured in pairs:

- *ours over the floor*: `FlashCausalSelfAttention` against four linears around the fastest SDPA kernel called directly. Which is
  the fastest is found first, by trying each of torch's kernels by itself on the same q, k and v;
- *published over ours*: the module as the guide publishes it, written anew from the guide: `is_causal`, and the rate kept
  from the config.

A ratio is the first's time over the second's, with its 95 % interval; of ours and of the published one also the memory
above what is resident. A row that says that the published one is faster is measured again, more precisely; with --again
each row is. How many say so is told, and how likely so many are by chance. Each row is told when it is measured. With --out
writes JSON, and markdown beside it, anew after each row: what was measured stays if the run is ended. The longest rows take
longer than their share: a pair is measured three times in each of four rounds, however late it is.
"""

import argparse
import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from agree import EXPECTED
from torch import nn
from torch.nn.attention import sdpa_kernel

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.bench.gpu_state import clocks
from equivcheck.bench.memory import peak_of
from equivcheck.bench.paired_timing import DoesNotFit, alone, fitting, paired, release
from equivcheck.bench.timer import LEARNING, Stopwatch
from equivcheck.bench.workloads import flops, makes, rows
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import device_name
from equivcheck.runtime.kernel_trace import KERNELS, kernels_of

AGAIN, AGAIN_S = "published over ours, again", 12.0


class PublishedCausalSelfAttention(nn.Module):
    """The guide's drop-in, as it describes it; its mask buffer is left out, which it keeps and never reads."""

    def __init__(self, config):
        super().__init__()
        self.key = nn.Linear(config.n_embd, config.n_embd)
        self.query = nn.Linear(config.n_embd, config.n_embd)
        self.value = nn.Linear(config.n_embd, config.n_embd)
        self.attn_drop = nn.Dropout(config.attn_pdrop)
        self.resid_drop = nn.Dropout(config.resid_pdrop)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head, self.attn_pdrop = config.n_head, config.attn_pdrop
        self.attention_weights = None

    def forward(self, x):
        B, T, C = x.size()
        k = self.key(x).view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        q = self.query(x).view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        v = self.value(x).view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None,
            dropout_p=self.attn_pdrop if self.training else 0.0,
            is_causal=True,
            scale=1.0 / math.sqrt(k.size(-1)),
        )
        self.attention_weights = None
        y = y.transpose(1, 2).contiguous().view(B, T, C)  # (B, T, C)
        return self.resid_drop(self.proj(y))


class Floor(nn.Module):
    """Four linears and one kernel, the one that `kernel` names, with nothing else around them."""

    kernel: str | None = None

    def __init__(self, config):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(config.n_embd, config.n_embd) for _ in range(4))
        self.n_head, self.rate = config.n_head, config.attn_pdrop

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in self.linears[:3])  # (B, nh, T, hs)
        rate = self.rate if self.training else 0.0
        with sdpa_kernel(KERNELS[self.kernel]) if self.kernel else nullcontext():
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        return self.linears[3](y.transpose(1, 2).flatten(2))


def only(kernel, q, k, v, *, is_causal, dropout_p, scale):
    with sdpa_kernel(KERNELS[kernel]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def kernel_times(row, subject, seconds):
    """ms of each kernel alone on the row's q, k and v; None where it refuses or does not fit."""
    found = {}
    for kernel in KERNELS:
        if kernel == "math" and any(ms is not None for ms in found.values()):
            continue  # the last resort, and slow
        function = partial(only, kernel)
        make = makes(replace(subject, reference=function, candidate=function, kind="function"), row)[0]
        try:
            found[kernel] = once(make, subject.device)
            if found[kernel] < 1.5 * min(ms for ms in found.values() if ms is not None):  # else it is not the fastest
                found[kernel] = alone(make, subject.device, max_seconds=seconds / 4).median_ms
        except DoesNotFit:
            found[kernel] = None
        except RuntimeError:  # no such kernel for this dtype, device or head size
            found[kernel] = None
        release(subject.device)
    return found


def once(make, device):
    """ms of one repetition, after those that warm up."""
    with fitting(device):
        action, one = make(), Stopwatch(device, False)
        return [one(action, number) for number in range(LEARNING + 1)][-1]


def measured(row, subject, seconds, always_again):
    kernels = kernel_times(row, subject, seconds / 5)
    able = {name: ms for name, ms in kernels.items() if ms is not None}
    line = {"name": row.name, "work": row.work, "dtype": row.dtype, "T": row.size.T, "kernel_ms": kernels}
    if not able:
        return line | {"refused": "no kernel runs"}
    fastest = min(able, key=able.get)
    floor = type("Floor", (Floor,), {"kernel": fastest})
    ours = replace(subject, reference=FlashCausalSelfAttention)
    try:
        make_ours = makes(ours, row)[0]
        line |= {"ours_kernels": kernels_of(lambda: make_ours()(0)), "floor_kernel": fastest}
        release(subject.device)
        for name, pair in (
            ("ours over floor", (FlashCausalSelfAttention, floor)),
            ("published over ours", (PublishedCausalSelfAttention, FlashCausalSelfAttention)),
        ):
            both = makes(replace(subject, reference=pair[0], candidate=pair[1]), row)
            line[name] = asdict(paired(*both, subject.device, max_seconds=0.4 * seconds))
        if line[name]["high"] < 1 or always_again:
            line[AGAIN] = asdict(paired(*both, subject.device, max_seconds=AGAIN_S, standard_error=0.001, rounds=8))
        line["memory above resident, published and ours"] = [peak_of(make, subject.device).above_bytes for make in both]
        line["ours_flops_per_s"] = flops(row, "module") / line["ours over floor"]["first"]["median_ms"] * 1e3
    except DoesNotFit as error:
        line["refused"] = str(error)
    release(subject.device)
    return line


HEAD = """\
| work | dtype | T | kernels alone, ms | ours runs | fastest | ours ms | ours over floor | published over ours | memory, MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def told(line):
    """The row of the table."""
    kernels = ", ".join(f"{name} {ms:.3g}" for name, ms in line["kernel_ms"].items() if ms is not None)
    ours = line.get("ours over floor")
    ratios = [
        line.get("refused", "")[:60] if r is None else f"{r['ratio']:.3f} ({r['low']:.3f} … {r['high']:.3f})"
        for r in (ours, line.get("published over ours"), line.get(AGAIN))
        if r is not None or line.get("refused")
    ]
    ratios = [*ratios[:1], "; again: ".join(ratios[1:])]
    cells = [
        line["work"],
        line["dtype"],
        line["T"],
        kernels,
        "+".join(line.get("ours_kernels", ())),
        line.get("floor_kernel", ""),
    ]
    cells += [f"{ours['first']['median_ms']:.4g}" if ours else "", *ratios]
    cells.append(", ".join(f"{b / 2**20:.1f}" for b in line.get("memory above resident, published and ours", ())))
    return "| " + " | ".join(map(str, cells)) + " |"


def page(found):
    return (
        "# The fused module, the floor and the published module\n\n"
        f"{found['device']}, torch {found['environment']['torch']}. Ratios of times measured in pairs, with 95 % intervals; "
        "the floor is four linears and the fastest kernel.\n\n"
        + "\n".join([HEAD, *map(told, found["rows"])])
        + f"\n\n{verdict(found['rows'])}\n"
    )


def verdict(rows):
    """How many rows say that the published module is faster than ours, and whether chance explains them."""
    highs = [row["published over ours"]["high"] for row in rows if "published over ours" in row]
    faster = sum(high < 1 for high in highs)
    low = EXPECTED / 2  # an interval of 95 % is as often too low as too high
    again = [row[AGAIN]["high"] < 1 for row in rows if AGAIN in row]
    chance = sum(
        math.comb(len(highs), n) * low**n * (1 - low) ** (len(highs) - n) for n in range(faster, len(highs) + 1)
    )
    return (
        f"In {faster} of {len(highs)} rows the whole interval of published over ours is below 1: where both are as fast in all of "
        f"them, so many or more have a chance of {chance:.2g}."
        + (f" Measured again, to a standard error of 0.1 %, {sum(again)} of {len(again)} are." if again else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", action="append")
    parser.add_argument("--lengths", help="rows of these T alone, with commas between")
    parser.add_argument("--again", action="store_true", help="measure each row again, whatever it says")
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device=args.device)
    wanted = [
        row
        for preset in args.preset or ["small"]
        for row in rows(preset, tuple(args.dtype or ()), "module")
        if row.work.startswith("attention") and (not args.lengths or str(row.size.T) in args.lengths.split(","))
    ]
    found = {
        "device": device_name(subject.device),
        "environment": environment(subject.device),
        "clocks": None,
        "rows": [],
    }
    print(HEAD, flush=True)
    began = time.monotonic()
    for number, row in enumerate(wanted):
        left = max(1.0, args.max_seconds - (time.monotonic() - began))
        found["rows"].append(measured(row, subject, left / (len(wanted) - number), args.again))
        print(told(found["rows"][-1]), flush=True)
        gpu = clocks(subject.device)
        found["clocks"] = None if gpu is None else asdict(gpu)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=1) + "\n")
            args.out.with_suffix(".md").write_text(page(found))


if __name__ == "__main__":
    main()
