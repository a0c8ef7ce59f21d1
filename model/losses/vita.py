"""VITA's similarity loss: queries that answer for the same object look alike (arXiv 2206.04403, section 3.3).

Frame queries and video queries that were matched to an object are compared within their video, all with all. Facts
follow sukjunhwang/VITA, `loss_fg_sim` in `vita/modeling/vita_criterion.py`. The class and mask losses beside it are
Mask2Former's over whole volumes: on clips those of `Mask2FormerCriterion` with `frames="apart"`, in stage two those of
`CrossClipCriterion`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.contracts import PixelEvidence, VideoPrediction, VideoQueries
from model.layers.convolution import dot_pixels
from model.losses.binary_masks import MaskLossConfig, MatchingCosts, match_masks
from model.losses.targets import NO_TUBE, PixelTargets, each_clip

EPSILON = 1e-6      # pairs, so that a batch without any has a loss of 0


@dataclass(frozen=True, kw_only=True)
class VitaLossConfig(MaskLossConfig):
    """Stage two of VITA. Defaults: every released model."""

    similarity_weight: float = 0.5      # of the last decoder layer's similarity loss; 0: none
    # What it costs a frame query to answer for a tube of its frame. Without class_weight the frame detector may know
    # other classes than the head, as one that was never trained on the videos does.
    frame_costs: MatchingCosts = field(default_factory=MatchingCosts)

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {**super().weights, "similarity": self.similarity_weight}


def video_similarity_loss(prediction: VideoPrediction, tubes: Tensor, *, queries: VideoQueries,
                          evidence: PixelEvidence, targets: PixelTargets, costs: MatchingCosts) -> Tensor:
    """The loss of one layer, from what the query cache holds. tubes: b n, of video queries. targets: of `evidence`."""
    in_frames = frame_tubes(queries, evidence, targets, costs=costs)
    return similarity_loss(*compared(prediction, in_frames, tubes))


def compared(prediction: VideoPrediction, in_frames: Tensor, tubes: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings b x c, tubes b x: of frame queries (in_frames: b k n) and, if they are compared, of video queries."""
    if prediction.clip_similarity is None:
        raise ValueError("the head makes no embeddings to compare; set head.similarity='all' or similarity_weight=0")
    embeddings = [rearrange(prediction.clip_similarity, "b k n c -> b (k n) c")]
    answers = [rearrange(in_frames, "b k n -> b (k n)")]
    if prediction.video_similarity is not None:
        embeddings = [*embeddings, prediction.video_similarity]
        answers = [*answers, tubes]
    return torch.cat(embeddings, 1), torch.cat(answers, 1)


def similarity_loss(embeddings: Tensor, tubes: Tensor) -> Tensor:
    """embeddings b x c, tubes b x (NO_TUBE: left out) -> mean binary cross-entropy over all pairs within each video.

    The logit of a pair, which may be a query with itself, is a plain dot product: neither norm nor temperature.
    """
    total = embeddings.sum() * 0
    pairs = 0
    for own, answers in zip(embeddings.float(), tubes):
        matched = answers != NO_TUBE
        own = own[matched]
        answers = answers[matched]
        same = (answers[:, None] == answers).float()
        total = total + F.binary_cross_entropy_with_logits(own @ own.T, same, reduction="sum")
        pairs += len(answers) ** 2
    return total / (pairs + EPSILON)


@torch.no_grad()
def frame_tubes(queries: VideoQueries, evidence: PixelEvidence, targets: PixelTargets, *,
                costs: MatchingCosts) -> Tensor:
    """The tube each frame query answers for, b k n, by the detector's own classes and masks on the stored pixels.

    A tube without a pixel in a frame is none of its tubes. The detector matches its queries in the same way when it
    is trained, at random points of each frame.
    """
    frames = evidence.weights.shape[1]
    pixels = rearrange(evidence.pixel_features, "b k p d -> b k d p")
    masks, classes = (rearrange(part, "b k n x -> (b k) n x")
                      for part in (dot_pixels(queries.mask_embeddings, pixels), queries.class_logits))
    tubes = match_masks(classes, masks, each_clip(targets, evidence), costs=costs)
    return rearrange(tubes, "(b k) n -> b k n", k=frames)
