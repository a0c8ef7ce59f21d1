"""K-Net's decoder: each kernel is updated by the pixels inside the mask that it made, and then the kernels meet.

K-Net (arXiv 2106.14855, sections 3.2 and 3.3), as Video K-Net (arXiv 2204.04656) tracks with it; the facts follow
`knet/kernel_updator.py` and `knet/video/kernel_update_head.py` in lxtGH/Video-K-Net. Our query is their kernel. On a
clip of several frames a query has one mask in all of them, and its pixels are those of all frames. Different here: the
features inside a mask are averaged and not summed, so that they have one scale for frames and for tubes, and those that
a query starts with are projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import einsum, repeat
from torch import Tensor, nn

from model.layers.attention import EncoderLayer
from model.query_decoders.mask2former import QueryPrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class KNetDecoderConfig:
    """Widths and depths; the defaults are Video K-Net's on VIPSeg, which has one more query for each class of stuff."""

    kind: Literal["knet"] = "knet"
    family: ClassVar[str] = "K-Net"         # of decoders, whose last heads a cross-clip head may copy
    num_queries: int = 100
    dim: int = 256
    heads: int = 8
    ffn: int = 2048
    layers: int = 3

    def __post_init__(self) -> None:
        if min(self.num_queries, self.dim, self.heads, self.ffn, self.layers) < 1 or self.dim % self.heads:
            raise ValueError(f"query decoder with {self}: all must be above 0, and dim a multiple of the heads")

    def build(self, *, channels: int, embedding: int, num_classes: int) -> KNetDecoder:
        """The decoder, freshly initialised. channels: of the maps, which it does not read; embedding: of the pixels."""
        return KNetDecoder(self, embedding=embedding, num_classes=num_classes)


class KNetDecoder(nn.Module):
    """Learned queries -> updates by the pixel features at stride 4 -> classes and masks, each layer with own heads."""

    def __init__(self, config: KNetDecoderConfig, *, embedding: int, num_classes: int) -> None:
        """embedding: channels of the pixel features."""
        super().__init__()
        dim = config.dim
        self.config = config
        self.initial_queries = nn.Parameter(torch.randn(config.num_queries, dim))
        self.heads = nn.ModuleList(KNetHeads(dim, embedding=embedding, num_classes=num_classes)
                                   for _ in range(config.layers + 1))
        self.start = nn.Linear(embedding, dim)
        self.feature_projections = nn.ModuleList(nn.Linear(embedding, dim) for _ in range(config.layers))
        self.updates = nn.ModuleList(KernelUpdate(dim) for _ in range(config.layers))
        self.interactions = nn.ModuleList(EncoderLayer(dim, heads=config.heads, ffn=config.ffn)
                                          for _ in range(config.layers))

    def forward(self, maps: Sequence[Tensor], pixel_features: Tensor, *, supervise: bool = False,
                ) -> tuple[QueryPrediction, ...]:
        """maps: not read. pixel_features: b d t h w.

        supervise: return the predictions before the first layer and after each layer, instead of the last one alone.
        """
        queries = repeat(self.initial_queries, "n c -> b n c", b=len(pixel_features))
        predictions = [self.heads[0](queries, pixel_features)]
        for layer, head in enumerate(self.heads[1:]):
            seen = inside(predictions[-1].mask_logits, pixel_features)
            if layer == 0:
                queries = queries + self.start(seen)
            features = self.feature_projections[layer](seen)
            queries = self.interactions[layer](self.updates[layer](queries, features))
            predictions.append(head(queries, pixel_features))
        return tuple(predictions) if supervise else (predictions[-1],)


class KNetHeads(nn.Module):
    """Class logits and mask logits of queries."""

    def __init__(self, dim: int, *, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.class_head, self.mask_head = (
            nn.Sequential(nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, width))
            for width in (num_classes + 1, embedding))

    def forward(self, queries: Tensor, pixel_features: Tensor) -> QueryPrediction:
        """queries: b n c. pixel_features: b d t h w."""
        mask_embeddings = self.mask_head(queries)
        mask_logits = einsum(mask_embeddings, pixel_features, "b n d, b d t h w -> b n t h w")
        return QueryPrediction(queries, self.class_head(queries), mask_embeddings, mask_logits)


class KernelUpdate(nn.Module):
    """A gated mean of what a query was and what its pixels say; the gates depend on the product of both."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_features = nn.Linear(dim, 2 * dim)
        self.from_queries = nn.Linear(dim, 2 * dim)
        self.feature_gate, self.query_gate = (nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Sigmoid())
                                              for _ in range(2))
        self.feature_norm = nn.LayerNorm(dim)
        self.query_norm = nn.LayerNorm(dim)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU())

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """queries, features: b n c -> b n c."""
        feature_key, feature_value = self.from_features(features).chunk(2, -1)
        query_key, query_value = self.from_queries(queries).chunk(2, -1)
        both = feature_key * query_key
        return self.out(self.feature_gate(both) * self.feature_norm(feature_value)
                        + self.query_gate(both) * self.query_norm(query_value))


def inside(mask_logits: Tensor, pixel_features: Tensor) -> Tensor:
    """mask_logits b n t h w, pixel_features b d t h w -> b n d: the mean inside each mask; zeros for an empty one."""
    masks = (mask_logits.detach() > 0).float()
    weights = masks / masks.sum((2, 3, 4), keepdim=True).clamp(min=1)
    return einsum(weights.to(pixel_features.dtype), pixel_features, "b n t h w, b d t h w -> b n d")
