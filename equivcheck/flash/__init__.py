"""What the fused attention stands on: the kernel, its mask, and the replacement in a model."""
