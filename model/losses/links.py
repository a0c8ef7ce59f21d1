"""The loss of learned links, and their labels from the stored pixels of the query cache.

For every query that shows a tube and every other clip of its video: which query of that clip shows the same tube, or
none. It is a cross-entropy over the queries of the clip and "absent", whose logit is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from model.association.links import Links
from model.contracts import PixelEvidence, VideoQueries
from model.losses.matching import match_queries
from model.losses.targets import NO_TUBE, each_clip, video_targets

LEAST_SIMILAR = 0.1     # dice x class probability from which a query shows the tube that it is matched to


@dataclass(frozen=True, kw_only=True)
class LinkLossConfig:
    """Weights of the queries whose tube is looked for."""

    thing_weight: float = 4.0
    stuff_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.thing_weight, self.stuff_weight) < 0 or not self.thing_weight + self.stuff_weight:
            raise ValueError(f"thing_weight={self.thing_weight}, stuff_weight={self.stuff_weight}: neither may be "
                             "negative, and one must be above 0")


@torch.no_grad()
def shown_tubes(queries: VideoQueries, mask_logits: Tensor, evidence: PixelEvidence, *, compete: bool) -> Tensor:
    """The tube that each query shows, b k n, NO_TUBE for none: each clip is matched by itself.

    mask_logits: b k n p of the segmenter on the pixels of the evidence. compete: masks are a softmax over queries;
    where each is a sigmoid of its own, pixels without a tube count as background.
    """
    clips = mask_logits.shape[1]
    targets = each_clip(video_targets(evidence), evidence)
    matches = match_queries(rearrange(queries.class_logits, "b k n c -> (b k) n c"),
                            rearrange(mask_logits, "b k n p -> (b k) n p"),
                            targets if compete else targets.counting_void(), compete=compete)
    similarity = matches.of_query(matches.mask_similarity * matches.class_similarity)
    tubes = torch.where(similarity > LEAST_SIMILAR, matches.tube_of_query, NO_TUBE)
    return rearrange(tubes, "(b k) n -> b k n", k=clips)


def link_loss(links: Links, tubes: Tensor, *, weights: Tensor, labelled: Tensor) -> Tensor:
    """The mean over all pairs of a query that shows a tube and another clip; 0 where there is no pair.

    Of two passes, each has its loss, and the result is their sum.
    tubes: b k n, of `shown_tubes`. weights: b m of the tubes. labelled: b k bool, clips that have labels at all.
    """
    if links.first is not None:
        first = link_loss(links._replace(logits=links.first, first=None), tubes, weights=weights, labelled=labelled)
        return first + link_loss(links._replace(first=None), tubes, weights=weights, labelled=labelled)
    _, clips, count = links.index.shape
    tube = rearrange(tubes.gather(2, links.index), "b k m -> b (k m)").masked_fill(links.sure == 0, NO_TUBE)    # b x
    same = (tube[:, :, None] == tube[:, None]) & (tube != NO_TUBE)[:, None]                                     # b x x
    same = rearrange(same, "b x (k m) -> b x k m", k=clips)
    logits = rearrange(links.logits, "b x (k m) -> b x k m", k=clips)
    absent = torch.zeros_like(logits[..., :1])
    target = torch.where(same.any(-1), same.float().argmax(-1), count)          # b x k
    entropy = -torch.cat([logits, absent], -1).log_softmax(-1).gather(-1, target[..., None])[..., 0]
    own = torch.arange(clips, device=tube.device).repeat_interleave(count)[:, None] == torch.arange(
        clips, device=tube.device)                                              # x k
    counted = (tube != NO_TUBE)[..., None] & ~own & labelled[:, None]
    weight = weights.gather(1, tube.clamp(min=0))[..., None] * counted
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)


def tube_weights(evidence: PixelEvidence, is_thing: Tensor, *, config: LinkLossConfig) -> Tensor:
    """The weight of each tube, b m. is_thing: bool by class."""
    classes = video_targets(evidence).classes
    thing = is_thing.to(classes.device)[classes.clamp(min=0)]
    return torch.where(thing, config.thing_weight, config.stuff_weight)
