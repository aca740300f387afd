"""Models of transformers as pairs of one config and two attention implementations.

The models are small and random: nothing is downloaded.

equivcheck.verify(**huggingface.pair(LlamaConfig()))                           # eager against sdpa
TestSdpa = equivcheck.suite(**huggingface.pair(model, padding="left"))         # the config of a model in memory
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.config import CaseConfig
from equivcheck.errors import UsageError

__all__ = ["config_of", "pair", "small", "variants"]

PADDINGS = ("left", "right")
_DTYPES = ("float32", "bfloat16", "float16")  # not float64: their softmax and rotary embeddings run in float32
_RATES = {
    "attn_pdrop": ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob"),
    "resid_pdrop": ("resid_pdrop", "hidden_dropout", "hidden_dropout_prob", "residual_dropout", "dropout"),
    "embd_pdrop": ("embd_pdrop", "embedding_dropout"),
}
_TOGGLED = (  # switches in and around attention; `variants` flips each
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
    "attention_bias",
    "qkv_bias",
    "use_qk_norm",
    "qk_layernorm",
    "parallel_attn",
    "use_parallel_residual",
    "multi_query",
    "alibi",
    "new_decoder_architecture",
)
_SET = {  # fields with numbers, and the value that `variants` tries
    "num_key_value_heads": 1,
    "sliding_window": 4,
    "attn_logit_softcapping": 5.0,
    "query_pre_attn_scalar": 3,
    "attention_multiplier": 0.25,
}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"transformers cannot be imported ({error}): pip install transformers") from None
    return transformers


def config_of(given: Any) -> Any:
    """The config in `given`.

    Args:
        given: A config of transformers, its class, or a model in memory.

    Raises:
        UsageError: `given` is anything else.
    """
    base = _transformers().PretrainedConfig
    if isinstance(given, type) and issubclass(given, base):
        return given()
    config = getattr(given, "config", given)
    if not isinstance(config, base):
        raise UsageError(f"{given!r} is {type(given).__name__}: give a config of transformers, its class, or a model")
    return config


def small(config: Any, case: CaseConfig) -> Any:
    """A copy of the config with a case's sizes and rates; fields that choose how attention is computed stay.

    Head sizes are rounded up to what rotary embeddings need. A config with fewer heads of keys and values keeps fewer.
    """
    resized = copy.deepcopy(config)
    size = case.n_embd // case.n_head
    size += -size % (2 if getattr(config, "partial_rotary_factor", 1.0) in (None, 1.0) else 16)
    heads, groups = case.n_head, getattr(config, "num_key_value_heads", None)
    sizes = {
        "hidden_size": heads * size,
        "num_attention_heads": heads,
        "num_hidden_layers": case.n_layer,
        "vocab_size": case.vocab_size,
        "max_position_embeddings": max(case.block_size, 8),
        "head_dim": size,
        "intermediate_size": 2 * heads * size,
        "ffn_hidden_size": 2 * heads * size,
        "word_embed_proj_dim": heads * size,
        "ffn_dim": 2 * heads * size,
    }
    if groups is not None:
        fewer = groups < config.num_attention_heads
        sizes["num_key_value_heads"] = max(
            h for h in range(1, heads + 1) if heads % h == 0 and (not fewer or h <= max(1, heads // 2))
        )
    if getattr(config, "sliding_window", None) is not None:
        sizes["sliding_window"] = min(config.sliding_window, 8)
    for name, value in sizes.items():
        if hasattr(config, name):
            with suppress(AttributeError):  # some fields are properties of others
                setattr(resized, name, value)
    if getattr(config, "layer_types", None):
        kinds = list(dict.fromkeys(config.layer_types))  # one layer of each kind, as far as there are layers
        resized.layer_types = [kinds[i % len(kinds)] for i in range(case.n_layer)]
    for rate, names in _RATES.items():
        for name in names:
            if hasattr(config, name):
                setattr(resized, name, getattr(case, rate))
    resized.bos_token_id, resized.eos_token_id, resized.pad_token_id = 0, 1, None
    return resized


def pair(
    given: Any,
    *,
    candidate: str = "sdpa",
    reference: str = "eager",
    padding: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Arguments for `verify`, `assert_equivalent` and `suite`: one config, two values of `attn_implementation`.

    Args:
        given: A config of transformers, its class, or a model in memory.
        candidate: The candidate's `attn_implementation`.
        reference: The reference's `attn_implementation`.
        padding: With `left` or `right`, an `attention_mask` hides the first or the last tokens of each row but one, and
            logits of hidden tokens are not compared.
        fields: Set on the config.

    Raises:
        UsageError: The padding or a field is unknown. An implementation that is not installed is transformers' error.
    """
    if padding is not None and padding not in PADDINGS:
        raise UsageError(f"padding={padding!r}: allowed are {', '.join(PADDINGS)}, or None")
    config = copy.deepcopy(config_of(given))
    for name, value in fields.items():
        if not hasattr(config, name):
            raise UsageError(f"{type(config).__name__} has no field {name!r}")
        setattr(config, name, value)
    arguments: dict[str, Any] = {
        "reference": _factory(config, reference),
        "candidate": _factory(config, candidate),
        "kind": "model",
        "dtypes": _DTYPES,
    }
    if padding:
        arguments |= {"inputs": _padded(padding), "outputs": _shown(padding)}
    return arguments


def variants(given: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field that changes attention in this config, set to another value: a name, and the `fields` of `pair`."""
    config = config_of(given)
    for name in _TOGGLED:
        if isinstance(getattr(config, name, None), bool):
            yield f"{name}={not getattr(config, name)}", {name: not getattr(config, name)}
    for name, value in _SET.items():
        if hasattr(config, name) and getattr(config, name) != value:
            yield f"{name}={value}", {name: value}


def _factory(config: Any, implementation: str) -> Callable[[CaseConfig], nn.Module]:
    def build(case: CaseConfig) -> nn.Module:
        model: nn.Module = _transformers().AutoModelForCausalLM.from_config(
            small(config, case), attn_implementation=implementation
        )
        return model.float()

    build.__name__ = build.__qualname__ = f"{type(config).__name__}[{implementation}]"
    build.__module__ = type(config).__module__
    return build


def _mask(shape: tuple[int, int], padding: str, device: torch.device) -> Tensor:
    """A mask of `shape` (B, T), 1 for a token that is seen: row b has b tokens fewer, and at least one."""
    B, T = shape
    lengths = T - torch.arange(B, device=device).clamp(max=T - 1).unsqueeze(1)  # (B, 1)
    positions = torch.arange(T, device=device)
    return (positions >= T - lengths if padding == "left" else positions < lengths).long()  # (B, T)


def _padded(padding: str) -> Callable[[Tensor], Mapping[str, Any]]:
    def inputs(idx: Tensor) -> Mapping[str, Any]:
        mask = _mask((idx.shape[0], idx.shape[1]), padding, idx.device)
        return {"input_ids": idx, "attention_mask": mask}

    return inputs


def _shown(padding: str) -> Callable[[Any], Tensor]:
    def outputs(result: Any) -> Tensor:
        logits: Tensor = result.logits  # (B, T, V)
        mask = _mask((logits.shape[0], logits.shape[1]), padding, logits.device)
        return logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0)

    return outputs
