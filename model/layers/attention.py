"""Multi-head attention with one packed projection, and the two transformer layers that are built on it.

These are the layers of Mask2Former (arXiv 2112.01527) and VITA (arXiv 2206.04403). The norm comes after every residual,
or before its branch. Positions are added to queries and keys, never to values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from model.layers.mlp import FeedForward


class MultiHeadAttention(nn.Module):
    """Multi-head attention with one packed projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, allowed: Tensor | None = None) -> Tensor:
        """query: b n c. key, value: b s c. allowed: b n s bool (n may be 1), the same for all heads. Returns b n c."""
        projections = zip((query, key, value), self.project.weight.chunk(3), self.project.bias.chunk(3))
        q, k, v = (rearrange(F.linear(*inputs), "b n (heads d) -> b heads n d", heads=self.heads)
                   for inputs in projections)
        mask = None if allowed is None else rearrange(allowed, "b n s -> b 1 n s")
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(rearrange(mixed, "b heads n d -> b n (heads d)"))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each a residual with its norm."""

    def __init__(self, dim: int, *, heads: int, ffn: int, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self = MultiHeadAttention(dim, heads)
        self.ffn = FeedForward(dim, ffn)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, *, allowed: Tensor | None = None) -> Tensor:
        """x: b n c. allowed: b n n bool, or b 1 n if it is the same for all queries; None: all keys."""
        x = residual(x, self.self_norm, lambda y: self.self(y, y, y, allowed=allowed), pre_norm=self.pre_norm)
        return residual(x, self.ffn_norm, self.ffn, pre_norm=self.pre_norm)


class DecoderLayer(nn.Module):
    """Cross-attention, self-attention and a feed-forward block, each a residual with its norm."""

    def __init__(self, dim: int, *, heads: int, ffn: int, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.cross = MultiHeadAttention(dim, heads)
        self.self = MultiHeadAttention(dim, heads)
        self.ffn = FeedForward(dim, ffn)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, position: Tensor,
                allowed: Tensor | None = None) -> Tensor:
        """x: b n c. keys, values: b s c. position: n c, of x as query or key. allowed: b n s bool; None: all keys."""
        x = residual(x, self.cross_norm, lambda y: self.cross(y + position, keys, values, allowed=allowed),
                     pre_norm=self.pre_norm)
        x = residual(x, self.self_norm, lambda y: self.self(y + position, y + position, y), pre_norm=self.pre_norm)
        return residual(x, self.ffn_norm, self.ffn, pre_norm=self.pre_norm)


def residual(x: Tensor, norm: nn.LayerNorm, branch: Callable[[Tensor], Tensor], *, pre_norm: bool) -> Tensor:
    """Add a branch to its input, with the norm before the branch or after the sum."""
    return x + branch(norm(x)) if pre_norm else norm(x + branch(x))
