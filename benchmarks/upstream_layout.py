"""Gradients of torch's fused kernels where what flows back lies in memory in another way than q, k and v.

    python benchmarks/upstream_layout.py [--batch 1] [--lengths 64,384]

Needs a CUDA device. For each kernel and length prints the largest relative error of the three gradients, in norm, against
float64, in bfloat16 with two heads of 32; `bthd` is (B, H, T, D) made of memory that is (B, T, H, D), as a module's views are.
"""

import argparse
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = (None, SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def gradients(given: list[Tensor], flowing: Tensor, kernel: SDPBackend | None) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        F.scaled_dot_product_attention(*leaves, is_causal=True).backward(flowing)
    return [x.grad for x in leaves]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--lengths", default="64,384")
    args = parser.parse_args()
    source = torch.Generator("cuda").manual_seed(0)

    def made(T: int, lies: str) -> Tensor:
        x = (0.3 * torch.randn(args.batch, 2, T, 32, device="cuda", generator=source)).to(torch.bfloat16)
        return x.transpose(1, 2).contiguous().transpose(1, 2) if lies == "bthd" else x

    print("T, q k v, upstream:", *("default" if k is None else k.name.lower() for k in KERNELS))
    for T in map(int, args.lengths.split(",")):
        for lies in ("bhtd", "bthd"):
            for flows in ("bhtd", "bthd"):
                given, flowing = [made(T, lies) for _ in range(3)], made(T, flows)
                true = gradients([x.double() for x in given], flowing.double(), SDPBackend.MATH)
                errors = []
                for kernel in KERNELS:
                    found = gradients(given, flowing, kernel)
                    errors.append(max(float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True)))
                print(f"{T}, {lies}, {flows}:", *(f"{error:.3g}" for error in errors))


if __name__ == "__main__":
    main()
