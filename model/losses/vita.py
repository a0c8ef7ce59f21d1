"""VITA's stage-two losses, with a similarity loss by which queries of the same object look alike.

arXiv 2206.04403, section 3.3. Frame queries and video queries that are matched to an object are compared within their
video, all with all. Facts follow sukjunhwang/VITA, `loss_fg_sim` in `vita/modeling/vita_criterion.py`. The class and
mask losses beside it are Mask2Former's over whole volumes: on clips those of `Mask2FormerCriterion` with
`frames="apart"`, in stage two those of `model.losses.cross_clip`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.contracts import PixelEvidence, VideoPrediction, VideoQueries
from model.layers.convolution import dot_pixels
from model.losses.binary_masks import MatchingCosts, match_masks
from model.losses.cross_clip import CrossClipCriterion, EvidenceLossConfig, VideoLayers, match_layers, own_match_losses
from model.losses.targets import NO_TUBE, PixelTargets, each_clip

EPSILON = 1e-6      # pairs, so that a batch without any has a loss of 0


@dataclass(frozen=True, kw_only=True)
class VitaLossConfig(EvidenceLossConfig):
    """Stage two of VITA. Defaults: every released model, except for `points`.

    Where the head trains along with its detector, points are drawn as the detector's losses say.
    """

    kind: Literal["vita"] = "vita"
    points_in_each_clip: ClassVar[bool] = True      # a clip is one frame
    similarity_weight: float = 0.5      # of the last decoder layer's similarity loss; 0: none
    # Costs of assigning a frame query to a tube of its frame. Without class_weight the frame detector may have other
    # classes than the head, like a detector that was never trained on the videos.
    frame_costs: MatchingCosts = field(default_factory=MatchingCosts)

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {**super().weights, "similarity": self.similarity_weight}

    def build(self) -> CrossClipCriterion:
        """The criterion with these settings."""
        return CrossClipCriterion(self)

    def layer_losses(self, layers: VideoLayers) -> list[dict[str, Tensor]]:
        """See `VideoLosses`. The last layer has the loss `similarity` too, a mean over pairs of queries."""
        tubes = match_layers(layers, config=self)
        losses = own_match_losses(layers, tubes, config=self)
        if self.similarity_weight:
            in_frames = frame_tubes(layers.queries, layers.evidence, layers.targets, costs=self.frame_costs)
            losses[-1]["similarity"] = similarity_loss(
                *queries_to_compare(layers.predictions[-1], in_frames, tubes[-1]))
        return losses


def queries_to_compare(prediction: VideoPrediction, in_frames: Tensor, tubes: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings b x c and tubes b x of all queries that the similarity loss compares.

    in_frames: tubes b k n of frame queries. tubes: b n of video queries, which are left out where the head gives no
    embeddings of them.
    """
    if prediction.clip_similarity is None:
        raise ValueError("the head gives no embeddings to compare; set head.similarity='all' or similarity_weight=0")
    embeddings = [rearrange(prediction.clip_similarity, "b k n c -> b (k n) c")]
    matched = [rearrange(in_frames, "b k n -> b (k n)")]
    if prediction.video_similarity is not None:
        embeddings = [*embeddings, prediction.video_similarity]
        matched = [*matched, tubes]
    return torch.cat(embeddings, 1), torch.cat(matched, 1)


def similarity_loss(embeddings: Tensor, tubes: Tensor) -> Tensor:
    """embeddings b x c, tubes b x (NO_TUBE: left out) -> mean binary cross-entropy over all pairs within each video.

    The logit of a pair, which may be a query with itself, is a plain dot product: neither norm nor temperature.
    """
    total = embeddings.sum() * 0
    pairs = 0
    for vectors, tube_of_query in zip(embeddings.float(), tubes):
        is_matched = tube_of_query != NO_TUBE
        vectors = vectors[is_matched]
        labels = tube_of_query[is_matched]
        same = (labels[:, None] == labels).float()
        total = total + F.binary_cross_entropy_with_logits(vectors @ vectors.T, same, reduction="sum")
        pairs += len(labels) ** 2
    return total / (pairs + EPSILON)


@torch.no_grad()
def frame_tubes(queries: VideoQueries, evidence: PixelEvidence, targets: PixelTargets, *,
                costs: MatchingCosts) -> Tensor:
    """The tube of each frame query, b k n, matched by the detector's own classes and masks on the stored pixels.

    A tube without a pixel in a frame is not matched there. The detector matches its queries in the same way when it is
    trained, at random points of each frame.
    """
    frames = evidence.weights.shape[1]
    pixels = rearrange(evidence.pixel_features, "b k p d -> b k d p")
    masks, classes = (rearrange(part, "b k n x -> (b k) n x")
                      for part in (dot_pixels(queries.mask_embeddings, pixels), queries.class_logits))
    tubes = match_masks(classes, masks, each_clip(targets, evidence), costs=costs)
    return rearrange(tubes, "(b k) n -> b k n", k=frames)
