"""Auxiliary semantic head: one class per pixel from the backbone's maps, in training only.

Panoptic-DeepLab's single decoder and head (arXiv 1911.10194) as kMaX-DeepLab uses them; details follow
bytedance/kmax-deeplab, `kmax_deeplab/modeling/transformer_decoder/kmax_transformer_decoder.py` (SemanticPredictor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig, ConvBN
from model.layers.resize import is_odd, resize


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticHeadConfig:
    """Widths of the head; the defaults are official."""

    width: int = 256
    fine_widths: tuple[int, int] = (64, 32)         # of the projected maps at strides 8 and 4
    rates: tuple[int, ...] = (6, 12, 18)            # dilations of the 3x3 branches, in pixels of stride 32
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.width, *self.fine_widths, *self.rates) < 1 or len(self.fine_widths) != 2:
            raise ValueError(f"semantic head with width={self.width}, fine_widths={self.fine_widths}, "
                             f"rates={self.rates}: all must be above 0, and fine_widths must be two numbers")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"semantic head with dropout={self.dropout} must be in [0, 1); the official value is 0.1")


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3 and whole-image branches, concatenated and projected."""

    def __init__(self, in_channels: int, width: int, *, rates: Sequence[int], dropout: float,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        block = {"activation": "gelu", "batch_norm": batch_norm}
        self.branches = nn.ModuleList([ConvBN(in_channels, width, **block)])
        self.branches.extend(ConvBN(in_channels, width, 3, dilation=rate, **block) for rate in rates)
        self.pool = ConvBN(in_channels, width, **block)
        self.project = ConvBN((len(rates) + 2) * width, width, **block)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: b c h w. Returns b width h w."""
        if self.training and x.shape[0] == 1 and isinstance(self.pool.norm, nn.BatchNorm2d):
            raise ValueError("the semantic head pools whole frames, and batch norm cannot train on a single one. Use "
                             "clips of 2 frames, a batch of 2, synchronised batch norm, or semantic_head=None")
        whole = self.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        branches = [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*branches, whole], dim=1)))


class FineFuse(nn.Module):
    """Concatenates a resized coarse map and a projected finer one, then applies a depthwise 5x5 and a 1x1."""

    def __init__(self, fine_channels: int, fine_width: int, width: int, *, batch_norm: BatchNormConfig) -> None:
        super().__init__()
        both = width + fine_width
        self.project = ConvBN(fine_channels, fine_width, activation="gelu", batch_norm=batch_norm)
        self.depthwise = _depthwise(both, batch_norm)
        self.pointwise = ConvBN(both, width, activation="gelu", batch_norm=batch_norm)

    def forward(self, coarse: Tensor, fine: Tensor, *, align_corners: bool) -> Tensor:
        """coarse: b width h w. fine: b c h' w'. Returns b width h' w'."""
        coarse = resize(coarse, fine.shape[-2:], align_corners=align_corners)
        return self.pointwise(self.depthwise(torch.cat([coarse, self.project(fine)], dim=1)))


class SemanticHead(nn.Module):
    """Backbone maps (after within-clip tracking, if any) -> semantic logits at stride 4. Frames are independent.

    channels: of the maps at strides 4, 8, 16, 32; the one at stride 16 is not used.
    """

    def __init__(self, config: SemanticHeadConfig, *, channels: Sequence[int], num_classes: int,
                 batch_norm: BatchNormConfig | None = None) -> None:
        super().__init__()
        batch_norm = batch_norm or BatchNormConfig()
        width = config.width
        self.pyramid = AtrousPyramid(channels[3], width, rates=config.rates, dropout=config.dropout,
                                     batch_norm=batch_norm)
        self.fuses = nn.ModuleList([
            FineFuse(fine_channels, fine_width, width, batch_norm=batch_norm)
            for fine_channels, fine_width in zip((channels[1], channels[0]), config.fine_widths)
        ])
        self.depthwise = _depthwise(width, batch_norm)
        self.pointwise = ConvBN(width, width, activation="gelu", batch_norm=batch_norm)
        self.classify = ConvBN(width, num_classes + 1, bias=True, norm=None, init=("truncated", 0.01))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: four of b channels[i] h w, strides 4, 8, 16, 32. Returns b classes+1 h w at stride 4."""
        x = self.pyramid(maps[3])
        align_corners = is_odd(x.shape[-1])     # decided once, at stride 32, for both resizings
        for fuse, fine in zip(self.fuses, (maps[1], maps[0])):
            x = fuse(x, fine, align_corners=align_corners)
        return self.classify(self.pointwise(self.depthwise(x)))


def _depthwise(channels: int, batch_norm: BatchNormConfig) -> ConvBN:
    return ConvBN(channels, channels, 5, groups=channels, activation="gelu", init="xavier", batch_norm=batch_norm)
