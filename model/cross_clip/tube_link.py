"""MaXTron's cross-clip tracking on Tube-Link (arXiv 2311.18537 v1, section 3.3).

Behaviour follows TACJu/MaXTron, `MaXTron_Tube-Link/models/video/tube_link_vis/mask2former_video_cc_head.py`; its
activation projection is our `class_weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from einops import einsum
from torch import Tensor, nn

from model.contracts import VideoPrediction
from model.converters.rename import load_strict
from model.cross_clip.layers import CrossClipLayersConfig, CrossClipTracker, weigh_clips
from model.layers.mlp import mlp
from model.reads import Reads

# The parts of a masked-attention decoder from which a head starts, under the same names.
COPIED_HEADS = ("norm", "class_head", "mask_head")


@dataclass(frozen=True, kw_only=True)
class TubeLinkHeadConfig(CrossClipLayersConfig):
    """Sizes and switches. Defaults are the official heads on YouTube-VIS, except for `start`; OVIS R50 has 6 layers."""

    reads: ClassVar[Reads] = Reads(decoder="masked-attention")

    kind: Literal["tube_link"] = "tube_link"
    embedding: int = 256                        # d, channels of a mask embedding and of the pixel features
    attention_dropout: float = 0.1
    aspp_dropout: float = 0.1
    train_copied_norm: bool = False             # the norm in front of the copied heads; official: frozen

    def build(self) -> TubeLinkHead:
        """The head, freshly initialised."""
        return TubeLinkHead(self)


class TubeLinkHead(CrossClipTracker):
    """The head for a Tube-Link segmenter."""

    def __init__(self, config: TubeLinkHeadConfig) -> None:
        super().__init__(config, TubeLinkPredictor(config))
        self.predictor.norm.requires_grad_(config.train_copied_norm)

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Copy the norm and the two heads of the segmenter's query decoder. segmenter: its state dict.

        Raises ValueError when a head is missing, or has another shape because it belongs to another model.
        """
        anchor = "query_decoder.mask_head.0.weight"
        if anchor not in segmenter:
            raise ValueError(f"the segmenter's weights hold no {anchor}, but a Tube-Link head starts from the heads of "
                             "a masked-attention decoder; give it the state dict of a Tube-Link")
        for name in COPIED_HEADS:
            prefix = f"query_decoder.{name}."
            load_strict(self.predictor.get_submodule(name), {
                key.removeprefix(prefix): tensor for key, tensor in segmenter.items() if key.startswith(prefix)})


class TubeLinkPredictor(nn.Module):
    """The segmenter's norm and two heads, and one new scalar head for the weight of each clip."""

    def __init__(self, config: TubeLinkHeadConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, config.num_classes + 1)
        self.class_weight = nn.Linear(dim, 1)
        self.mask_head = mlp(dim, dim, dim, config.embedding)
        if config.start == "near_online":
            nn.init.zeros_(self.class_weight.weight)

    def forward(self, queries: Tensor) -> VideoPrediction:
        """queries: b k n c."""
        normed = self.norm(queries)
        return VideoPrediction(class_logits=weigh_clips(self.class_weight(normed), self.class_head(normed)),
                               mask_embeddings=self.mask_head(normed), queries=queries)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k d *pixels -> b k n *pixels."""
        logits = einsum(mask_embeddings, pixel_features.flatten(3), "b k n d, b k d p -> b k n p")
        return logits.unflatten(3, pixel_features.shape[3:])
