"""Position-sensitive attention along one axis at a time, for the kMaX pixel decoder and Axial-ResNet50.

Axial-DeepLab (arXiv 2003.07853, equation 4) with batch norms instead of the 1/sqrt(d) factor. Details follow
bytedance/kmax-deeplab, `kmax_deeplab/modeling/pixel_decoder/kmax_pixel_decoder.py`.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig, ConvBN, truncated_normal_

MAX_LENGTH = 255    # positions per axis that the relative tables cover, as in the released checkpoints


def relative_positions(table: Tensor, length: int) -> Tensor:
    """The row of a relative table for every pair: (2 MAX_LENGTH - 1) d -> query key d, by the offset key - query.

    Raises ValueError when the axis is longer than the table reaches.
    """
    reach = (table.shape[0] + 1) // 2
    if length > reach:
        raise ValueError(f"axial attention over {length} positions, but its relative tables cover {reach}. Use smaller "
                         f"frames, or bottleneck blocks at this stride (stride 32 allows {reach * 32} pixels a side, "
                         f"stride 16 allows {reach * 16})")
    positions = torch.arange(length, device=table.device)
    return table[positions[None, :] - positions[:, None] + reach - 1]


class AxialAttention(nn.Module):
    """Attention of every position to all positions of its sequence, with learned relative positions.

    The similarity is the sum of three parts, query . key, query . offset and key . offset, each with its own batch
    norm. The result is the sum of two parts, from values and from value offsets, again each with its own batch norm.
    key_depth, value_depth: channels of all heads together.
    """

    def __init__(self, in_channels: int, *, key_depth: int, value_depth: int, heads: int = 8,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        if key_depth % heads or value_depth % heads:
            raise ValueError(f"axial attention with key depth {key_depth} and value depth {value_depth} does not "
                             f"divide into {heads} heads; choose multiples of {heads}")
        self.heads = heads
        self.depths = (key_depth, key_depth, value_depth)
        self.project = ConvBN(in_channels, sum(self.depths), dims=1, init=("truncated", in_channels ** -0.5),
                              batch_norm=batch_norm)
        self.relative_query = _relative_table(key_depth // heads)
        self.relative_key = _relative_table(key_depth // heads)
        self.relative_value = _relative_table(value_depth // heads)
        self.similarity_norm = nn.BatchNorm2d(3 * heads, **asdict(batch_norm))
        self.output_norm = nn.BatchNorm1d(2 * value_depth, **asdict(batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        """x: b c s sequences along one axis. Returns b value_depth s."""
        projected = self.project(x).split(self.depths, dim=1)
        query, key, value = (rearrange(part, "b (heads d) s -> b heads d s", heads=self.heads) for part in projected)
        weights = self._similarity(query, key).float().softmax(dim=-1).to(value.dtype)      # b heads query key
        offsets = relative_positions(self.relative_value, x.shape[-1]).to(value.dtype)
        content = einsum(weights, value, "b heads q k, b heads d k -> b heads d q")
        position = einsum(weights, offsets, "b heads q k, q k d -> b heads d q")
        both = rearrange([content, position], "parts b heads d q -> b (parts heads d) q")
        return rearrange(self.output_norm(both), "b (parts c) q -> parts b c q", parts=2).sum(dim=0)

    def _similarity(self, query: Tensor, key: Tensor) -> Tensor:
        """query, key: b heads d s. Returns b heads query key."""
        length = query.shape[-1]
        from_query = relative_positions(self.relative_query, length).to(query.dtype)
        from_key = relative_positions(self.relative_key, length).to(query.dtype)
        parts = torch.cat([
            einsum(query, key, "b heads d q, b heads d k -> b heads q k"),
            einsum(query, from_query, "b heads d q, q k d -> b heads q k"),
            einsum(key, from_key, "b heads d k, q k d -> b heads q k"),
        ], dim=1)
        return rearrange(self.similarity_norm(parts), "b (parts heads) q k -> parts b heads q k", parts=3).sum(dim=0)


class AxialAttention2d(nn.Module):
    """Axial attention along every column, then along every row.

    With a stride, every stride-th row is kept after the first attention, and every stride-th column after the second.
    """

    def __init__(self, in_channels: int, *, key_depth: int, value_depth: int, heads: int = 8, stride: int = 1,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.stride = stride
        options = {"key_depth": key_depth, "value_depth": value_depth, "heads": heads, "batch_norm": batch_norm}
        self.height = AxialAttention(in_channels, **options)
        self.width = AxialAttention(value_depth, **options)

    def forward(self, x: Tensor) -> Tensor:
        """x: b c h w. Returns b value_depth h w, with sides divided by the stride and rounded up."""
        b, _, _, w = x.shape
        columns = self.height(rearrange(x, "b c h w -> (b w) c h"))[..., ::self.stride]
        h = columns.shape[-1]
        rows = self.width(rearrange(columns, "(b w) c h -> (b h) c w", b=b, w=w))[..., ::self.stride]
        return rearrange(rows, "(b h) c w -> b c h w", b=b, h=h)


def _relative_table(depth: int) -> nn.Parameter:
    return nn.Parameter(truncated_normal_(torch.empty(2 * MAX_LENGTH - 1, depth), std=1.0))
