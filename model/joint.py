"""A frame detector and VITA's head trained together: the main setting of arXiv 2206.04403, section 3 and appendix A.3.

The head reads the queries of the detector's last decoder layers at once, each layer as a video of its own, so that it
learns from several views of every clip.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from model.contracts import ClipPrediction, VideoPrediction, VideoQueries


class JointPrediction(NamedTuple):
    """What both say about b clips of t frames; l decoder layers of the detector make l b videos of them."""

    frames: ClipPrediction                  # of (b t) frames, supervised
    videos: tuple[VideoPrediction, ...]     # of (l b) videos, one prediction per layer of the head
    mask_logits: tuple[Tensor, ...]         # (l b) n t h w of each


class DetectorWithHead(nn.Module):
    """Clips -> frames by the detector, videos by the head; one module, so that workers exchange gradients of both."""

    def __init__(self, segmenter: nn.Module, head: nn.Module, *, layers: int) -> None:
        """layers: how many of the detector's last predictions the head reads; official: 3."""
        super().__init__()
        if not 1 <= layers <= segmenter.config.query_decoder.layers:
            raise ValueError(f"the head cannot read {layers} decoder layers of a detector that has "
                             f"{segmenter.config.query_decoder.layers}; official: the last 3")
        self.segmenter = segmenter
        self.head = head
        self.layers = layers

    def forward(self, frames: Tensor, real_pixels: Tensor | None = None) -> JointPrediction:
        """frames: b t 3 H W RGB, uint8 or 0 to 255. real_pixels: b t H W bool, false in padding; None: all real."""
        t = frames.shape[1]
        real_pixels = None if real_pixels is None else rearrange(real_pixels, "b t h w -> (b t) 1 h w")
        of_frames = self.segmenter(rearrange(frames, "b t c h w -> (b t) 1 c h w"), real_pixels, supervise=True)
        read = [*of_frames.auxiliary, of_frames][-self.layers:]
        queries, classes = (torch.cat([rearrange(getattr(layer, name), "(b t) n c -> b t n c", t=t) for layer in read])
                            for name in ("queries", "class_logits"))                              # (l b) t n c
        videos = self.head(VideoQueries(queries=queries, mask_embeddings=None, class_logits=classes))
        pixels = rearrange(of_frames.pixel_features, "(b t) c 1 h w -> b t c h w", t=t)
        return JointPrediction(of_frames, videos, tuple(self._masks(video, pixels) for video in videos))

    def _masks(self, video: VideoPrediction, pixels: Tensor) -> Tensor:
        """The layers of the detector share the pixels of their clip, which are not copied for them."""
        embeddings = rearrange(video.mask_embeddings, "(l b) t n d -> b t (l n) d", l=self.layers)
        return rearrange(self.head.mask_logits(embeddings, pixels), "b t (l n) h w -> (l b) n t h w", l=self.layers)
