"""MaXTron's cross-clip tracking head (arXiv 2311.18537 v1, section 3.3; TACJu/MaXTron, CrossClipTrackingModule).

Aligned queries of all clips pass through layers of trajectory attention (who is this query in every clip?) and temporal
ASPP (what happened to it just before and after?). Shared heads then give one class per query for the whole video and
one mask embedding per query and clip. What the public code calls the activation head is our `class_weight`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from model.contracts import VideoPrediction, VideoQueries
from model.converters.rename import load_strict
from model.layers.convolution import BatchNormConfig, ConvBN
from model.layers.temporal_aspp import TemporalASPP
from model.layers.trajectory_attention import TrajectoryAttention

HEAD_STD = 0.01     # of the class head and the clip weights, so that training starts undecided

# Our head <- where the segmenter keeps it, beside its `class_projection`
COPIED_HEADS = {
    "class_projection": "class_projection",
    "mask_projection": "mask_projection",
    "class_head": "predictor.class_head",
    "mask_head": "predictor.mask_head",
    "mask_norm": "predictor.mask_norm",
}


@dataclass(frozen=True, kw_only=True)
class MaXTronHeadConfig:
    """Sizes and switches. Defaults are the official R50 head on VIPSeg, except for `start` and `train_norms`."""

    num_classes: int                            # without "no object"
    dim: int = 256                              # c, channels of a query
    embedding: int = 128                        # d, channels of a mask embedding
    heads: int = 8
    layers: int = 4                             # the paper's N_c is 6; every released config has 4
    attention: Literal["trajectory", "self"] = "trajectory"     # "self": the ablation of table 6
    aspp: bool = True                           # False: the ablation without temporal ASPP
    aspp_rates: tuple[int, ...] = (1, 2, 3)
    aspp_kernels: tuple[int, ...] = (3, 3, 3)
    aspp_norm: Literal["ln", "bn"] = "ln"
    attention_dropout: float = 0.0
    aspp_dropout: float = 0.0
    # "near_online": new branches are scaled by 0 and clips weigh the same, so training starts at the near-online result
    # itself. "official": a norm after every residual, which the copied heads have never seen (it starts far below).
    start: Literal["near_online", "official"] = "near_online"
    mask_norm_scale: float = 0.1                # first scale of the batch norm on mask logits
    void_prior: float = 0.9                     # share of queries expected to be "no object"
    train_norms: bool = False                   # True: copied batch norms take statistics of the batch (official)
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)

    def __post_init__(self) -> None:
        if min(self.num_classes, self.dim, self.embedding, self.heads, self.layers) < 1:
            raise ValueError(f"a cross-clip head needs positive num_classes, dim, embedding, heads and layers; got "
                             f"{self.num_classes}, {self.dim}, {self.embedding}, {self.heads}, {self.layers}")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} does not split into heads={self.heads}; choose a divisor of dim")
        if len(self.aspp_rates) != len(self.aspp_kernels) or any(kernel % 2 == 0 for kernel in self.aspp_kernels):
            raise ValueError(f"aspp_rates={self.aspp_rates} and aspp_kernels={self.aspp_kernels} must be equally many "
                             "and kernels odd; the official ones are (1, 2, 3) and (3, 3, 3)")
        if not 0 < self.void_prior < 1:
            raise ValueError(f"void_prior={self.void_prior} must lie between 0 and 1; the official value is 0.9")
        for name, choices in (("attention", ("trajectory", "self")), ("start", ("near_online", "official"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} does not exist; choose one of {choices}")


class MaXTronHead(nn.Module):
    """Aligned queries of all clips -> classes and mask embeddings of the whole video."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(CrossClipLayer(config) for _ in range(config.layers))
        self.predictor = VideoPredictor(config)

    def forward(self, queries: VideoQueries) -> tuple[VideoPrediction, ...]:
        """One prediction per layer, from shared heads and all supervised alike; the last is the answer."""
        x, predictions = queries.queries, []                                            # b k n c
        for layer in self.layers:
            x = layer(x)
            predictions.append(self.predictor(x))
        return tuple(predictions)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k d *pixels (the segmenter's) -> b k n *pixels."""
        return self.predictor.mask_logits(mask_embeddings, pixel_features)

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Copy the five heads on queries from the segmenter's final predictor. segmenter: its state dict.

        Raises ValueError when a head is not there, or has another shape and so belongs to another model.
        """
        anchor = "class_projection.conv.weight"
        places = [name.removesuffix(anchor) for name in segmenter if name.endswith(anchor)]
        if len(places) != 1:
            raise ValueError(f"the segmenter's weights hold {len(places)} modules 'class_projection', but a MaXTron "
                             "head starts from the one of a kMaX decoder; give it the state dict of a Video-kMaX")
        for ours, theirs in COPIED_HEADS.items():
            prefix = f"{places[0]}{theirs}."
            load_strict(self.predictor.get_submodule(ours), {
                name.removeprefix(prefix): tensor for name, tensor in segmenter.items() if name.startswith(prefix)})

    def train(self, mode: bool = True) -> MaXTronHead:
        """As usual, but the copied batch norms keep the segmenter's statistics unless `train_norms` says otherwise.

        Stage two sees few videos at a time, and their statistics would move the heads before anything is learnt.
        """
        super().train(mode)
        if mode and not self.config.train_norms:
            for module in self.predictor.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class CrossClipLayer(nn.Module):
    """Trajectory attention over all queries of the video, then temporal ASPP along each; no feed-forward block."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        attention = QueryTrajectories if config.attention == "trajectory" else QuerySelfAttention
        self.attention = Residual(attention(config), config)
        self.aspp = Residual(QueryASPP(config), config) if config.aspp else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: b k n c -> b k n c."""
        return self.aspp(self.attention(x))


class Residual(nn.Module):
    """A branch beside the identity. Official: norm(x + branch(x)). Near-online start: x + scale * branch(norm(x))."""

    def __init__(self, branch: nn.Module, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.branch, self.norm = branch, nn.LayerNorm(config.dim)
        self.scale = nn.Parameter(torch.zeros(config.dim)) if config.start == "near_online" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return self.norm(x + self.branch(x))
        return x + self.scale * self.branch(self.norm(x))


class QueryTrajectories(nn.Module):
    """Trajectory attention (equations 5 and 6) with clips for frames and queries for positions; nothing says which."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.attention = TrajectoryAttention(config.dim, config.heads, fused_qkv=True,
                                             dropout=config.attention_dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attention(rearrange(x, "b k n c -> b (k n) c"), frames=x.shape[1])
        return rearrange(tokens, "b (k n) c -> b k n c", k=x.shape[1])


class QuerySelfAttention(nn.Module):
    """Plain self-attention over the queries of all clips together, for the ablation."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.dim, config.heads, dropout=config.attention_dropout,
                                               batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(x, "b k n c -> b (k n) c")
        tokens, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return rearrange(tokens, "b (k n) c -> b k n c", k=x.shape[1])


class QueryASPP(nn.Module):
    """Temporal ASPP along the clips of every query by itself."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.aspp = TemporalASPP(config.dim, rates=config.aspp_rates, kernels=config.aspp_kernels,
                                 norm=config.aspp_norm, dropout=config.aspp_dropout, batch_norm=config.batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.aspp(rearrange(x, "b k n c -> (b n) c k")), "(b n) c k -> b k n c", b=x.shape[0])


class VideoPredictor(nn.Module):
    """The segmenter's five heads on queries, and one new scalar head that says how much a clip's word counts."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        dim, classes, norms = config.dim, config.num_classes, config.batch_norm
        self.class_projection = ConvBN(dim, dim, dims=1, activation="gelu", batch_norm=norms)
        self.mask_projection = ConvBN(dim, dim, dims=1, activation="gelu", batch_norm=norms)
        self.mask_head = ConvBN(dim, config.embedding, dims=1, batch_norm=norms)
        self.class_head, self.class_weight = (
            ConvBN(dim, channels, dims=1, bias=True, norm=None, init=("truncated", HEAD_STD))
            for channels in (classes + 1, 1))
        if config.start == "near_online":
            nn.init.zeros_(self.class_weight.conv.weight)
        self.mask_norm = nn.BatchNorm2d(1, eps=norms.eps, momentum=norms.momentum)
        nn.init.constant_(self.mask_norm.weight, config.mask_norm_scale)
        prior = torch.zeros(classes + 1)
        prior[-1] = math.log(classes * config.void_prior / (1 - config.void_prior))
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, queries: Tensor) -> VideoPrediction:
        """queries: b k n c. The softmax over clips runs within each video, so videos of a batch do not mix.

        The class head is linear, so weighing the clips' logits equals weighing their features as the paper does; with
        equal weights it is the near-online mean of logits.
        """
        clips = rearrange(queries, "b k n c -> (b k) c n")
        features = self.class_projection(clips)
        weights, logits = (rearrange(head(features), "(b k) c n -> b k n c", b=len(queries))
                           for head in (self.class_weight, self.class_head))
        class_logits = (weights.float().softmax(1) * logits.float()).sum(1) + self.prior          # b n classes+1
        embeddings = rearrange(self.mask_head(self.mask_projection(clips)), "(b k) d n -> b k n d", b=len(queries))
        return VideoPrediction(class_logits=class_logits, mask_embeddings=embeddings, queries=queries)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k d *pixels -> b k n *pixels."""
        logits = einsum(mask_embeddings, pixel_features.flatten(3), "b k n d, b k d p -> b k n p")
        logits = self.mask_norm(rearrange(logits, "b k n p -> (b k) 1 n p"))
        return logits.reshape(*mask_embeddings.shape[:3], *pixel_features.shape[3:])
