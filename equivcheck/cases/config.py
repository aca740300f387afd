"""minGPT's config with the field names of other models, for constructors that read these names."""

from typing import Any

from equivcheck.cases.names import field_of
from equivcheck.gpt import GPTConfig

__all__ = [
    "CaseConfig",
]


class CaseConfig(GPTConfig):
    """A minGPT config that also has the field names of other models: `config.dropout` is its `attn_pdrop`."""

    def __getattr__(self, name: str) -> Any:
        field = field_of(name) or None
        if field is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.value_of(field)

    def value_of(self, field: str) -> Any:
        """The value of one of `FIELDS`."""
        if field == "head_size":
            return self.n_embd // self.n_head
        return {"yes": True, "layer": 0}.get(field) if field in ("yes", "layer") else getattr(self, field)
