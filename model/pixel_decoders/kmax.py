"""kMaX pixel decoder: decodes the backbone's maps from coarse to fine, down to stride 4.

kMaX-DeepLab (arXiv 2207.04044), section 4.1 (axial blocks where maps are small, bottleneck blocks where they are
large). Details follow bytedance/kmax-deeplab, `kmax_deeplab/modeling/pixel_decoder/kmax_pixel_decoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.axial_attention import AxialAttention2d
from model.layers.convolution import BatchNormConfig, ChannelsFirstLayerNorm, ConvBN
from model.layers.drop_path import DropPath
from model.layers.resize import resize

BlockKind = Literal["axial", "bottleneck"]
EXPANSION = 4    # output channels of a block, in units of the base width of its stage


@dataclass(frozen=True, slots=True, kw_only=True)
class KMaxPixelDecoderConfig:
    """One entry per stride, in the order 32, 16, 8, 4. The defaults are the official decoder.

    A stage without blocks only fuses, and its output has the base width (at stride 32 the channels of the backbone).
    A decoder without any blocks is a plain feature pyramid.
    """

    blocks: tuple[int, int, int, int] = (1, 5, 1, 1)
    widths: tuple[int, int, int, int] = (512, 256, 128, 64)    # base widths; blocks output four times as many channels
    kinds: tuple[BlockKind, BlockKind, BlockKind, BlockKind] = ("axial", "axial", "bottleneck", "bottleneck")
    heads: int = 8
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.blocks) == len(self.widths) == len(self.kinds) == 4:
            raise ValueError(f"pixel decoder with blocks={self.blocks}, widths={self.widths}, kinds={self.kinds}: each "
                             "needs four entries, for the strides 32, 16, 8 and 4")
        if min(self.blocks) < 0 or min(self.widths) < 1:
            raise ValueError(f"pixel decoder with blocks={self.blocks}, widths={self.widths}: blocks must be 0 or "
                             "more, widths above 0")
        if unknown := set(self.kinds) - {"axial", "bottleneck"}:
            raise ValueError(f"pixel decoder kinds {sorted(unknown)} do not exist; choose 'axial' or 'bottleneck'")
        for count, width, kind in zip(self.blocks, self.widths, self.kinds):
            if count and kind == "axial" and width % self.heads:
                raise ValueError(f"an axial stage of base width {width} does not divide into {self.heads} heads; "
                                 f"choose a multiple of {self.heads}, or kind 'bottleneck'")


class KMaxBlock(nn.Module):
    """Residual block: 1x1, then axial attention or a 3x3, then 1x1. The first GELU acts on the shortcut too."""

    def __init__(self, in_channels: int, *, width: int, kind: BlockKind, heads: int, drop_path: float,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        inner = 2 * width if kind == "axial" else width
        self.reduce = ConvBN(in_channels, inner, activation="gelu", batch_norm=batch_norm)
        self.mix = (AxialAttention2d(inner, key_depth=width, value_depth=inner, heads=heads, batch_norm=batch_norm)
                    if kind == "axial" else ConvBN(inner, inner, 3, batch_norm=batch_norm))
        self.expand = ConvBN(inner, EXPANSION * width, norm_scale=0.0, batch_norm=batch_norm)
        self.shortcut = (nn.Identity() if in_channels == EXPANSION * width
                         else ConvBN(in_channels, EXPANSION * width, batch_norm=batch_norm))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """x: b c h w. Returns b (4 * width) h w."""
        x = F.gelu(x)
        branch = self.expand(F.gelu(self.mix(self.reduce(x))))
        return self.drop_path(branch) + self.shortcut(x)


class ResizedFuse(nn.Module):
    """The sum of the resized coarse map and the finer backbone map, both projected to `out_channels`."""

    def __init__(self, low_channels: int, high_channels: int, out_channels: int, *,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.low, self.high = (
            None if channels == out_channels else ConvBN(channels, out_channels, batch_norm=batch_norm)
            for channels in (low_channels, high_channels)
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: b c h w, coarse. high: b c' h' w', fine. Returns b out_channels h' w'."""
        low = low if self.low is None else self.low(F.gelu(low))
        high = high if self.high is None else self.high(F.gelu(high))
        return resize(low, high.shape[-2:]) + high


class KMaxPixelDecoder(nn.Module):
    """Backbone maps at strides 4 to 32 -> decoded maps of the same sizes. Frames are independent.

    channels: of the backbone's maps, strides 4, 8, 16, 32. `out_channels`: of the decoded maps, in the same order.
    Axial stages accept maps of up to 255 positions per side (8160 pixels at stride 32, 4080 at stride 16).
    """

    def __init__(self, config: KMaxPixelDecoderConfig, *, channels: Sequence[int],
                 batch_norm: BatchNormConfig | None = None) -> None:
        super().__init__()
        batch_norm = batch_norm or BatchNormConfig()
        coarse_first = list(reversed(channels))
        self.input_norms = nn.ModuleList([ChannelsFirstLayerNorm(c) for c in coarse_first])
        self.stages = nn.ModuleList()
        self.fuses = nn.ModuleList()
        out_channels = []
        for stage, (count, width, kind) in enumerate(zip(config.blocks, config.widths, config.kinds)):
            current = width if stage else coarse_first[0]
            if stage:
                self.fuses.append(ResizedFuse(out_channels[-1], coarse_first[stage], width, batch_norm=batch_norm))
            blocks = nn.Sequential()
            for _ in range(count):
                blocks.append(KMaxBlock(current, width=width, kind=kind, heads=config.heads,
                                        drop_path=config.drop_path, batch_norm=batch_norm))
                current = EXPANSION * width
            self.stages.append(blocks)
            out_channels.append(current)
        self.out_channels = tuple(reversed(out_channels))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """maps: four of b channels[i] h w, strides 4, 8, 16, 32. Returns four of b out_channels[i] h w, likewise."""
        high = [norm(level) for norm, level in zip(self.input_norms, reversed(maps))]
        decoded = [self.stages[0](high[0])]
        for fuse, stage, level in zip(self.fuses, self.stages[1:], high[1:]):
            decoded.append(stage(fuse(decoded[-1], level)))
        return tuple(reversed(decoded))
