"""Train mode under the masks that were really dropped: how near does each kernel come to its budget?

    python benchmarks/masks.py --device cpu|cuda [--lengths 1,48,200,513] [--out FILE]

For each kernel, dtype, length and rate the mask is read off, put into the float64 oracle, and outputs and all gradients are
held against their budgets (`equivcheck.checks.exactly`). Then the masks themselves: how far each kernel's, and those of
`F.dropout` in successive calls, are from independent. Prints a row per kernel and dtype; --out writes JSON and a Markdown
page beside it. Exit status 1 where a result is outside of its budget.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.cases import DTYPES, Case
from equivcheck.checks.exactly import hold_exactly
from equivcheck.comparison import FALSE_ALARM, Mismatch
from equivcheck.dropping import visible_keys
from equivcheck.kinds import resolve
from equivcheck.mask_statistics import OUTPUTS, hold_mask
from equivcheck.provenance import device_name, environment, sources
from equivcheck.torch_masks import BACKENDS, kernel_mask

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
            return hold_mask(kept, seen, 0.5, tail=FALSE_ALARM, axes=axes)
        except Mismatch as error:
            return str(error)

    for name, backend in BACKENDS.items():
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lengths", default="1,48,200,513")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    original = "equivcheck.attention:CausalSelfAttention"
    base = resolve(original, original, kind="module", device=args.device)
    lengths = [int(length) for length in args.lengths.split(",")]
    rows, outside, masks, began = [], [], [], time.monotonic()
    for kernel, backend in BACKENDS.items():
        subject = base.with_candidate(forced(backend), kernel)
        for dtype in DTYPES:
            row = {"kernel": kernel, "dtype": dtype, "cases": 0, "refused": 0, "ratio": 0.0}
            for case in drawn(lengths, dtype):
                problem = subject.problem(case)
                try:
                    held, _ = hold_exactly(problem, problem.candidate)
                except Mismatch as error:
                    if "the original runs" in str(error):
                        row["refused"] += 1
                    else:
                        outside.append(f"{kernel} {case.id}: {error}")
                    continue
                row["cases"] += 1
                row["ratio"] = max(row["ratio"], held.ratio or 0.0)
            rows.append(row)
            print(row, flush=True)
    for dtype in DTYPES:
        for name, said in independent(dtype, base.device):
            masks.append({"drawn by": name, "dtype": dtype, "said": said or "as random as it should be"})
            print(masks[-1], flush=True)
    for said in outside:
        print("OUTSIDE", said)
    total = sum(int(row["cases"]) for row in rows)
    where = f"{device_name(base.device)}, torch {torch.__version__}"
    head = f"{total} cases in train mode under the masks that were dropped, T in {args.lengths}: "
    head += f"{len(outside)} outside of their budget. "
    head += f"{time.monotonic() - began:.0f} s on {where}."
    print(head)
    if args.out:
        found = {"lengths": lengths, "rates": RATES, "rows": rows, "outside": outside, "masks": masks}
        found |= {"device": device_name(base.device), "environment": environment(base.device), "sources": sources(base)}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(page(head, rows, masks))
    sys.exit(1 if outside else 0)


def page(head: str, rows: list[dict[str, object]], masks: list[dict[str, str]]) -> str:
    lines = ["# Train mode, compared exactly", "", head, ""]
    lines += ["| kernel | dtype | cases | refused | largest ratio |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["cases"] else "-"
        lines.append(f"| {row['kernel']} | {row['dtype']} | {row['cases']} | {row['refused']} | {ratio} |")
    lines += ["", "Masks of two successive calls at a rate of 0.5:", ""]
    lines += ["| drawn by | dtype | found |", "| --- | --- | --- |"]
    lines += [f"| {mask['drawn by']} | {mask['dtype']} | {mask['said']} |" for mask in masks]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
