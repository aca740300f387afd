"""Which keys each query of an attention sees."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Visible"]


@dataclass(frozen=True, eq=False)
class Visible:
    """The keys that each query sees, whatever the mask is.

    Attributes:
        layers: A bool mask of each attention layer that broadcasts to (B, H, T, T).
    """

    layers: tuple[Tensor, ...]

    @property
    def size_bytes(self) -> int:
        """The memory of the masks."""
        return sum(layer.numel() for layer in self.layers)
