"""Masked-attention decoder: each query attends only to the mask that it predicted one layer before.

Mask2Former (arXiv 2112.01527), section 3.1, on a single frame or, as in Tube-Link (arXiv 2303.12782, section 3.2), on
all frames of a clip at once: the keys of all frames form one sequence, each with its position in the clip, under one
mask. VITA reads the normalised queries of the frame decoder, `norm(prediction.queries)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from model.layers.attention import DecoderLayer
from model.layers.mlp import mlp
from model.layers.positions import sine_positions_2d, sine_positions_3d
from model.layers.resize import resize


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask2FormerDecoderConfig:
    """Widths and depths; the defaults are Tube-Link's. VITA's frame decoder has positions="frame"."""

    kind: Literal["mask2former"] = "mask2former"
    family: ClassVar[str] = "masked-attention"              # of decoders, whose last heads a cross-clip head may copy
    num_queries: int = 100
    dim: int = 256
    heads: int = 8
    ffn: int = 2048
    layers: int = 9
    levels: int = 3                                         # number of maps, from the coarsest, that layers use in turn
    positions: Literal["clip", "frame"] = "clip"            # keys carry their position in the clip, or in the frame
    pre_norm: bool = False                                  # norms before attention and feed-forward, not after
    project_maps: bool = False                              # a 1x1 convolution on each map; always if widths differ

    def __post_init__(self) -> None:
        if min(self.num_queries, self.dim, self.heads, self.ffn, self.layers, self.levels) < 1:
            raise ValueError(f"query decoder with num_queries={self.num_queries}, dim={self.dim}, heads={self.heads}, "
                             f"ffn={self.ffn}, layers={self.layers}, levels={self.levels}: all must be above 0")
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"query decoder with dim={self.dim}, heads={self.heads}: dim must be a multiple of the "
                             "heads and of 4")
        if self.positions not in ("clip", "frame"):
            raise ValueError(f"positions={self.positions!r} does not exist; choose 'clip' or 'frame'")

    def build(self, *, channels: int, embedding: int, num_classes: int) -> MaskedAttentionDecoder:
        """The decoder, freshly initialised. channels: of the maps. embedding: channels of the pixel features."""
        return MaskedAttentionDecoder(self, channels=channels, embedding=embedding, num_classes=num_classes)


class QueryPrediction(NamedTuple):
    """The output of the shared heads after a layer."""

    queries: Tensor           # b n c              raw, before the norm in front of the heads
    class_logits: Tensor      # b n classes+1
    mask_embeddings: Tensor   # b n d
    mask_logits: Tensor       # b n t h w


class Level(NamedTuple):
    """One map of all frames of a clip, in the form that the layers read."""

    keys: Tensor              # b (t h w) c        with positions
    values: Tensor            # b (t h w) c
    pixel_features: Tensor    # b d (t h w)        resized to this map, without gradient


class MaskedAttentionDecoder(nn.Module):
    """Learned queries -> layers at strides 32, 16, 8 in turn -> classes and masks, from heads that all layers share."""

    def __init__(self, config: Mask2FormerDecoderConfig, *, channels: int, embedding: int, num_classes: int) -> None:
        """channels: of the maps. embedding: channels of the pixel features."""
        super().__init__()
        dim = config.dim
        self.config = config
        self.initial_queries = nn.Parameter(torch.randn(config.num_queries, dim))
        self.query_positions = nn.Parameter(torch.randn(config.num_queries, dim))
        self.level_embedding = nn.Parameter(torch.randn(config.levels, dim))
        project = config.project_maps or channels != dim
        self.projections = nn.ModuleList(nn.Conv2d(channels, dim, 1) if project else nn.Identity()
                                         for _ in range(config.levels))
        self.layers = nn.ModuleList(DecoderLayer(dim, heads=config.heads, ffn=config.ffn, pre_norm=config.pre_norm)
                                    for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.mask_head = mlp(dim, dim, dim, embedding)

    def forward(self, maps: Sequence[Tensor], pixel_features: Tensor, *, supervise: bool = False,
                ) -> tuple[QueryPrediction, ...]:
        """maps: (b t) c h w, coarse to fine, at least `levels` of them. pixel_features: b d t h w.

        supervise: return the predictions before the first layer and after each layer, instead of the last one alone.
        """
        b, _, t, *_ = pixel_features.shape
        levels = [self._level(index, one, pixel_features, frames=t)
                  for index, one in zip(range(self.config.levels), maps)]
        queries = repeat(self.initial_queries, "n c -> b n c", b=b)
        predictions = [self.predict(queries, pixel_features)] if supervise else []
        for index, layer in enumerate(self.layers):
            level = levels[index % len(levels)]
            queries = layer(queries, level.keys, level.values, position=self.query_positions,
                            allowed=self._allowed(queries, level.pixel_features))
            if supervise or index == len(self.layers) - 1:
                predictions.append(self.predict(queries, pixel_features))
        return tuple(predictions)

    def predict(self, queries: Tensor, pixel_features: Tensor) -> QueryPrediction:
        """queries: b n c, raw. pixel_features: b d t h w."""
        normed = self.norm(queries)
        mask_embeddings = self.mask_head(normed)
        mask_logits = einsum(mask_embeddings, pixel_features, "b n d, b d t h w -> b n t h w")
        return QueryPrediction(queries, self.class_head(normed), mask_embeddings, mask_logits)

    def _level(self, index: int, one: Tensor, pixel_features: Tensor, *, frames: int) -> Level:
        size = one.shape[-2:]
        embedding = self.level_embedding[index]
        values = rearrange(self.projections[index](one), "(b t) c h w -> b (t h w) c", t=frames) + embedding
        options = {"channels": self.config.dim, "device": one.device}
        if self.config.positions == "clip":
            position = rearrange(sine_positions_3d(frames, *size, **options), "t h w c -> (t h w) c")
        else:
            position = repeat(sine_positions_2d(*size, **options), "h w c -> (t h w) c", t=frames)
        # resizing is linear, so resizing the features once gives the same masks as resizing every layer's mask logits
        small = resize(rearrange(pixel_features.detach(), "b d t h w -> (b t) d h w"), size, align_corners=False)
        return Level(values + position, values, rearrange(small, "(b t) d h w -> b d (t h w)", t=frames))

    @torch.no_grad()
    def _allowed(self, queries: Tensor, pixel_features: Tensor) -> Tensor:
        """The pixels inside the mask of each query, or all pixels if its mask is empty. b n (t h w) bool."""
        allowed = einsum(self.mask_head(self.norm(queries)), pixel_features, "b n d, b d p -> b n p") >= 0
        return allowed | ~allowed.any(-1, keepdim=True)
