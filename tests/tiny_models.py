"""Networks small enough to train in a test: the real classes with small numbers."""

from __future__ import annotations

from dataclasses import replace

from model.backbone import BackboneConfig
from model.layers.convolution import BatchNormConfig
from model.pixel_decoders.kmax import KMaxPixelDecoderConfig
from model.pixel_decoders.mask2former import DeformableTrajectoryConfig, Mask2FormerPixelDecoderConfig
from model.query_decoders.kmax import KMaxDecoderConfig
from model.query_decoders.knet import KNetDecoderConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.semantic_head import SemanticHeadConfig
from model.within_clip import WithinClipConfig

SHORT_RUN = BatchNormConfig(momentum=0.1)    # the official 0.01 lags behind in a run of hundreds of steps
TINY_WITHIN_CLIP = WithinClipConfig(dim=64, heads=4, ffn=128, blocks=1, strides=(16, 32))
TINY_DEFORMABLE_TRAJECTORIES = DeformableTrajectoryConfig(heads=4, ffn=128)
TINY_KNET = KNetDecoderConfig(num_queries=16, dim=64, heads=4, ffn=128)
TINY_SEMANTIC_HEAD = SemanticHeadConfig(width=16, fine_widths=(16, 8), rates=(1,), dropout=0.0)


def tiny_video_kmax(num_classes: int = 6, **changes) -> VideoKMaxConfig:
    """About 0.7 million parameters, for frames of about a hundred pixels. `changes` replace fields of the config."""
    config = VideoKMaxConfig(
        num_classes=num_classes,
        backbone=BackboneConfig(name="test_resnet", batch_norm=SHORT_RUN),
        pixel_decoder=KMaxPixelDecoderConfig(blocks=(0, 0, 0, 1), widths=(64, 64, 64, 16),
                                             kinds=("bottleneck",) * 4),
        query_decoder=KMaxDecoderConfig(layers=(0, 2, 2), num_queries=16, dim=64, embedding=64, ffn=256, drop_path=0.0,
                                        pixel_depthwise=None, mask_norm_scale=1.0),
        semantic_head=None,
        batch_norm=SHORT_RUN,
    )
    return replace(config, **changes)


def tiny_tube_link(num_classes: int = 6, **changes) -> TubeLinkConfig:
    """About 0.7 million parameters, for frames of about a hundred pixels. `changes` replace fields of the config."""
    config = TubeLinkConfig(
        num_classes=num_classes,
        backbone=BackboneConfig(name="test_resnet", batch_norm=SHORT_RUN),
        pixel_decoder=Mask2FormerPixelDecoderConfig(dim=64, embedding=64, heads=4, ffn=128, layers=2),
        query_decoder=Mask2FormerDecoderConfig(num_queries=16, dim=64, heads=4, ffn=128, layers=3),
    )
    return replace(config, **changes)


def tiny_mask2former(num_classes: int = 6, **changes) -> Mask2FormerConfig:
    """The frame detector with the same parts. `changes` replace fields of the config."""
    like = tiny_tube_link()
    config = Mask2FormerConfig(num_classes=num_classes, backbone=like.backbone, pixel_decoder=like.pixel_decoder,
                               query_decoder=replace(like.query_decoder, positions="frame"))
    return replace(config, **changes)
