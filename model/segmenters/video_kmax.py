"""Video-kMaX: backbone, optional within-clip tracking, kMaX pixel and query decoder.

Video-kMaX (arXiv 2304.04694, section 3) with MaXTron's within-clip tracking (arXiv 2311.18537v1, section 3.2) between
backbone and pixel decoder. With one frame per clip and no tracking it is kMaX-DeepLab (arXiv 2207.04044).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from model.backbone import Backbone, BackboneConfig
from model.contracts import ClipPrediction, QueryShapes
from model.layers.convolution import BatchNormConfig
from model.pixel_decoders.kmax import KMaxPixelDecoder, KMaxPixelDecoderConfig
from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig
from model.segmenters.frames import check_frames, normalise
from model.semantic_head import SemanticHead, SemanticHeadConfig
from model.within_clip import WithinClip, WithinClipConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoKMaxConfig:
    """A whole segmenter; the defaults of every part are official."""

    kind: Literal["video_kmax"] = "video_kmax"
    official_family: ClassVar[str] = "video_kmax"               # whose checkpoints `model.converters` reads
    num_classes: int                                            # without "no object"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    within_clip: WithinClipConfig | None = None                 # None: frames meet in the query decoder only
    pixel_decoder: KMaxPixelDecoderConfig = field(default_factory=KMaxPixelDecoderConfig)
    query_decoder: KMaxDecoderConfig = field(default_factory=KMaxDecoderConfig)
    semantic_head: SemanticHeadConfig | None = field(default_factory=SemanticHeadConfig)    # None: no such loss
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)    # of the decoders; the backbone has its own
    pixel_mean: float = 127.5                                   # of values 0 to 255, the same for r, g and b
    pixel_std: float = 127.5

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes}: a segmenter needs at least one class beside 'no object'")
        if self.pixel_std <= 0:
            raise ValueError(f"pixel_std={self.pixel_std} must be above 0; the official value is 127.5")

    @property
    def shapes(self) -> QueryShapes:
        """Sizes of what a cross-clip head reads."""
        return QueryShapes(num_classes=self.num_classes, num_queries=self.query_decoder.num_queries,
                           dim=self.query_decoder.dim, pixel_dim=self.query_decoder.embedding,
                           decoder="kMaX")

    def build(self) -> VideoKMax:
        """The segmenter, freshly initialised."""
        return VideoKMax(self)


class VideoKMax(nn.Module):
    """Clips -> classes, masks and queries. A `Segmenter`; see `model.segmenters`."""

    def __init__(self, config: VideoKMaxConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        channels = self.backbone.channels
        self.within_clip = None if config.within_clip is None else WithinClip(config.within_clip, channels=channels)
        self.pixel_decoder = KMaxPixelDecoder(config.pixel_decoder, channels=channels, batch_norm=config.batch_norm)
        self.query_decoder = KMaxDecoder(config.query_decoder, channels=self.pixel_decoder.out_channels,
                                         num_classes=config.num_classes, batch_norm=config.batch_norm)
        self.semantic_head = None if config.semantic_head is None else SemanticHead(
            config.semantic_head, channels=channels, num_classes=config.num_classes, batch_norm=config.batch_norm)

    def forward(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                attention: dict[str, Tensor] | None = None) -> ClipPrediction:
        """frames: b t 3 H W RGB, uint8 or 0 to 255. real_pixels: b t H W bool, false in padding; None: all real.

        Maps come at ceil(H / 4), ceil(W / 4). supervise: also every decoder layer and the semantic head, for losses.
        attention: a dict is filled with the attention maps of within-clip tracking, see `WithinClip`.
        """
        t = check_frames(frames, real_pixels)
        mean = [self.config.pixel_mean] * 3
        std = [self.config.pixel_std] * 3
        # 4 of (b t) c h w
        maps = self.backbone(normalise(frames, real_pixels, mean=mean, std=std))
        if self.within_clip is not None:
            maps = self.within_clip(maps, frames=t, attention=attention)
        prediction = self.query_decoder(self.pixel_decoder(maps), frames=t, supervise=supervise)
        semantic = None
        if supervise and self.semantic_head is not None:
            semantic = rearrange(self.semantic_head(maps), "(b t) classes h w -> b classes t h w", t=t)
        return replace(prediction, semantic_logits=semantic)

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """See `Segmenter`: b k n d with b k d p -> b k n p."""
        logits = mask_embeddings @ pixel_features
        return self.query_decoder.predictor.mask_norm(logits.flatten(0, 1)[:, None, None])[:, 0, 0].view_as(logits)
