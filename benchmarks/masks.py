"""Train mode under the masks that were really dropped: how near does each kernel come to its budget?

    python benchmarks/masks.py --device cpu|cuda [--lengths 1,48,200,513] [--max-seconds S] [--part I/N] [--out FILE]
    python benchmarks/masks.py --merge FILE... --out FILE

For each kernel, dtype, length and rate the mask is read off, put into the float64 oracle, and outputs and all gradients are
held against their budgets (`equivcheck.checks.dropout.exact`). Then the masks themselves: how far each kernel's, and those of
`F.dropout` in successive calls, are from independent. Prints a row per kernel and dtype; --out writes JSON and a Markdown
page beside it. Part I/N takes every N-th case from the I-th on, the long ones among the short ones, and keeps on disk what it
has reached; --merge adds the parts up, whatever ended them. Exit status 1 where a result is outside of its budget.
"""

import argparse
import random
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from parts import Kept, dumped, reached, share, write
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.dropout.exact import compare_exactly
from equivcheck.checks.dropout.masks import visible_keys
from equivcheck.checks.dropout.statistics import OUTPUTS, check_mask
from equivcheck.checks.dropout.torch_masks import kernel_mask
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment, sources
from equivcheck.runtime.device import device_name
from equivcheck.runtime.kernel_trace import KERNELS

RATES = ((0.1, 0.0), (0.3, 0.2), (0.5, 0.5), (0.9, 0.1), (1.0, 0.5))
HEADS = ((2, 64), (1, 128), (3, 40))


def forced(backend: SDPBackend) -> type[FlashCausalSelfAttention]:
    class Forced(FlashCausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return super().forward(x)

    return Forced


def drawn(lengths: list[int], dtype: str) -> Iterator[Case]:
    for length in lengths:
        for seed, (n_head, head_size) in enumerate(HEADS):
            for attn, resid in RATES:
                sizes = {"batch_size": 2, "seq_len": length, "block_size": length + 1, "n_head": n_head}
                rates = {"training": True, "attn_pdrop": attn, "resid_pdrop": resid}
                yield Case(**sizes, **rates, head_size=head_size, dtype=dtype, seed=seed)


def independent(dtype: str, device: torch.device) -> Iterator[tuple[str, str]]:
    """By what drew it, what is to be said of a mask of two calls at a rate of 0.5; nothing where it is as it should be."""
    case = Case(batch_size=16, n_head=4, seq_len=64, head_size=64, block_size=64, dtype=dtype, attn_pdrop=0.5)
    visible = visible_keys(case, 64, device)

    def told(kept: Tensor, seen: Tensor, axes: tuple[str, ...]) -> str:
        try:
            return check_mask(kept, seen, 0.5, tail=FALSE_ALARM, axes=axes)
        except Mismatch as error:
            return str(error)

    for name, backend in KERNELS.items():
        torch.manual_seed(0)
        try:
            kept = torch.stack([kernel_mask(case, device, backend) for _ in range(2)])
        except RuntimeError:
            continue
        yield name, told(kept, visible, ("calls", "samples", "heads", "queries", "keys"))
    torch.manual_seed(0)
    ones = torch.ones(16, 1, 64, 256, dtype=case.torch_dtype, device=device)
    kept = torch.stack([F.dropout(ones, 0.5) != 0 for _ in range(2)])
    yield "F.dropout", told(kept, torch.ones_like(kept[0, 0, 0]), OUTPUTS)


def work(lengths: list[int]) -> list[tuple[str, str, Case]]:
    """Every kernel, dtype and case, in an order in which each stretch has some of all."""
    every = [(kernel, dtype, case) for kernel in KERNELS for dtype in DTYPES for case in drawn(lengths, dtype)]
    random.Random(0).shuffle(every)
    return every


def study(args: argparse.Namespace) -> dict[str, Any]:
    """What one part reaches."""
    original = "equivcheck.attention:CausalSelfAttention"
    base = resolve(original, original, kind="module", device=args.device).with_oracle_beside()
    lengths = [int(length) for length in args.lengths.split(",")]
    every, (part, parts) = work(lengths), share(args.part)
    data: dict[str, Any] = {"lengths": lengths, "rates": RATES, "planned": len(every), "seconds": 0.0, "parts": 1}
    data |= {"rows": {}, "outside": [], "masks": []}
    data |= {
        "device": device_name(base.device),
        "environment": environment(base.device),
        "sources": sources(base.reference, base.candidate),
    }
    keep, began = Kept(args.out), time.monotonic()
    for dtype in DTYPES[part::parts]:
        for name, said in independent(dtype, base.device):
            data["masks"].append({"drawn by": name, "dtype": dtype, "said": said or "as random as it should be"})
            print(data["masks"][-1], flush=True)
    subjects = {kernel: base.with_candidate(forced(backend), kernel) for kernel, backend in KERNELS.items()}
    for kernel, dtype, case in every[part::parts]:
        if time.monotonic() - began > args.max_seconds:
            break
        row = data["rows"].setdefault(f"{kernel}|{dtype}|{case.seq_len}", {"cases": 0, "refused": 0, "ratio": 0.0})
        problem = subjects[kernel].problem(case)
        try:
            held, _ = compare_exactly(problem, problem.candidate)
            row["cases"] += 1
            row["ratio"] = max(row["ratio"], held.ratio or 0.0)
        except (Mismatch, NotOpened) as error:
            if "the original runs" in str(error):
                row["refused"] += 1
            else:
                row["cases"] += 1
                data["outside"].append(f"{kernel} {case.id}: {type(error).__name__}: {error}")
                print("OUTSIDE", data["outside"][-1], flush=True)
        data["seconds"] = round(time.monotonic() - began, 1)
        keep(data)
    return data


def merged(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Several parts as one."""
    first, *rest = found
    for other in rest:
        for key in ("outside", "masks", "seconds", "parts"):
            first[key] += other[key]
        for key, row in other["rows"].items():
            known = first["rows"].setdefault(key, {"cases": 0, "refused": 0, "ratio": 0.0})
            known |= {of: known[of] + row[of] for of in ("cases", "refused")}
            known["ratio"] = max(known["ratio"], row["ratio"])
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lengths", default="1,48,200,513")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # each forced kernel says why the others were not taken
    data = merged(reached(args.merge)) if args.merge else study(args)
    print(page(data))
    if args.out:
        write(args.out, dumped(data))
        write(args.out.with_suffix(".md"), page(data))
    sys.exit(1 if data["outside"] else 0)


def page(data: dict[str, Any]) -> str:
    """The Markdown page."""
    rows = data["rows"]
    held, refused = (sum(row[of] for row in rows.values()) for of in ("cases", "refused"))
    lines = [
        "# Train mode, compared exactly",
        "",
        f"{held} cases in train mode under the masks that were dropped, outputs and all gradients: {len(data['outside'])} "
        f"outside of their budget; {refused} more were refused by the kernel, of {data['planned']} that were planned. "
        f"{data['seconds']:.0f} s in {data['parts']} parts on {data['device']}, torch {data['environment']['torch']}, "
        f"source {data['sources']['equivcheck'][:12]}.",
        "",
        "The largest ratio of error to budget (above 1 is outside):",
        "",
        "| kernel | dtype | cases | refused | " + " | ".join(f"T = {T}" for T in data["lengths"]) + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(data["lengths"]),
    ]
    nothing = {"cases": 0, "refused": 0, "ratio": 0.0}
    for kernel in KERNELS:
        for dtype in DTYPES:
            found = [rows.get(f"{kernel}|{dtype}|{T}", nothing) for T in data["lengths"]]
            cells = [f"{row['ratio']:.2f}" if row["cases"] else "-" for row in found]
            counts = [str(sum(row[of] for row in found)) for of in ("cases", "refused")]
            lines.append("| " + " | ".join((kernel, dtype, *counts, *cells)) + " |")
    lines += ["", "Masks of two successive calls at a rate of 0.5:", ""]
    lines += ["| drawn by | dtype | found |", "| --- | --- | --- |"]
    lines += [f"| {mask['drawn by']} | {mask['dtype']} | {mask['said']} |" for mask in data["masks"]]
    if data["outside"]:
        lines += ["", "## Outside of their budget", "", *(f"- {said.splitlines()[0]}" for said in data["outside"])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
