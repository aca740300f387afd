"""Names in other models for the fields of a config, the cache, and the projections of an attention."""

import re

__all__ = ["CACHES", "FIELDS", "OUT", "field_of", "role_of"]

FIELDS = {
    "n_embd": "n_embd d_model dim embed_dim hidden_size emb_dim embedding_dim model_dim width channels n_state d_in "
    "d_out",
    "n_head": "n_head n_heads num_heads heads nhead num_attention_heads nheads",
    "head_size": "head_size head_dim dim_head d_head",
    "block_size": "block_size max_seq_len max_len seq_len context_length n_positions n_ctx ctx_len "
    "max_position_embeddings max_seq_length max_length",
    "attn_pdrop": "attn_pdrop attn_drop attn_dropout attention_dropout dropout dropout_p drop dropout_rate "
    "attention_probs_dropout_prob",
    "resid_pdrop": "resid_pdrop resid_drop resid_dropout proj_drop hidden_dropout_prob",
    "embd_pdrop": "embd_pdrop embd_drop emb_dropout",
    "n_layer": "n_layer n_layers num_layers depth num_hidden_layers",
    "vocab_size": "vocab_size n_vocab num_tokens",
    "yes": "bias qkv_bias batch_first",
    "layer": "layer_idx layer_id",
}
"""minGPT's field, or a word for a field that minGPT does not have, and its names in other models."""

CACHES = ("past_key_values", "past_key_value", "kv_cache", "cache", "past_kv", "past", "layer_past")
"""The names under which a forward pass takes the keys and values of earlier tokens."""

_FIELD = {name: field for field, names in FIELDS.items() for name in names.split()}


def field_of(name: str) -> str:
    """The key of `FIELDS` for a constructor's parameter or a config's attribute of this name; empty if unknown."""
    return _FIELD.get(name, "")


_ROLES = {
    "q": re.compile(r"(^|[._])(q|query|w_?q|q_proj|to_q|q_lin|wquery)$"),
    "k": re.compile(r"(^|[._])(k|key|w_?k|k_proj|to_k|k_lin|wkey)$"),
    "v": re.compile(r"(^|[._])(v|value|w_?v|v_proj|to_v|v_lin|wvalue)$"),
}
OUT = re.compile(r"^(proj|c_proj|out|out_proj|o_proj|to_out|dense|w_?o|output)$")


def role_of(name: str) -> str:
    """The projection of an attention's linear of this name: `q`, `k`, `v`, or empty if it is unknown."""
    return next((role for role, pattern in _ROLES.items() if pattern.search(name.lower())), "")
