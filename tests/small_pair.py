"""The source of a small original, a right and a wrong candidate: functions of q, k and v."""

__all__ = ["PAIR"]

PAIR = """
import math
import torch
import torch.nn.functional as F

def slow(q, k, v):
    return F.softmax((q @ k.mT) / math.sqrt(q.size(-1)), -1) @ v

def fast(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)

def wrong_from_three(q, k, v):
    y = fast(q, k, v)
    return y * 1.01 if q.size(-2) > 2 else y
"""
