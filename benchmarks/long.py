"""Long sequences against the oracle by blocks of queries: verdict, worst ratio per tensor, seconds and peak memory.

    python benchmarks/long.py --device cuda --lengths 16384,65536,131072 --dtype bfloat16 [--kind function|module]

The pair that ships (`module`), or its attention as a function of q, k, v against F.scaled_dot_product_attention
(`function`). Prints one line a length; with --out writes them as JSON. Memory is what is allocated at the peak above
what is there before anything is judged: inputs, upstream gradient, and the candidate with its weights and its mask.
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.cases.words import REGIMES
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.long.long import does_not_fit
from equivcheck.checks.long.problem import long_problem
from equivcheck.checks.long.truth import long_truth
from equivcheck.errors import Mismatch
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    """Causal attention as minGPT spells it out."""
    T = q.shape[-2]
    scores = (q @ k.transpose(-2, -1)) * scale  # (B, H, T, T)
    scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1), -math.inf)
    return torch.softmax(scores, -1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    """The same through torch's fused kernels."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


def peak_bytes(device: torch.device) -> int:
    """The largest memory so far: of torch's allocator on CUDA, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes(device: torch.device) -> int:
    """What is held now; on a CPU the largest memory so far, so that only what goes past it counts."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return peak_bytes(device)


def judge(subject: Pair, longer: Case) -> dict[str, Any]:
    """One length: build, candidate, truth, perturbed runs, comparison."""
    row: dict[str, Any] = {"case": longer.id, "kind": subject.kind, "T": longer.seq_len, "dtype": longer.dtype}
    began = time.monotonic()
    problem = long_problem(subject, longer)
    try:
        module = problem.candidate
        row["build_s"] = time.monotonic() - began
        row["resident_bytes"] = resident_bytes(subject.device)
        started = time.monotonic()
        got = problem.run(module, problem.inputs, gradients=True)
        truth = long_truth(subject, problem)
        row["truth_s"] = time.monotonic() - started
        truth.sample(refined=False)
        row["with_perturbed_s"] = time.monotonic() - started
        row["ratios"], row["messages"] = {}, []
        for name in dict.fromkeys((*truth.values, *got)):
            try:
                row["ratios"][name] = compare_all(problem, truth, got, dict, (name,)).ratio
            except Mismatch as mismatch:
                row["ratios"][name] = mismatch.ratio
                row["messages"].append(str(mismatch))
    except (RuntimeError, MemoryError) as error:
        if not does_not_fit(error):
            raise
        return row | {"verdict": "does not fit", "seconds": time.monotonic() - began}
    row["verdict"] = "different" if row["messages"] else "equivalent"
    row["seconds"] = time.monotonic() - began
    row["above_bytes"] = peak_bytes(subject.device) - row["resident_bytes"]
    return row


def told(row: dict[str, Any]) -> str:
    """One line for one length."""
    line = f"T={row['T']:<7d} {row['kind']:8s} {row['dtype']:9s} {row['verdict']:12s} {row['seconds']:7.1f} s"
    if "ratios" not in row:
        return line
    ratios = ", ".join(f"{name} {ratio:.2g}" for name, ratio in row["ratios"].items())
    resident, above = row["resident_bytes"] / 2**30, row["above_bytes"] / 2**30
    return f"{line}  {above:5.2f} GiB above {resident:.2f} GiB  {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lengths", default="4096,16384", help="numbers of positions, with commas between them")
    parser.add_argument("--dtype", default="bfloat16", help=f"some of {', '.join(DTYPES)}, with commas between them")
    parser.add_argument("--kind", choices=("function", "module"), default="function")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--regime", choices=REGIMES, default="sharpened")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.kind == "function":
        pair: tuple[Any, Any] = (spelled_out, fused)
    else:
        pair = ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")
    rows = []
    for dtype in args.dtype.split(","):
        for length in map(int, args.lengths.split(",")):
            # a new subject each time: what it remembers of one length must not count as memory of the next
            subject = resolve(*pair, kind=args.kind, device=args.device)
            case = Case(
                seq_len=length,
                block_size=length,
                n_head=args.heads,
                head_size=args.head_size,
                dtype=dtype,
                regime=args.regime,
                seed=args.seed,
            )
            rows.append(judge(subject, case))
            print(told(rows[-1]), flush=True)
            for message in rows[-1].get("messages", ()):
                print(message, flush=True)
    if args.out:
        on_gpu = subject.device.type == "cuda"
        name = torch.cuda.get_device_name(subject.device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
