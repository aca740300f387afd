"""Released attentions as pairs for `equivcheck.verify`, and what is known of each (`reports/peers.md`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from equivcheck.adapters import huggingface, kernels

__all__ = ["PEERS", "Peer"]

_MODULES = "tests/peers/modules.py"  # from the root of the repository, so that a replay line runs there
_MODULE_CHECKS = ("output", "gradients", "layouts", "dropout")
_FUNCTION_CHECKS = ("output", "gradients", "causality", "layouts")
_MODEL_CHECKS = ("logits", "causality", "decoding")
_REFUSES = dict.fromkeys(_MODEL_CHECKS, "does not support an attention implementation through")
_NO_BACKWARD = "FlexAttention does not support backward on CPU"
_FURTHER = "further from the oracle than rounding"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A pair: what is compared, of which distributions, how `verify` is asked, and which checks are known to differ.

    `differs` maps the name of a check to what is behind the difference. `refused` is what is known to be in the UsageError of
    a pair that cannot be judged.
    """

    name: str
    distributions: tuple[str, ...]
    words: str
    asked: Callable[[], Mapping[str, Any]]
    checks: Sequence[str]
    differs: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def missing(self) -> str:
        """What to install, where something is not."""
        lacking = [name for name in self.distributions if _version(name) is None]
        return f"pip install {' '.join(lacking)}, or pip install --group peers" if lacking else ""

    @property
    def versions(self) -> str:
        """The distributions with their versions."""
        return ", ".join(f"{name} {_version(name)}" for name in self.distributions)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _strings(reference: str, candidate: str, **options: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"reference": f"{_MODULES}:{reference}", "candidate": f"{_MODULES}:{candidate}", **options}


def _family(config: str, *, candidate: str = "sdpa", padding: str | None = None, **fields: Any) -> Callable[[], Any]:
    def asked() -> Mapping[str, Any]:
        import transformers

        return huggingface.pair(getattr(transformers, config), candidate=candidate, padding=padding, **fields)

    return asked


def _transformers(name: str, config: str, *, checks: Sequence[str] = _MODEL_CHECKS, **options: Any) -> Peer:
    known = {key: options.pop(key) for key in ("differs", "refused") if key in options}
    given = ", ".join(f"{key}={value}" for key, value in options.items() if key != "candidate")
    return Peer(
        name=f"transformers-{name}",
        distributions=("transformers",),
        words=f"{config}{f' with {given}' if given else ''}: eager against {options.get('candidate', 'sdpa')}",
        asked=_family(config, **options),
        checks=checks,
        **known,
    )


def _module(name: str, distribution: str, words: str, reference: str, candidate: str, **options: Any) -> Peer:
    known = {key: options.pop(key) for key in ("differs", "refused") if key in options}
    return Peer(
        name=name,
        distributions=(distribution,),
        words=words,
        checks=options.pop("checks", _MODULE_CHECKS),
        asked=_strings(reference, candidate, **options),
        **known,
    )


PEERS: tuple[Peer, ...] = (
    _transformers(
        "gpt2", "GPT2Config", checks=("logits", "causality", "interface", "batching", "generation", "decoding")
    ),
    _transformers("gpt2-unscaled", "GPT2Config", scale_attn_weights=False),
    _transformers("gpt2-inverse-layer", "GPT2Config", scale_attn_by_inverse_layer_idx=True),
    _transformers("gpt2-upcast", "GPT2Config", reorder_and_upcast_attn=True, refused="does not run in float64"),
    _transformers("gpt2-padded", "GPT2Config", padding="left"),
    _transformers("gpt2-flex", "GPT2Config", candidate="flex_attention", differs=_REFUSES),
    _transformers("llama", "LlamaConfig"),
    _transformers("llama-grouped", "LlamaConfig", num_key_value_heads=4),
    _transformers("llama-padded", "LlamaConfig", padding="left"),
    _transformers(
        "llama-flex", "LlamaConfig", candidate="flex_attention", checks=("logits",), differs={"logits": _NO_BACKWARD}
    ),
    _transformers("gpt-neox", "GPTNeoXConfig"),
    _transformers("opt", "OPTConfig"),
    _transformers("mistral-window", "MistralConfig", sliding_window=4),
    _transformers("gemma2", "Gemma2Config", differs=_REFUSES),
    _transformers("qwen2", "Qwen2Config"),
    _transformers("bert-decoder", "BertConfig", is_decoder=True),
    _transformers("falcon-alibi", "FalconConfig", alibi=True, differs=dict.fromkeys(_MODEL_CHECKS, _FURTHER)),
    _transformers("bloom", "BloomConfig", differs=_REFUSES),
    _module(
        "x-transformers",
        "x-transformers",
        "Decoder: attn_flash off against on",
        "x_explicit",
        "x_flash",
        checks=_MODEL_CHECKS,
    ),
    _module(
        "x-transformers-alibi",
        "x-transformers",
        "Decoder with alibi_pos_bias: attn_flash off against on",
        "x_alibi_explicit",
        "x_alibi_flash",
        checks=_MODEL_CHECKS,
    ),
    _module(
        "x-transformers-qk-norm",
        "x-transformers",
        "Decoder with attn_qk_norm: attn_flash off against on",
        "x_qk_norm_explicit",
        "x_qk_norm_flash",
        checks=_MODEL_CHECKS,
    ),
    _module(
        "x-transformers-grouped",
        "x-transformers",
        "Decoder with attn_kv_heads=1: attn_flash off against on",
        "x_grouped_explicit",
        "x_grouped_flash",
        checks=_MODEL_CHECKS,
    ),
    _module("timm", "timm", "Attention: fused_attn off against on", "timm_explicit", "timm_fused"),
    _module(
        "timm-causal",
        "timm",
        "Attention, is_causal=True: fused_attn off against on",
        "timm_explicit",
        "timm_fused",
        inputs=f"{_MODULES}:causally",
    ),
    _module("timm-rope", "timm", "AttentionRope: fused_attn off against on", "timm_rope_explicit", "timm_rope_fused"),
    _module(
        "diffusers",
        "diffusers",
        "Attention: AttnProcessor against AttnProcessor2_0",
        "diffusers_explicit",
        "diffusers_sdpa",
    ),
    _module(
        "diffusers-unscaled",
        "diffusers",
        "Attention(scale_qk=False): AttnProcessor against AttnProcessor2_0",
        "diffusers_unscaled_explicit",
        "diffusers_unscaled_sdpa",
        differs=dict.fromkeys(_MODULE_CHECKS[:3], _FURTHER) | {"dropout": "the mean of outputs and input gradients"},
    ),
    _module(
        "diffusers-sliced",
        "diffusers",
        "Attention: AttnProcessor against SlicedAttnProcessor",
        "diffusers_explicit",
        "diffusers_sliced",
    ),
    _module(
        "memory-efficient",
        "memory-efficient-attention-pytorch",
        "Attention: memory_efficient off against on",
        "memory_explicit",
        "memory_efficient",
        differs={"output": _FURTHER, "gradients": _FURTHER, "dropout": "the original draws nothing"},
    ),
    _module(
        "memory-flash",
        "memory-efficient-attention-pytorch",
        "Attention against FlashAttention, in float32: half precision raises from two tokens on, float64 at once",
        "memory_explicit_without_dropout",
        "memory_flash",
        dtypes=("float32",),
        checks=("output", "gradients", "layouts"),
    ),
    _module(
        "ring-flash",
        "ring-attention-pytorch",
        "default_attention against ring_flash_attn, one machine, in float32: the backward pass of half precision raises",
        "ring_explicit",
        "ring_flash",
        dtypes=("float32",),
        differs={"output": _FURTHER, "gradients": _FURTHER},
        checks=_FUNCTION_CHECKS,
    ),
    _module(
        "chunked",
        "memory-efficient-attention",
        "softmax spelled out against efficient_dot_product_attention_pt",
        "torch_explicit",
        "chunked",
        checks=_FUNCTION_CHECKS,
        differs=dict.fromkeys(_FUNCTION_CHECKS, r"shape|Mismatch in shape"),
    ),
    _module(
        "noflash",
        "noflash-attention",
        "softmax spelled out against chunked_sdpa_online",
        "torch_explicit",
        "noflash",
        checks=_FUNCTION_CHECKS,
        differs=dict.fromkeys(_FUNCTION_CHECKS, "modified by an inplace operation"),
    ),
    _module(
        "vit",
        "vit-pytorch",
        "simple_flash_attn_vit.Attention: use_flash off against on",
        "vit_explicit",
        "vit_flash",
        refused="name 'einsum' is not defined",
    ),
    _module(
        "vivit",
        "vit-pytorch",
        "vivit.Attention: use_flash_attn off against on",
        "vivit_explicit",
        "vivit_flash",
        differs={"output": _FURTHER, "gradients": _FURTHER},
    ),
    _module(
        "torch-multihead",
        "torch",
        "nn.MultiheadAttention: with weights against without, and its fast path in eval",
        "Multihead",
        "MultiheadFast",
    ),
    _module(
        "torch-encoder-layer",
        "torch",
        "nn.TransformerEncoderLayer: its parts one by one against its fast path",
        "EncoderLayerSlow",
        "EncoderLayer",
    ),
    _module(
        "torch-sdpa",
        "torch",
        "softmax spelled out against F.scaled_dot_product_attention",
        "torch_explicit",
        "pytorch_sdpa",
        checks=_FUNCTION_CHECKS,
    ),
    Peer(
        name="torch-flex",
        distributions=("torch",),
        words="F.scaled_dot_product_attention (math) against FlexAttention, not compiled",
        asked=lambda: {"reference": kernels.sdpa("math"), "candidate": kernels.flex()},
        checks=_FUNCTION_CHECKS,
        differs=dict.fromkeys(_FUNCTION_CHECKS, _NO_BACKWARD),
    ),
)
