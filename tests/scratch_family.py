"""A segmenter and a cross-clip head that nobody published: all that a new family needs is here, and one row.

The segmenter dots learned queries with a convolution of the backbone's finest map; the head gives every query the mean
of its clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from model.backbone import Backbone, BackboneConfig
from model.contracts import ClipPrediction, QueryShapes, VideoPrediction, VideoQueries
from model.cross_clip.base import Head, HeadConfig
from model.families import Family, Way
from model.losses.cross_clip import MaskCrossClipLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.reads import Reads

MEAN = 127.5


@dataclass(frozen=True, kw_only=True)
class ScratchSegmenterConfig:
    """Sizes."""

    kind: Literal["scratch"] = "scratch"
    num_classes: int
    num_queries: int = 8
    dim: int = 16
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="test_resnet"))

    @property
    def shapes(self) -> QueryShapes:
        """Sizes of what a cross-clip head reads."""
        return QueryShapes(num_classes=self.num_classes, num_queries=self.num_queries, dim=self.dim, pixel_dim=self.dim)

    def build(self) -> ScratchSegmenter:
        """The segmenter, freshly initialised."""
        return ScratchSegmenter(self)


class ScratchSegmenter(nn.Module):
    """A `Segmenter`; see `model.segmenters`."""

    def __init__(self, config: ScratchSegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.pixels = nn.Conv2d(self.backbone.channels[0], config.dim, 1)
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.dim))
        self.deepest = nn.Linear(self.backbone.channels[-1], config.dim)
        self.class_head = nn.Linear(config.dim, config.num_classes + 1)

    def forward(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                attention: dict[str, Tensor] | None = None) -> ClipPrediction:
        """See `Segmenter`."""
        b, t = frames.shape[:2]
        maps = self.backbone(rearrange(frames, "b t c h w -> (b t) c h w").float() / MEAN - 1)
        features = rearrange(self.pixels(maps[0]), "(b t) d h w -> b d t h w", t=t).contiguous()
        clip = self.deepest(rearrange(maps[-1], "(b t) c h w -> b (t h w) c", t=t).mean(1))
        queries = repeat(self.queries, "n c -> b n c", b=b) + clip[:, None] + 0 * sum(m.mean() for m in maps)
        masks = einsum(queries, features, "b n d, b d t h w -> b n t h w")
        return ClipPrediction(class_logits=self.class_head(queries), mask_logits=masks, queries=queries,
                              mask_embeddings=queries, alignment=queries, pixel_features=features)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """See `Segmenter`."""
        return mask_embeddings @ pixel_features


@dataclass(frozen=True, kw_only=True)
class ScratchHeadConfig(HeadConfig):
    """Sizes."""

    reads: ClassVar[Reads] = Reads(sizes={"num_classes": "num_classes", "dim": "dim"})

    kind: Literal["scratch"] = "scratch"
    num_classes: int
    dim: int = 16

    def build(self) -> ScratchHead:
        """The head, freshly initialised."""
        return ScratchHead(self)


class ScratchHead(Head):
    """A `CrossClipHead`."""

    def __init__(self, config: ScratchHeadConfig) -> None:
        super().__init__(config)
        self.mix = nn.Linear(config.dim, config.dim)
        self.class_head = nn.Linear(config.dim, config.num_classes + 1)

    def forward(self, queries: VideoQueries) -> tuple[VideoPrediction, ...]:
        """One layer."""
        mixed = self.mix(queries.queries.mean(1))                                                   # b n c
        embeddings = repeat(mixed, "b n c -> b k n c", k=queries.queries.shape[1])
        return (VideoPrediction(class_logits=self.class_head(mixed), mask_embeddings=embeddings, queries=embeddings),)


ROW = Family(segmenter=ScratchSegmenterConfig, losses=Mask2FormerLossConfig,
             video_losses=MaskCrossClipLossConfig,
             near_online={"tracks": Way(), "semantic": Way()}, offline={"tracks": Way()})
