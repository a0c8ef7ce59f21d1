"""Tube-Link: backbone, Mask2Former's pixel decoder frame by frame, masked attention over the whole clip.

Tube-Link (arXiv 2303.12782, section 3.2), on its own or with MaXTron's within-clip tracking inside the pixel decoder
(arXiv 2311.18537v1, section 3.2). With one frame per clip it is Mask2Former (arXiv 2112.01527). With K-Net's query
decoder in place of masked attention it stands for Video K-Net (arXiv 2204.04656).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.backbone import Backbone, BackboneConfig
from model.contracts import ClipPrediction, LayerPrediction, QueryShapes
from model.layers.convolution import BatchNormConfig
from model.pixel_decoders.mask2former import (
    DeformableTrajectoryConfig,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderConfig,
)
from model.query_decoders.knet import KNetDecoderConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.frames import IMAGENET_MEAN, IMAGENET_STD, check_frames, check_std, normalise


def official_backbone() -> BackboneConfig:
    """ResNet-50 as the video instance models have it; the video panoptic ones train batch statistics."""
    return BackboneConfig(batch_norm=BatchNormConfig(eps=1e-5, momentum=0.1), frozen_statistics=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeLinkConfig:
    """A whole segmenter; the defaults of every part are official."""

    kind: Literal["tube_link"] = "tube_link"
    official_family: ClassVar[str] = "mmdet"                    # whose checkpoints `model.converters` reads
    num_classes: int                                            # without "no object"
    stuff_classes: tuple[int, ...] = ()     # class of each reserved query; the last queries are reserved, in this order
    backbone: BackboneConfig = field(default_factory=official_backbone)
    within_clip: DeformableTrajectoryConfig | None = None       # None: frames meet in the query decoder only
    pixel_decoder: Mask2FormerPixelDecoderConfig = field(default_factory=Mask2FormerPixelDecoderConfig)
    query_decoder: Mask2FormerDecoderConfig | KNetDecoderConfig = field(default_factory=Mask2FormerDecoderConfig)
    linking: TubeLinkingConfig | None = None    # learned linking of clips, for panoptic video; None: they are aligned
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN      # r, g, b of values 0 to 255
    pixel_std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes}: a segmenter needs at least one class beside 'no object'")
        stuff = set(self.stuff_classes)
        queries = self.query_decoder.num_queries
        if not stuff <= set(range(self.num_classes)) or len(stuff) < len(self.stuff_classes) or len(stuff) > queries:
            raise ValueError(f"stuff_classes={self.stuff_classes} must be some of the classes 0 to "
                             f"{self.num_classes - 1}, each once, and at most num_queries={queries}; () reserves none")
        if self.linking is not None and self.linking.dim != self.query_decoder.dim:
            raise ValueError(f"linking.dim={self.linking.dim} must be that of the queries, query_decoder.dim="
                             f"{self.query_decoder.dim}")
        check_std(self.pixel_std)

    @property
    def stuff_queries(self) -> int:
        """How many of the last queries are reserved."""
        return len(self.stuff_classes)

    @property
    def things_first(self) -> tuple[int, ...]:
        """Our classes in the order of the class rows of official panoptic models; () where that is our order."""
        things = [index for index in range(self.num_classes) if index not in self.stuff_classes]
        order = (*things, *self.stuff_classes)
        return order if order != tuple(range(self.num_classes)) else ()

    @property
    def shapes(self) -> QueryShapes:
        """Sizes of what a cross-clip head reads."""
        return QueryShapes(num_classes=self.num_classes, num_queries=self.query_decoder.num_queries,
                           dim=self.query_decoder.dim, pixel_dim=self.pixel_decoder.embedding,
                           decoder=self.query_decoder.family)

    def build(self) -> TubeLink:
        """The segmenter, freshly initialised."""
        return TubeLink(self)


class TubeLink(nn.Module):
    """Clips -> classes, masks and queries. A `Segmenter`; see `model.segmenters`."""

    def __init__(self, config: TubeLinkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.pixel_decoder = Mask2FormerPixelDecoder(config.pixel_decoder, channels=self.backbone.channels,
                                                     within_clip=config.within_clip)
        self.query_decoder = config.query_decoder.build(channels=config.pixel_decoder.dim,
                                                        embedding=config.pixel_decoder.embedding,
                                                        num_classes=config.num_classes)
        # read by linking losses and by the tracker, not here: it compares clips, and `forward` sees one at a time
        self.linking = None if config.linking is None else TubeLinking(config.linking,
                                                                       channels=config.pixel_decoder.embedding)

    def forward(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                attention: dict[str, Tensor] | None = None) -> ClipPrediction:
        """frames: b t 3 H W RGB, uint8 or 0 to 255. real_pixels: b t H W bool, false in padding; None: all real.

        Maps come at ceil(H / 4), ceil(W / 4). Clips are aligned by the raw queries.
        supervise: also what the heads say before the first and after every layer but the last.
        attention: a dict is filled with the attention maps of within-clip tracking, see `track_levels`.
        """
        t = check_frames(frames, real_pixels)
        frames = normalise(frames, real_pixels, mean=self.config.pixel_mean, std=self.config.pixel_std)
        pixels = self.pixel_decoder(self.backbone(frames), frames=t, attention=attention)
        pixel_features = rearrange(pixels.pixel_features, "(b t) d h w -> b d t h w", t=t).contiguous()
        *earlier, last = self.query_decoder(pixels.maps, pixel_features, supervise=supervise)
        return ClipPrediction(
            class_logits=last.class_logits, mask_logits=last.mask_logits, queries=last.queries,
            mask_embeddings=last.mask_embeddings, alignment=last.queries, pixel_features=pixel_features,
            auxiliary=tuple(LayerPrediction(class_logits=layer.class_logits, mask_logits=layer.mask_logits)
                            for layer in earlier))

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """See `Segmenter`: b k n d with b k d p -> b k n p."""
        return mask_embeddings @ pixel_features
