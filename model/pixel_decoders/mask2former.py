"""Mask2Former's pixel decoder: deformable attention over the coarse maps, then convolutions up to stride 4.

Mask2Former (arXiv 2112.01527), section 3.2, decodes frames independently. MaXTron on Tube-Link (arXiv 2311.18537v1,
section 3.2) lets frames attend to each other by trajectory attention inside each deformable attention, between sampling
and output projection, as in `MaXTron_Tube-Link/mmdet/models/plugins/msdeformattn_pixel_decoder.py` of TACJu/MaXTron.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from model.backbone import STRIDES
from model.layers.axial_trajectory import TrajectoryBranch, track_levels
from model.layers.convolution import ConvBN
from model.layers.deformable_attention import DeformableLayer, Shapes, join_levels, reference_points, split_levels
from model.layers.positions import level_positions, sine_positions_3d
from model.layers.resize import resize


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask2FormerPixelDecoderConfig:
    """Widths and depths; the defaults are official."""

    dim: int = 256
    embedding: int = 256                            # d, channels of the pixel features
    heads: int = 8
    points: int = 4                                 # deformable samples per level and head
    ffn: int = 1024
    layers: int = 6
    strides: tuple[int, ...] = (8, 16, 32)          # maps that attend to each other
    finest: int = 4                                 # stride of the pixel features
    fuse_norm: Literal["gn"] | None = "gn"          # of the convolutions that bring in the finer maps
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.dim, self.embedding, self.heads, self.points, self.ffn, self.layers) < 1:
            raise ValueError(f"pixel decoder with dim={self.dim}, embedding={self.embedding}, heads={self.heads}, "
                             f"points={self.points}, ffn={self.ffn}, layers={self.layers}: all must be above 0")
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"pixel decoder with dim={self.dim}, heads={self.heads}: dim must be a multiple of the "
                             "heads and of 4")
        coarse = tuple(sorted(self.strides))
        if not coarse or coarse != STRIDES[-len(coarse):] or self.finest not in STRIDES or self.finest > coarse[0]:
            raise ValueError(f"pixel decoder with strides={self.strides}, finest={self.finest}: strides must hold 32 "
                             f"and the next finer ones without a gap, and finest must be one of {STRIDES} and no "
                             "coarser than they are; the official values are (8, 16, 32) and 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeformableTrajectoryConfig:
    """Axial-trajectory attention inside each deformable attention: MaXTron's within-clip tracking on Tube-Link."""

    layers: int = 1                                 # in each deformable attention
    heads: int = 8
    ffn: int = 1024
    strides: tuple[int, ...] = (16, 32)             # maps whose frames attend to each other
    scale: float | None = 1e-6                      # first scale of the branch; None: no residual
    dropout: float = 0.0
    residual_dropout: float = 0.1                   # after each pass; released models have 0.0 in their names

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.ffn) < 1 or not set(self.strides) <= set(STRIDES) or not self.strides:
            raise ValueError(f"trajectory attention with layers={self.layers}, heads={self.heads}, ffn={self.ffn}, "
                             f"strides={self.strides}: the first three must be above 0, and strides some of {STRIDES}")


class DecodedPixels(NamedTuple):
    """The result of the pixel decoder."""

    pixel_features: Tensor            # (b t) d h w, at the finest stride
    maps: tuple[Tensor, ...]          # (b t) c h w each, coarse to fine; pixel features are a projection of the last


class Mask2FormerPixelDecoder(nn.Module):
    """Backbone maps of the frames of a clip -> maps for a query decoder and pixel features. Any number of frames."""

    def __init__(self, config: Mask2FormerPixelDecoderConfig, *, channels: Sequence[int],
                 within_clip: DeformableTrajectoryConfig | None = None) -> None:
        """channels: of the backbone's maps at strides 4, 8, 16, 32. within_clip: None keeps frames independent."""
        super().__init__()
        dim = config.dim
        width = dict(zip(STRIDES, channels))
        self.strides = sorted(config.strides, reverse=True)                      # coarse to fine, as official weights
        self.finer = [stride for stride in reversed(STRIDES) if config.finest <= stride < self.strides[-1]]
        self.projections = nn.ModuleList(ConvBN(width[stride], dim, bias=True, norm="gn", init="xavier")
                                         for stride in self.strides)
        self.level_embedding = nn.Parameter(torch.randn(len(self.strides), dim))
        self.layers = nn.ModuleList(
            DeformableLayer(dim, heads=config.heads, levels=len(self.strides), points=config.points, ffn=config.ffn,
                            dropout=config.dropout) for _ in range(config.layers))
        fuse = {"norm": config.fuse_norm, "bias": config.fuse_norm is None, "init": "xavier"}
        self.laterals = nn.ModuleList(ConvBN(width[stride], dim, **fuse) for stride in self.finer)
        self.fuses = nn.ModuleList(ConvBN(dim, dim, 3, activation="relu", **fuse) for _ in self.finer)
        self.pixel_out = ConvBN(dim, config.embedding, bias=True, norm=None, init="xavier")
        self._add_trajectories(dim, within_clip, layers=config.layers)

    def _add_trajectories(self, dim: int, config: DeformableTrajectoryConfig | None, *, layers: int) -> None:
        self.trajectory_strides: list[int] = []
        self.trajectories = nn.ModuleList()
        if config is None:
            return
        if not set(config.strides) <= set(self.strides) or dim % config.heads:
            raise ValueError(f"trajectory attention at strides {config.strides} with {config.heads} heads does not "
                             f"fit a pixel decoder of strides {self.strides} and dim {dim}; choose some of these "
                             "strides, and a number of heads that divides dim")
        self.trajectory_strides = sorted(config.strides, reverse=True)
        self.clip_level_embedding = nn.Parameter(torch.randn(len(config.strides), dim))
        self.trajectories.extend(
            TrajectoryBranch(dim, start=config.scale, layers=config.layers, heads=config.heads, ffn=config.ffn,
                             dropout=config.dropout, attention_dropout=config.dropout,
                             residual_dropout=config.residual_dropout) for _ in range(layers))

    def forward(self, maps: Sequence[Tensor], *, frames: int,
                attention: dict[str, Tensor] | None = None) -> DecodedPixels:
        """maps: four of (b t) channels[i] h w, at strides 4, 8, 16, 32; clips of `frames`, one after the other.

        attention: a dict is filled with the maps of the last trajectory layer, see `track_levels`.
        Raises ValueError when the maps do not divide into clips.
        """
        by_stride = dict(zip(STRIDES, maps))
        x, shapes = join_levels([by_stride[stride] for stride in self.strides], self.projections, frames=frames)
        x = self._encode(x, shapes, frames=frames, attention=attention)
        decoded = [rearrange(one, "n (h w) c -> n c h w", h=shape[0])
                   for shape, one in zip(shapes, split_levels(x, shapes))]
        for stride, lateral, fuse in zip(self.finer, self.laterals, self.fuses):
            finer = lateral(by_stride[stride])
            decoded.append(fuse(finer + resize(decoded[-1], finer.shape[-2:], align_corners=False)))
        return DecodedPixels(self.pixel_out(decoded[-1]), tuple(decoded))

    def _encode(self, x: Tensor, shapes: Shapes, *, frames: int, attention: dict[str, Tensor] | None) -> Tensor:
        """x: (b t) (levels h w) c."""
        position = level_positions(shapes, self.level_embedding)
        reference = reference_points(shapes, device=x.device)
        track = partial(track_levels, shapes=shapes, strides=self.strides, frames=frames,
                        positions=self._clip_positions(shapes, frames=frames))
        for index, layer in enumerate(self.layers):
            refine = None
            if self.trajectories:
                maps = attention if index == len(self.layers) - 1 else None
                refine = partial(track, self.trajectories[index], attention=maps)
            x = layer(x, position=position, reference=reference, shapes=shapes, refine=refine)
        return x

    def _clip_positions(self, shapes: Shapes, *, frames: int) -> dict[int, Tensor]:
        """Stride -> t h w c: the position in the clip plus the embedding of the level."""
        if not self.trajectories:
            return {}
        sizes = dict(zip(self.strides, shapes))
        return {stride: level + sine_positions_3d(frames, *sizes[stride], channels=len(level), device=level.device)
                for stride, level in zip(self.trajectory_strides, self.clip_level_embedding)}
