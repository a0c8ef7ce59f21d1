"""k-means cross-attention: every pixel is assigned to one query, and every query sums its pixels.

kMaX-DeepLab (arXiv 2207.04044), equation 3; the softmax of attention is replaced by an arg-max over *queries*.
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor


def assign_pixels(mask_logits: Tensor) -> Tensor:
    """The query with the largest logit at every pixel. mask_logits: b n p. Returns b p int64, without a gradient."""
    # pixels first: on a CPU a maximum over contiguous values is three times as fast as one over strided values
    return rearrange(mask_logits.detach(), "b n p -> b p n").contiguous().argmax(dim=-1)


def sum_pixels(values: Tensor, assignment: Tensor, *, queries: int) -> Tensor:
    """Sum of the pixel values assigned to each query, in float32 even under autocast; it is a sum, not a mean.

    values: b c p. assignment: b p int64. Returns b c n, zero for a query without pixels.
    A product with the 0/1 assignment matrix adds in a fixed order on every device; scattered additions on a GPU do not.
    """
    with torch.autocast(values.device.type, enabled=False):
        owned = torch.zeros(*assignment.shape, queries, device=values.device).scatter_(2, assignment[..., None], 1.0)
        return einsum(values.float(), owned, "b c p, b p n -> b c n")
