"""k-means cross-attention: every pixel belongs to one query, every query adds up its pixels.

kMaX-DeepLab (arXiv 2207.04044), equation 3; the softmax of attention is replaced by an arg-max over *queries*.
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor


def assign_pixels(mask_logits: Tensor) -> Tensor:
    """The best query of every pixel. mask_logits: b n p. Returns b p int64; no gradient flows through the choice."""
    # pixels first: a maximum over neighbouring numbers is three times as fast on a CPU as one over strided numbers
    return rearrange(mask_logits.detach(), "b n p -> b p n").contiguous().argmax(dim=-1)


def sum_pixels(values: Tensor, assignment: Tensor, *, queries: int) -> Tensor:
    """Sum of the pixel values given to each query, in float32 whatever autocast says; no division by their number.

    values: b c p. assignment: b p int64. Returns b c n, zero for a query without pixels.
    A product with the 0/1 table of who owns what: it adds in a fixed order on every device, which scattered additions
    do not on a GPU.
    """
    with torch.autocast(values.device.type, enabled=False):
        owned = torch.zeros(*assignment.shape, queries, device=values.device).scatter_(2, assignment[..., None], 1.0)
        return einsum(values.float(), owned, "b c p, b p n -> b c n")
