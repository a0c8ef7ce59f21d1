"""The common part of both flavours of MaXTron's cross-clip tracking: the layers between queries, and their head.

arXiv 2311.18537 v1, section 3.3. Aligned queries of all clips pass through layers of trajectory attention (who is this
query in every clip?) and temporal ASPP (what happened to it just before and after?). The predictor of the flavour
then gives one class per query for the whole video and one mask embedding per query and clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from model.contracts import VideoPrediction, VideoQueries
from model.cross_clip.base import HeadConfig
from model.layers.convolution import BatchNormConfig
from model.layers.temporal_aspp import TemporalASPP
from model.layers.trajectory_attention import TrajectoryAttention


@dataclass(frozen=True, kw_only=True)
class CrossClipLayersConfig(HeadConfig):
    """Sizes and switches of the layers. Defaults are the official R50 head on VIPSeg, except for `start`."""

    num_classes: int                            # without "no object"
    dim: int = 256                              # c, channels of a query
    embedding: int = 128                        # d, channels of a mask embedding
    heads: int = 8
    layers: int = 4                             # the paper's N_c is 6; every released config has 4
    attention: Literal["trajectory", "self"] = "trajectory"     # "self": the ablation of table 6
    aspp: bool = True                           # False: the ablation without temporal ASPP
    aspp_rates: tuple[int, ...] = (1, 2, 3)
    aspp_kernels: tuple[int, ...] = (3, 3, 3)
    aspp_norm: Literal["ln", "bn"] | None = "ln"
    attention_dropout: float = 0.0
    aspp_dropout: float = 0.0
    # "near_online": new branches are scaled by 0 and all clips weigh the same, so training starts at the near-online
    # result. "official": a norm follows every residual; the copied heads were trained without it, and start far below.
    start: Literal["near_online", "official"] = "near_online"
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)

    def __post_init__(self) -> None:
        if min(self.num_classes, self.dim, self.embedding, self.heads, self.layers) < 1:
            raise ValueError(f"a cross-clip head needs positive num_classes, dim, embedding, heads and layers; got "
                             f"{self.num_classes}, {self.dim}, {self.embedding}, {self.heads}, {self.layers}")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} does not split into heads={self.heads}; choose a divisor of dim")
        if len(self.aspp_rates) != len(self.aspp_kernels):
            raise ValueError(f"aspp_rates={self.aspp_rates} and aspp_kernels={self.aspp_kernels} must be equally long; "
                             "official: (1, 2, 3) and (3, 3, 3)")
        for name, choices in (("attention", ("trajectory", "self")), ("start", ("near_online", "official"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} does not exist; choose one of {choices}")

    def as_released(self) -> Self:
        """The config of the same head in an official checkpoint."""
        return replace(self, start="official")


class CrossClipTracker(nn.Module):
    """Aligned queries of all clips -> classes and mask embeddings of the whole video.

    predictor: a module from queries b k n c to a `VideoPrediction`, with a method `mask_logits`.
    """

    def __init__(self, config: CrossClipLayersConfig, predictor: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(CrossClipLayer(config) for _ in range(config.layers))
        self.predictor = predictor

    def forward(self, queries: VideoQueries, *, attention: dict[str, Tensor] | None = None
                ) -> tuple[VideoPrediction, ...]:
        """One prediction per layer, from shared heads and all supervised alike; the last is the result.

        attention: a dict is filled with the map of the last layer over clips: "time", b heads (k n) k.
        """
        x = queries.queries                                                         # b k n c
        predictions = []
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, attention=attention if index == len(self.layers) else None)
            predictions.append(self.predictor(x))
        return tuple(predictions)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k d *pixels (the segmenter's) -> b k n *pixels."""
        return self.predictor.mask_logits(mask_embeddings, pixel_features)


class CrossClipLayer(nn.Module):
    """Trajectory attention over all queries of the video, then temporal ASPP along each; no feed-forward block."""

    def __init__(self, config: CrossClipLayersConfig) -> None:
        super().__init__()
        attention = QueryTrajectories if config.attention == "trajectory" else QuerySelfAttention
        self.attention = Residual(attention(config), config)
        self.aspp = Residual(QueryASPP(config), config) if config.aspp else nn.Identity()

    def forward(self, x: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        """x: b k n c -> b k n c. attention: see `CrossClipTracker`."""
        return self.aspp(self.attention(x, attention=attention))


class Residual(nn.Module):
    """A residual branch. Official: norm(x + branch(x)). Near-online start: x + scale * branch(norm(x))."""

    def __init__(self, branch: nn.Module, config: CrossClipLayersConfig) -> None:
        super().__init__()
        self.branch = branch
        self.norm = nn.LayerNorm(config.dim)
        self.scale = nn.Parameter(torch.zeros(config.dim)) if config.start == "near_online" else None

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """options: of the branch."""
        if self.scale is None:
            return self.norm(x + self.branch(x, **options))
        return x + self.scale * self.branch(self.norm(x), **options)


class QueryTrajectories(nn.Module):
    """Trajectory attention (equations 5 and 6) with clips as frames and queries as positions.

    There are no position embeddings.
    """

    def __init__(self, config: CrossClipLayersConfig) -> None:
        super().__init__()
        self.attention = TrajectoryAttention(config.dim, config.heads, fused_qkv=True,
                                             dropout=config.attention_dropout)

    def forward(self, x: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        maps = None if attention is None else {}
        tokens = self.attention(rearrange(x, "b k n c -> b (k n) c"), frames=x.shape[1], attention=maps)
        if attention is not None:
            attention["time"] = maps["time"]
        return rearrange(tokens, "b (k n) c -> b k n c", k=x.shape[1])


class QuerySelfAttention(nn.Module):
    """Plain self-attention over the queries of all clips together, for the ablation."""

    def __init__(self, config: CrossClipLayersConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.dim, config.heads, dropout=config.attention_dropout,
                                               batch_first=True)

    def forward(self, x: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        tokens = rearrange(x, "b k n c -> b (k n) c")
        tokens, weights = self.attention(tokens, tokens, tokens, need_weights=attention is not None,
                                         average_attn_weights=False)
        if attention is not None:
            attention["time"] = reduce(weights, "b heads x (k n) -> b heads x k", "sum", k=x.shape[1])
        return rearrange(tokens, "b (k n) c -> b k n c", k=x.shape[1])


class QueryASPP(nn.Module):
    """Temporal ASPP along the clips, for every query by itself."""

    def __init__(self, config: CrossClipLayersConfig) -> None:
        super().__init__()
        self.aspp = TemporalASPP(config.dim, rates=config.aspp_rates, kernels=config.aspp_kernels,
                                 norm=config.aspp_norm, dropout=config.aspp_dropout, batch_norm=config.batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.aspp(rearrange(x, "b k n c -> (b n) c k")), "(b n) c k -> b k n c", b=x.shape[0])


def weigh_clips(weights: Tensor, logits: Tensor) -> Tensor:
    """One class distribution for the video: weights b k n 1 and logits b k n classes+1 -> b n classes+1, in float32.

    The softmax over clips runs within each video, so videos of a batch do not mix. A class head is linear, so weighing
    the clips' logits equals weighing their features as the paper does; with equal weights it is the near-online mean.
    """
    return (weights.float().softmax(1) * logits.float()).sum(1)
