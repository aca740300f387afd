"""Both sides of each released module, as factories of the sizes of a case: import strings of `equivcheck verify` and `replay`.

Each takes the values that it needs by the names that equivcheck knows (`dim`, `heads`, `dim_head`, `dropout`, …), and imports
its package only when it is called, so that this file can be loaded where others are not installed.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# timm: vision transformers' attention, whose flag is read once from a global when a module is made


def timm_explicit(dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> nn.Module:
    from timm.layers import Attention

    made = Attention(dim, num_heads, qkv_bias=True, attn_drop=attn_drop, proj_drop=proj_drop)
    made.fused_attn = False
    return made


def timm_fused(dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> nn.Module:
    made = timm_explicit(dim, num_heads, attn_drop, proj_drop)
    made.fused_attn = True
    return made


def timm_rope_explicit(dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> nn.Module:
    from timm.layers import AttentionRope

    made = AttentionRope(dim, num_heads, qkv_bias=True, attn_drop=attn_drop, proj_drop=proj_drop)
    made.fused_attn = False
    return made


def timm_rope_fused(dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> nn.Module:
    made = timm_rope_explicit(dim, num_heads, attn_drop, proj_drop)
    made.fused_attn = True
    return made


def causally(x: Tensor) -> Any:
    """What forward of timm's attention takes where it is causal."""
    return (x,), {"is_causal": True}


# x-transformers: a whole decoder, with and without `attn_flash`


def _x_decoder(config: Any, **options: Any) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(
        num_tokens=config.vocab_size,
        max_seq_len=config.block_size,
        emb_dropout=config.embd_pdrop,
        attn_layers=Decoder(
            dim=config.n_embd,
            depth=config.n_layer,
            heads=config.n_head,
            attn_dim_head=config.n_embd // config.n_head,
            attn_dropout=config.attn_pdrop,
            ff_dropout=config.resid_pdrop,
            **options,
        ),
    )


def x_explicit(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=False)


def x_flash(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=True)


def x_alibi_explicit(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=False, alibi_pos_bias=True, alibi_num_heads=config.n_head)


def x_alibi_flash(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=True, alibi_pos_bias=True, alibi_num_heads=config.n_head)


def x_qk_norm_explicit(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=False, attn_qk_norm=True)


def x_qk_norm_flash(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=True, attn_qk_norm=True)


def x_grouped_explicit(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=False, attn_kv_heads=1)


def x_grouped_flash(config: Any) -> nn.Module:
    return _x_decoder(config, attn_flash=True, attn_kv_heads=1)


# diffusers: one Attention, two processors


def _diffusers(query_dim: int, heads: int, dim_head: int, dropout: float, processor: str, **options: Any) -> nn.Module:
    from diffusers.models import attention_processor as processors

    made: nn.Module = processors.Attention(
        query_dim,
        heads=heads,
        dim_head=dim_head,
        dropout=dropout,
        bias=True,
        processor=getattr(processors, processor)(),
        **options,
    )
    return made


def diffusers_explicit(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    return _diffusers(dim, heads, dim_head, dropout, "AttnProcessor")


def diffusers_sdpa(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    return _diffusers(dim, heads, dim_head, dropout, "AttnProcessor2_0")


def diffusers_unscaled_explicit(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    return _diffusers(dim, heads, dim_head, dropout, "AttnProcessor", scale_qk=False)


def diffusers_unscaled_sdpa(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    return _diffusers(dim, heads, dim_head, dropout, "AttnProcessor2_0", scale_qk=False)


def diffusers_sliced(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    made: Any = diffusers_explicit(dim, heads, dim_head, dropout)
    made.set_attention_slice(1)
    return made  # type: ignore[no-any-return]


# memory-efficient-attention-pytorch


def memory_explicit(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    from memory_efficient_attention_pytorch import Attention

    return Attention(dim=dim, heads=heads, dim_head=dim_head, dropout=dropout, causal=True)


def memory_efficient(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    from memory_efficient_attention_pytorch import Attention

    return Attention(
        dim=dim,
        heads=heads,
        dim_head=dim_head,
        dropout=dropout,
        causal=True,
        memory_efficient=True,
        q_bucket_size=4,
        k_bucket_size=8,
    )


def memory_flash(dim: int, heads: int, dim_head: int) -> nn.Module:
    from memory_efficient_attention_pytorch import FlashAttention

    return FlashAttention(dim=dim, heads=heads, dim_head=dim_head, causal=True, q_bucket_size=4, k_bucket_size=8)


def memory_explicit_without_dropout(dim: int, heads: int, dim_head: int) -> nn.Module:
    return memory_explicit(dim, heads, dim_head, 0.0)


# ring-attention-pytorch: its flash attention in plain PyTorch, on one machine


def ring_explicit(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    from ring_attention_pytorch import default_attention

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, D)
    return default_attention(q, k, v, causal=causal).transpose(1, 2)  # type: ignore[no-any-return]


def ring_flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    from ring_attention_pytorch import ring_flash_attn

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, D)
    return ring_flash_attn(q, k, v, causal=causal, bucket_size=8).transpose(1, 2)  # type: ignore[no-any-return]


# memory-efficient-attention


def chunked(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, attn_mask: Tensor | None = None) -> Tensor:
    """It has no causal flag of its own: what is later is a mask, beside a bias where there is one."""
    from memory_efficient_attention import efficient_dot_product_attention_pt

    shape = (*q.shape[:-1], k.size(-2))  # (B, H, T, S)
    given = {}
    seen = torch.ones(shape[-2:], dtype=torch.bool, device=q.device).tril() if is_causal else None
    if attn_mask is not None and attn_mask.is_floating_point():
        given["bias"] = attn_mask.expand(shape)
    elif attn_mask is not None:
        seen = attn_mask if seen is None else attn_mask & seen
    if seen is not None:
        given["mask"] = seen.expand(shape)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, D)
    y: Tensor = efficient_dot_product_attention_pt(q, k, v, query_chunk_size=4, key_chunk_size=8, **given)
    return y.transpose(1, 2)


# noflash-attention: patches torch's function when imported, and is called here by name


def noflash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel that `patched_sdpa` chooses for half precision, tiles of keys and queries."""
    import noflash_attention

    if noflash_attention.is_enabled():  # it begins so where there is a GPU of its kind
        noflash_attention.disable()
    y: Tensor = noflash_attention.chunked_sdpa_online(
        q, k, v, scale=scale, block_m=4, block_n=8, attn_mask=attn_mask, is_causal=is_causal
    )
    return y


# vit-pytorch: the attention of its SimpleViT, with a flag


def vit_explicit(dim: int, heads: int, dim_head: int) -> nn.Module:
    from vit_pytorch.simple_flash_attn_vit import Attention

    return Attention(dim, heads=heads, dim_head=dim_head, use_flash=False)


def vit_flash(dim: int, heads: int, dim_head: int) -> nn.Module:
    from vit_pytorch.simple_flash_attn_vit import Attention

    return Attention(dim, heads=heads, dim_head=dim_head, use_flash=True)


def vivit_explicit(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    from vit_pytorch.vivit import Attention

    return Attention(dim, heads=heads, dim_head=dim_head, dropout=dropout, use_flash_attn=False)


def vivit_flash(dim: int, heads: int, dim_head: int, dropout: float) -> nn.Module:
    from vit_pytorch.vivit import Attention

    return Attention(dim, heads=heads, dim_head=dim_head, dropout=dropout, use_flash_attn=True)


# torch itself


def torch_explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Softmax spelled out, as the documentation of scaled_dot_product_attention has it; a query that sees no key gives 0."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v))
    s = (q @ k.transpose(-2, -1)) * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(), -float("inf"))
    if attn_mask is not None:
        s = s + attn_mask if attn_mask.is_floating_point() else s.masked_fill(~attn_mask, -float("inf"))
    return s.softmax(-1).nan_to_num(0.0) @ v


def later(x: Tensor) -> Tensor:
    """What `nn.MultiheadAttention` calls `attn_mask`: True hides."""
    return torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).triu(1)


class Multihead(nn.MultiheadAttention):
    """torch's module as self-attention, causal; with weights asked for it spells attention out, whatever the mode."""

    need_weights = True

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(embed_dim, num_heads, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # one input instead of three
        return super().forward(x, x, x, attn_mask=later(x), need_weights=self.need_weights)[0]


class MultiheadFast(Multihead):
    """Without weights: F.scaled_dot_product_attention, and in eval without autograd the fast path in C++."""

    need_weights = False


class EncoderLayer(nn.TransformerEncoderLayer):
    """torch's layer, causal; norms first, as in GPT-2."""

    def __init__(self, d_model: int, nhead: int, dropout: float) -> None:
        super().__init__(d_model, nhead, 2 * d_model, dropout, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # one input, and no mask
        return super().forward(x, src_mask=later(x))


class EncoderLayerSlow(EncoderLayer):
    """The same with its parts called one by one, and so without the fast path of the layer."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(x.size(1), x.size(1), dtype=x.dtype, device=x.device).masked_fill(later(x), -float("inf"))
        x = x + self._sa_block(self.norm1(x), mask, None)
        return x + self._ff_block(self.norm2(x))


def pytorch_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )
