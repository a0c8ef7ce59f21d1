"""Mask2Former on single frames: the detector below VITA (arXiv 2112.01527; as VITA uses it, arXiv 2206.04403, 3.1).

The same parts under the same names as in Tube-Link, so that weights of Mask2Former on COCO start both. What differs is
what it says to stage two: normalised queries, and pixels before the detector's own last convolution, because VITA has
a convolution of its own there (sukjunhwang/VITA, `vita_mask2former_transformer_decoder.py` and `vita_model.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from model.backbone import Backbone, BackboneConfig
from model.contracts import ClipPrediction, LayerPrediction, QueryShapes
from model.layers.convolution import before_pointwise, dot_pixels
from model.pixel_decoders.mask2former import Mask2FormerPixelDecoder, Mask2FormerPixelDecoderConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.frames import IMAGENET_MEAN, IMAGENET_STD, check_frames, check_std, normalise
from model.segmenters.tube_link import official_backbone


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig:
    """A whole frame detector; the defaults of every part are official."""

    kind: Literal["mask2former"] = "mask2former"
    official_family: ClassVar[str] = "detectron2"               # whose checkpoints `model.converters` reads
    num_classes: int                                            # without "no object"
    backbone: BackboneConfig = field(default_factory=official_backbone)
    pixel_decoder: Mask2FormerPixelDecoderConfig = field(default_factory=Mask2FormerPixelDecoderConfig)
    query_decoder: Mask2FormerDecoderConfig = field(default_factory=lambda: Mask2FormerDecoderConfig(positions="frame"))
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN      # r, g, b of values 0 to 255
    pixel_std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes}: a segmenter needs at least one class beside 'no object'")
        if self.query_decoder.positions != "frame":
            raise ValueError(f"query_decoder.positions={self.query_decoder.positions!r}: a frame has no place in a "
                             "clip; set 'frame'")
        check_std(self.pixel_std)

    @property
    def shapes(self) -> QueryShapes:
        """Sizes of what a cross-clip head reads."""
        return QueryShapes(num_classes=self.num_classes, num_queries=self.query_decoder.num_queries,
                           dim=self.query_decoder.dim, pixel_dim=self.pixel_decoder.dim, aligned=False,
                           decoder="masked-attention")

    def build(self) -> Mask2Former:
        """The segmenter, freshly initialised."""
        return Mask2Former(self)


class Mask2Former(nn.Module):
    """Clips of one frame -> classes, masks and queries. A `Segmenter`; see `model.segmenters`."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.pixel_decoder = Mask2FormerPixelDecoder(config.pixel_decoder, channels=self.backbone.channels)
        self.query_decoder = config.query_decoder.build(channels=config.pixel_decoder.dim,
                                                        embedding=config.pixel_decoder.embedding,
                                                        num_classes=config.num_classes)

    def forward(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                attention: dict[str, Tensor] | None = None) -> ClipPrediction:
        """frames: b 1 3 H W RGB, uint8 or 0 to 255. real_pixels: b 1 H W bool, false in padding; None: all real.

        Maps come at ceil(H / 4), ceil(W / 4). `queries` are those VITA reads, behind the decoder's norm, and
        `pixel_features` what both the detector and VITA make mask features of. `mask_embeddings` (b n c+1) give the
        detector's own masks on them by `dot_pixels`. Raises ValueError for clips of more than one frame.
        supervise: also what the heads say before the first and after every layer but the last. attention: stays
        empty, because a single frame has no tracking.
        """
        if (t := check_frames(frames, real_pixels)) != 1:
            raise ValueError(f"a clip of {t} frames: a frame detector takes clips of one; set "
                             "stage_one.input.clip_frames=1 and inference.clip_frames=1")
        frames = normalise(frames, real_pixels, mean=self.config.pixel_mean, std=self.config.pixel_std)
        pixels = self.pixel_decoder(self.backbone(frames), frames=1)
        mask_features = rearrange(pixels.pixel_features, "b d h w -> b d 1 h w")
        *earlier, last = self.query_decoder(pixels.maps, mask_features, supervise=supervise)
        queries = self.query_decoder.norm(last.queries)
        return ClipPrediction(
            class_logits=last.class_logits, mask_logits=last.mask_logits, queries=queries,
            mask_embeddings=before_pointwise(self.query_decoder.mask_head(queries), self.pixel_decoder.pixel_out.conv),
            pixel_features=rearrange(pixels.maps[-1], "b c h w -> b c 1 h w").contiguous(),
            auxiliary=tuple(LayerPrediction(class_logits=layer.class_logits, mask_logits=layer.mask_logits,
                                            queries=self.query_decoder.norm(layer.queries)) for layer in earlier))

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """See `Segmenter`: b k n d with b k d p -> b k n p."""
        return dot_pixels(mask_embeddings, pixel_features)
