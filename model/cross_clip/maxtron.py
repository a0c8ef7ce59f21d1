"""MaXTron's cross-clip tracking on Video-kMaX (arXiv 2311.18537 v1, section 3.3).

Behaviour follows TACJu/MaXTron, class CrossClipTrackingModule of MaXTron_Video-kMaX; its activation head is our
`class_weight`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from model.contracts import VideoPrediction
from model.converters.rename import load_strict
from model.cross_clip.layers import CrossClipLayersConfig, CrossClipTracker, weigh_clips
from model.layers.convolution import ConvBN
from model.reads import Reads

HEAD_STD = 0.01     # of the class head and the clip weights, so that the first predictions are almost uniform

# our head <- its name in the segmenter, relative to the module that holds `class_projection`
COPIED_HEADS = {
    "class_projection": "class_projection",
    "mask_projection": "mask_projection",
    "class_head": "predictor.class_head",
    "mask_head": "predictor.mask_head",
    "mask_norm": "predictor.mask_norm",
}


@dataclass(frozen=True, kw_only=True)
class MaXTronHeadConfig(CrossClipLayersConfig):
    """Sizes and switches. Defaults are the official R50 head on VIPSeg, except for `start` and `train_norms`."""

    reads: ClassVar[Reads] = Reads(decoder="kMaX")

    kind: Literal["maxtron"] = "maxtron"
    mask_norm_scale: float = 0.1                # first scale of the batch norm on mask logits
    void_prior: float = 0.9                     # share of queries expected to be "no object"
    train_norms: bool = False                   # true: copied batch norms use batch statistics (official)
    official_compat: bool = False               # all videos of a batch share their classes, as in the public code

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.void_prior < 1:
            raise ValueError(f"void_prior={self.void_prior} must lie between 0 and 1; the official value is 0.9")

    def build(self) -> MaXTronHead:
        """The head, freshly initialised."""
        return MaXTronHead(self)


class MaXTronHead(CrossClipTracker):
    """The head for a Video-kMaX segmenter."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__(config, VideoPredictor(config))

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Copy the five heads on queries from the segmenter's final predictor. segmenter: its state dict.

        Raises ValueError when a head is missing, or has another shape because it belongs to another model.
        """
        anchor = "class_projection.conv.weight"
        parents = [name.removesuffix(anchor) for name in segmenter if name.endswith(anchor)]
        if len(parents) != 1:
            raise ValueError(f"the segmenter's weights hold {len(parents)} modules 'class_projection', but a MaXTron "
                             "head starts from the one of a kMaX decoder; give it the state dict of a Video-kMaX")
        for ours, theirs in COPIED_HEADS.items():
            prefix = f"{parents[0]}{theirs}."
            load_strict(self.predictor.get_submodule(ours), {
                name.removeprefix(prefix): tensor for name, tensor in segmenter.items() if name.startswith(prefix)})

    def train(self, mode: bool = True) -> MaXTronHead:
        """Set the mode as usual, but copied batch norms keep the segmenter's statistics unless `train_norms` is set.

        Stage two sees few videos at a time, and their statistics would change the heads before they learn anything.
        """
        super().train(mode)
        if mode and not self.config.train_norms:
            for module in self.predictor.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class VideoPredictor(nn.Module):
    """The segmenter's five heads on queries, and one new scalar head for the weight of each clip."""

    def __init__(self, config: MaXTronHeadConfig) -> None:
        super().__init__()
        self.official_compat = config.official_compat
        dim = config.dim
        classes = config.num_classes
        norms = config.batch_norm
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
        """queries: b k n c."""
        clips = rearrange(queries, "b k n c -> (b k) c n")
        features = self.class_projection(clips)
        weights, logits = (rearrange(head(features), "(b k) c n -> b k n c", b=len(queries))
                           for head in (self.class_weight, self.class_head))
        if self.official_compat:    # clips of all videos compete in one softmax: right for one video at a time only
            weights, logits = (rearrange(part, "b k n c -> 1 (b k) n c") for part in (weights, logits))
        class_logits = weigh_clips(weights, logits).expand(len(queries), -1, -1) + self.prior     # b n classes+1
        embeddings = rearrange(self.mask_head(self.mask_projection(clips)), "(b k) d n -> b k n d", b=len(queries))
        return VideoPrediction(class_logits=class_logits, mask_embeddings=embeddings, queries=queries)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k d *pixels -> b k n *pixels."""
        logits = einsum(mask_embeddings, pixel_features.flatten(3), "b k n d, b k d p -> b k n p")
        logits = self.mask_norm(rearrange(logits, "b k n p -> (b k) 1 n p"))
        return logits.reshape(*mask_embeddings.shape[:3], *pixel_features.shape[3:])
