"""minGPT's config under every name that others give its fields, for constructors that read another one or take them one by one."""

from typing import Any

from equivcheck.gpt import GPTConfig

__all__ = ["CACHES", "FIELDS", "CaseConfig", "field_of"]

FIELDS = {
    "n_embd": "n_embd d_model dim embed_dim hidden_size emb_dim embedding_dim model_dim width channels n_state d_in d_out",
    "n_head": "n_head n_heads num_heads heads nhead num_attention_heads nheads",
    "head_size": "head_size head_dim dim_head d_head",
    "block_size": "block_size max_seq_len max_len seq_len context_length n_positions n_ctx ctx_len max_position_embeddings "
    "max_seq_length max_length",
    "attn_pdrop": "attn_pdrop attn_drop attn_dropout attention_dropout dropout dropout_p drop dropout_rate "
    "attention_probs_dropout_prob",
    "resid_pdrop": "resid_pdrop resid_drop resid_dropout proj_drop hidden_dropout_prob",
    "embd_pdrop": "embd_pdrop embd_drop emb_dropout",
    "n_layer": "n_layer n_layers num_layers depth num_hidden_layers",
    "vocab_size": "vocab_size n_vocab num_tokens",
    "yes": "bias qkv_bias batch_first",
    "layer": "layer_idx layer_id",
}
"""minGPT's field, or what stands for it, and the names that it has elsewhere."""

CACHES = ("past_key_values", "past_key_value", "kv_cache", "cache", "past_kv", "past", "layer_past")
"""The names under which a forward pass takes the keys and values of earlier tokens."""

_FIELD = {name: field for field, names in FIELDS.items() for name in names.split()}


def field_of(name: str) -> str:
    """Which of `FIELDS` a constructor's parameter or a config's attribute of this name is, or none that is known."""
    return _FIELD.get(name, "")


class CaseConfig(GPTConfig):
    """A minGPT config that also answers to the names of others: `config.dropout` is its `attn_pdrop`."""

    def __getattr__(self, name: str) -> Any:
        field = _FIELD.get(name)
        if field is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.value_of(field)

    def value_of(self, field: str) -> Any:
        """The value of one of `FIELDS`."""
        if field == "head_size":
            return self.n_embd // self.n_head
        return {"yes": True, "layer": 0}.get(field) if field in ("yes", "layer") else getattr(self, field)
