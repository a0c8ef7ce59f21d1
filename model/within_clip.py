"""MaXTron's within-clip tracking: deformable attention in space, axial-trajectory attention in time.

arXiv 2311.18537v1, section 3.2, figure 3 and table 5. Behaviour follows TACJu/MaXTron,
`maxtron_deeplab/modeling/within_clip_tracking_module/`: the result replaces the backbone's maps, without a residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from model.backbone import STRIDES
from model.layers.axial_trajectory import TrajectoryStack, track_levels
from model.layers.convolution import ConvBN
from model.layers.deformable_attention import DeformableLayer, Shapes, join_levels, reference_points, split_levels
from model.layers.positions import level_positions, sine_positions_3d


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinClipConfig:
    """The defaults are the paper's with ResNet-50; table 5 varies blocks, layers, attention and arrangement."""

    dim: int = 256
    heads: int = 8
    points: int = 4                                                # deformable samples per level and head
    ffn: int = 1024
    blocks: int = 2                                                # N_w
    spatial_layers_per_block: int = 1                              # deformable attention
    trajectory_layers_per_block: int = 2                           # 3 for ConvNeXt-L and ConvNeXtV2-L
    attention: Literal["axial", "full"] | None = "axial"           # in time; None: deformable layers only
    arrangement: Literal["interleaved", "sequential"] = "interleaved"    # sequential: first all deformable layers
    strides: tuple[int, ...] = (8, 16, 32)                         # maps that are replaced
    trajectory_strides: tuple[int, ...] = (16, 32)                 # maps whose frames attend to each other
    dropout: float = 0.0
    attention_dropout: float = 0.0                                 # inside the softmax over positions
    residual_dropout: float = 0.0                                  # after each pass; 0.1 or 0.2 for large backbones

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"within-clip tracking with dim={self.dim}, heads={self.heads}: dim must be a multiple "
                             "of the heads and of 4")
        if self.blocks < 1 or min(self.spatial_layers_per_block, self.trajectory_layers_per_block) < 0:
            raise ValueError(f"blocks={self.blocks}, spatial_layers_per_block={self.spatial_layers_per_block}, "
                             f"trajectory_layers_per_block={self.trajectory_layers_per_block}: there must be "
                             "a block, and no number of layers may be negative")
        if self.attention not in ("axial", "full", None) or self.arrangement not in ("interleaved", "sequential"):
            raise ValueError(f"attention={self.attention!r} must be 'axial', 'full' or None, and arrangement="
                             f"{self.arrangement!r} must be 'interleaved' or 'sequential'")
        if not set(self.trajectory_strides) <= set(self.strides) <= set(STRIDES) or not self.strides:
            raise ValueError(f"strides={self.strides} must be some of {STRIDES}, and trajectory_strides="
                             f"{self.trajectory_strides} some of these")

    @property
    def has_trajectories(self) -> bool:
        """Whether frames attend to each other at all."""
        return self.attention is not None and self.trajectory_layers_per_block > 0 and bool(self.trajectory_strides)


class WithinClip(nn.Module):
    """Backbone maps of the frames of a clip -> maps that carry information from all of its frames."""

    def __init__(self, config: WithinClipConfig, *, channels: Sequence[int]) -> None:
        """channels: of the backbone's maps at strides 4, 8, 16, 32."""
        super().__init__()
        self.config = config
        self.strides = sorted(config.strides, reverse=True)                  # coarse to fine, as official weights
        self.trajectory_strides = sorted(config.trajectory_strides, reverse=True)
        width = dict(zip(STRIDES, channels))
        block = {"bias": True, "norm": "gn", "init": "xavier"}
        self.projections_in = nn.ModuleList(ConvBN(width[stride], config.dim, **block) for stride in self.strides)
        self.projections_out = nn.ModuleList(ConvBN(config.dim, width[stride], **block) for stride in self.strides)
        if config.spatial_layers_per_block:
            self.level_embedding = nn.Parameter(torch.randn(len(self.strides), config.dim))
        self.spatial_layers = nn.ModuleList(
            DeformableLayer(config.dim, heads=config.heads, levels=len(self.strides), points=config.points,
                            ffn=config.ffn, dropout=config.dropout)
            for _ in range(config.blocks * config.spatial_layers_per_block))
        self.trajectory_stacks = nn.ModuleList()
        if config.has_trajectories:
            self.clip_level_embedding = nn.Parameter(torch.randn(len(self.trajectory_strides), config.dim))
            self.trajectory_stacks.extend(
                TrajectoryStack(config.dim, layers=config.trajectory_layers_per_block, kind=config.attention,
                                heads=config.heads, ffn=config.ffn, dropout=config.dropout,
                                attention_dropout=config.attention_dropout, residual_dropout=config.residual_dropout)
                for _ in range(config.blocks))

    def forward(
        self, maps: Sequence[Tensor], *, frames: int, attention: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """maps: (b t) c h w at strides 4, 8, 16, 32; returns the same, with those of `config.strides` replaced.

        attention: a dict is filled with the maps of the last trajectory layer, "stride16.height" and so on, in the
        shapes of `TrajectoryLayer`. Raises ValueError when the maps do not divide into clips of `frames`.
        """
        by_stride = dict(zip(STRIDES, maps))
        x, shapes = join_levels([by_stride[stride] for stride in self.strides], self.projections_in, frames=frames)
        x = self._encode(x, shapes, frames=frames, attention=attention)
        for stride, shape, project, one in zip(self.strides, shapes, self.projections_out, split_levels(x, shapes)):
            by_stride[stride] = project(rearrange(one, "n (h w) c -> n c h w", h=shape[0]))
        return tuple(by_stride[stride] for stride in STRIDES)

    def _encode(self, x: Tensor, shapes: Shapes, *, frames: int, attention: dict[str, Tensor] | None) -> Tensor:
        """x: (b t) (levels h w) c."""
        position = level_positions(shapes, self.level_embedding) if self.spatial_layers else None
        reference = reference_points(shapes, device=x.device)
        clip_positions = self._clip_positions(shapes, frames=frames, device=x.device)
        steps = self._steps()
        last = max((index for index, step in enumerate(steps) if isinstance(step, TrajectoryStack)), default=-1)
        for index, step in enumerate(steps):
            if isinstance(step, DeformableLayer):
                x = step(x, position=position, reference=reference, shapes=shapes)
            else:
                x = track_levels(step, x, shapes, strides=self.strides, positions=clip_positions, frames=frames,
                                 attention=attention if index == last else None)
        return x

    def _steps(self) -> list[nn.Module]:
        """All layers in the order of the config's arrangement."""
        spatial = list(self.spatial_layers)
        stacks = list(self.trajectory_stacks)
        if self.config.arrangement == "sequential":
            return spatial + stacks
        per_block = self.config.spatial_layers_per_block
        return [step for block in range(self.config.blocks)
                for step in spatial[block * per_block:(block + 1) * per_block] + stacks[block:block + 1]]

    def _clip_positions(self, shapes: Shapes, *, frames: int, device: torch.device) -> dict[int, Tensor]:
        """Stride -> t h w c: the position in the clip plus the embedding of the level."""
        if not self.config.has_trajectories:
            return {}
        shape_of = dict(zip(self.strides, shapes))
        return {stride: sine_positions_3d(frames, *shape_of[stride], channels=self.config.dim, device=device) + level
                for stride, level in zip(self.trajectory_strides, self.clip_level_embedding)}
