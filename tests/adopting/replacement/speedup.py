"""A repository that replaces the attentions of a trained minGPT by fused ones."""

from torch import nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention


def faster(model: nn.Module) -> nn.Module:
    """The same modules, with another class."""
    for module in model.modules():
        if type(module) is CausalSelfAttention:
            module.__class__ = FlashCausalSelfAttention
    return model


class _Config:
    """What the attention reads of its config."""

    def __init__(self, attention: CausalSelfAttention) -> None:
        self.n_embd, self.n_head, self.block_size = attention.key.in_features, attention.n_head, attention.mask.size(-1)
        self.attn_pdrop, self.resid_pdrop = attention.attn_drop.p, attention.resid_drop.p


def faster_wrong(model: nn.Module) -> nn.Module:
    """New modules with the old weights: they are in train mode, whatever the model was in, and in float32."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is CausalSelfAttention:
                new = FlashCausalSelfAttention(_Config(child))
                new.load_state_dict(child.state_dict())
                setattr(parent, name, new)
    return model
