"""The base of the fused attention: the kernel, its mask, and the replacement in a model."""
