"""A repository in the style of nanoGPT: one projection for queries, keys and values, and a flag for the fused kernel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ThreeProjections(nn.Module):
    """What was trained: three projections, and attention spelled out."""

    def __init__(self, n_embd: int, n_head: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_head = n_head
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(n_embd, n_embd) for _ in range(3))
        self.out_proj = nn.Linear(n_embd, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, T, C = x.shape
        q, k, v = (f(x).view(B, T, self.n_head, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        s = (q @ k.transpose(-2, -1)) / math.sqrt(q.size(-1))  # (B, H, T, T)
        s = s.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=x.device).tril(), -math.inf)
        p = self.drop(s.softmax(-1))
        return self.out_proj((p @ v).transpose(1, 2).reshape(B, T, C)), p


class OneProjection(nn.Module):
    """What is to run: one projection, and the fused kernel."""

    def __init__(self, n_embd: int, n_head: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.rate())
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C)), None

    def rate(self) -> float:
        return self.dropout if self.training else 0.0


class OneProjectionWrong(OneProjection):
    """Dropout stays on in eval, as it does where the rate is passed and the mode is not asked."""

    def rate(self) -> float:
        return self.dropout
