"""Tube-Link's temporal contrastive losses (arXiv 2303.12782, section 3.2): the same object looks alike in two clips.

The clips of a training sample come in pairs, the key clip and the reference clip. Queries of the key clip attend to
those of the reference clip; then every assigned query of one clip is compared with every assigned query of the other.
The losses are those of QDTrack (arXiv 2006.06664, `multipos_cross_entropy_loss.py` in SysCV/qdtrack) with Tube-Link's
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from model.association.tube_linking import TubeLinking
from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.binary_masks import MatchingCosts, match_masks
from model.losses.mask2former import ImageTargets, as_images, at_points
from model.losses.points import Draw, uniform
from model.losses.targets import NO_TUBE, clip_targets

Losses = Mapping[str, Tensor]

# labels of a pair of queries
SAME = 1
DIFFERENT = 0
UNCLEAR = -1


@dataclass(frozen=True, kw_only=True)
class LinkingLossConfig:
    """Defaults: the released Tube-Link models for panoptic video."""

    contrast_weight: float = 0.25
    cosine_weight: float = 1.0
    negative_margin: float = 0.1            # cosine up to which different objects are different enough
    negatives_per_positive: int = 3         # of the cosine loss; the hardest are kept
    # Which queries are compared: those matched to a tube (released code), those that overlap with one (section 3.2 of
    # the paper), or these with all queries of the reference clip, also those that show no object (QDTrack).
    assignment: Literal["matched", "overlap", "dense"] = "matched"
    assigned_by: Literal["clip", "first_frame"] = "clip"    # the masks that assign queries to tubes
    costs: MatchingCosts = field(default_factory=lambda: MatchingCosts(dice_weight=4.0, smoothing=1e-3))
    points: int = 12_544                    # of the matching
    same_overlap: float = 0.7               # overlap, dense: a query is assigned to a tube above this IoU
    different_overlap: float = 0.3          # overlap, dense: a query and a tube are different objects below this IoU
    stuff_classes: tuple[int, ...] = ()     # these have no tracks; as many of the last queries are reserved for them
    shared_frames: int = 0                  # in the middle of a training clip, that both clips of its pair have
    # The segmentation losses beside these: those of the key clips plus those of the reference clips, each normalised by
    # itself, as released; or one mean over both, against which the linking losses weigh about twice as much.
    segmentation: Literal["sum", "mean"] = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.different_overlap <= self.same_overlap <= 1:
            raise ValueError(f"linking losses: different_overlap={self.different_overlap} must not be above "
                             f"same_overlap={self.same_overlap}, and both must lie in 0 ... 1 (paper: 0.3 and 0.7)")
        if self.shared_frames < 0:
            raise ValueError(f"linking losses: shared_frames={self.shared_frames} is negative; 0: the clips of a pair "
                             "share no frame")


class LinkingCriterion:
    """Weighted losses `contrast` and `cosine`, means over the pairs of a batch; zero where no queries are compared."""

    def __init__(self, config: LinkingLossConfig) -> None:
        self.config = config

    def __call__(self, linking: TubeLinking, prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """prediction and targets of 2 b clips: the b key clips, then their b reference clips, as `clip_pairs` gives."""
        if len(targets) % 2:
            raise ValueError(f"{len(targets)} clips are not pairs of a key and a reference clip; cut each training "
                             "clip in two with clip_pairs")
        pairs = len(targets) // 2
        draw = uniform(prediction.mask_logits.device, generator=generator)
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):
            things = prediction.class_logits.shape[1] - len(self.config.stuff_classes)
            queries = linking.tokens(prediction)[:, :things]
            linked = linking(queries[:pairs], queries[pairs:])
            embeddings = linking.embeddings(torch.cat([linked, queries[pairs:]]))                # 2b n c
            overlaps, tubes = self._assign(prediction, targets, things=things, draw=draw)
            losses = [self._pair(embeddings[[key, key + pairs]], tubes[[key, key + pairs]],
                                 (targets[key], targets[key + pairs]), overlaps[key + pairs]) for key in range(pairs)]
        contrast, cosine = (torch.stack(loss).mean() for loss in zip(*losses))
        return {"contrast": self.config.contrast_weight * contrast, "cosine": self.config.cosine_weight * cosine}

    @torch.no_grad()
    def _assign(self, prediction: ClipPrediction, targets: Sequence[ClipTargets], *, things: int, draw: Draw
                ) -> tuple[Tensor, Tensor]:
        """IoU of thing queries and tubes 2b n m (empty for "matched"), tube of each query 2b n."""
        classes = prediction.class_logits[:, :things]
        masks = prediction.mask_logits[:, :things]
        if self.config.assigned_by == "first_frame":
            masks = masks[:, :, :1]
            targets = [first_frame(target) for target in targets]
        truth = ImageTargets.from_clips(targets)
        stuff = torch.tensor(self.config.stuff_classes, dtype=torch.int64, device=truth.classes.device)
        truth = truth.keeping(~torch.isin(truth.classes, stuff) & (truth.masks.flatten(2).amax(-1) > 0))
        if self.config.assignment != "matched":
            overlaps = tube_overlaps(masks, targets) * (truth.classes != NO_TUBE)[:, None]
            best, tubes = overlaps.max(-1)
            return overlaps, torch.where(best > self.config.same_overlap, tubes, NO_TUBE)
        points = torch.cat([draw(1, self.config.points, 2) for _ in targets])
        values = at_points(as_images(masks), points)
        return classes.new_empty(len(targets), 0, 0), match_masks(classes, values, truth.at(points),
                                                                  costs=self.config.costs)

    def _pair(self, embeddings: Tensor, tubes: Tensor, targets: tuple[ClipTargets, ClipTargets], overlaps: Tensor
              ) -> tuple[Tensor, Tensor]:
        """Losses of one pair. embeddings 2 n c, tubes 2 n, overlaps n m of the reference clip."""
        is_compared = tubes != NO_TUBE
        tracks = targets[0].track_ids[tubes[0, is_compared[0]]]                                  # x
        if self.config.assignment == "matched":
            labels = (tracks[:, None] == targets[1].track_ids[tubes[1, is_compared[1]]]).int()   # x y
        else:
            is_compared[1] |= self.config.assignment == "dense"
            same_track = (tracks[:, None] == targets[1].track_ids).float()                      # x m
            overlap = same_track @ overlaps[is_compared[1], :same_track.shape[1]].T              # x y
            labels = torch.where(overlap > self.config.same_overlap, SAME,
                                 torch.where(overlap < self.config.different_overlap, DIFFERENT, UNCLEAR))
        key, reference = (embedding[compared] for embedding, compared in zip(embeddings, is_compared))
        if not (labels == SAME).any():
            return embeddings.sum() * 0, embeddings.sum() * 0
        return (contrast_loss(key @ reference.T, labels),
                cosine_loss(F.normalize(key, dim=-1) @ F.normalize(reference, dim=-1).T, labels,
                            margin=self.config.negative_margin, ratio=self.config.negatives_per_positive))


def contrast_loss(similarity: Tensor, labels: Tensor) -> Tensor:
    """similarity x y (dot products), labels x y -> mean over rows with a partner of log(1 + sum exp(other - partner)).

    The sum runs over all pairs of another object and a partner, so it is a product of two sums, without a y y table.
    """
    rows = (labels == SAME).any(1)
    similarity = similarity[rows]
    labels = labels[rows]
    lowest = torch.finfo(similarity.dtype).min
    others = similarity.masked_fill(labels != DIFFERENT, lowest).logsumexp(1)
    partners = (-similarity).masked_fill(labels != SAME, lowest).logsumexp(1)
    return F.softplus(others + partners).sum() / rows.sum().clamp(min=1)


def cosine_loss(cosine: Tensor, labels: Tensor, *, margin: float, ratio: int) -> Tensor:
    """cosine x y, labels x y -> mean of (cosine - 1)^2 over partners and (cosine - margin)^2 over the hardest others.

    Others with a cosine below the margin have no loss. At most `ratio` others per partner are counted.
    """
    same = labels == SAME
    different = labels == DIFFERENT
    partners = (cosine[same].clamp(0, 1) - 1) ** 2
    others = (cosine[different] - margin).clamp(0, 1) ** 2
    others = others.topk(min(len(others), ratio * len(partners))).values
    return (partners.sum() + others.sum()) / max(len(partners) + len(others), 1)


def tube_overlaps(mask_logits: Tensor, targets: Sequence[ClipTargets]) -> Tensor:
    """mask_logits b n t h w, targets at the same size -> IoU of whole tubes b n m, in the frames with a label."""
    truth = clip_targets(targets)
    masks = (mask_logits > 0).flatten(2) * truth.weights[:, None]
    tubes = truth.masks
    both = einsum(masks, tubes, "b n p, b m p -> b n m")
    return both / (masks.sum(-1)[..., None] + tubes.sum(-1)[:, None] - both).clamp(min=1)


def pair_losses(criterion: Callable[..., Losses], prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                segmentation: Literal["sum", "mean"]) -> Losses:
    """The segmentation losses of pairs by name, see `LinkingLossConfig.segmentation`.

    criterion: of clips. prediction and targets: of 2 b clips, the b key clips first.
    """
    if segmentation == "mean":
        return criterion(prediction, targets)
    pairs = len(targets) // 2
    key, reference = (criterion(clips_of(prediction, part), targets[part])
                      for part in (slice(None, pairs), slice(pairs, None)))
    return {name: key[name] + reference[name] for name in key}


def clips_of(prediction: ClipPrediction, part: slice) -> ClipPrediction:
    """Some clips of a batch: every field, also of the auxiliary layers, cut along its first axis."""
    def cut(layer: ClipPrediction | LayerPrediction) -> dict[str, Tensor]:
        values = {field.name: getattr(layer, field.name) for field in fields(layer)}
        return {name: value[part] for name, value in values.items() if isinstance(value, Tensor)}

    auxiliary = tuple(replace(layer, **cut(layer)) for layer in prediction.auxiliary)
    return replace(prediction, **cut(prediction), auxiliary=auxiliary)


def clip_pairs(frames: Tensor, targets: Sequence[ClipTargets], *, shared: int = 0
               ) -> tuple[Tensor, tuple[ClipTargets, ...]]:
    """Cut clips in the middle of time: maps b (2 t - shared) ... -> (2 b) t ..., first parts of all, then second parts.

    shared: frames in the middle that both parts have. A tube without a pixel in a part is left out of its targets.
    """
    count = frames.shape[1]
    length, odd = divmod(count + shared, 2)
    if odd or shared >= count:
        raise ValueError(f"a clip of {count} frames cannot be cut into two of one length that share {shared}; choose "
                         f"an {'odd' if shared % 2 else 'even'} stage_one.input.clip_frames above {shared}")
    parts = (slice(None, length), slice(count - length, None))
    halves = [part_of(target, part) for part in parts for target in targets]
    return torch.cat([frames[:, part] for part in parts]), tuple(halves)


def part_of(target: ClipTargets, frames: slice) -> ClipTargets:
    """The targets of some frames of a clip, without the tubes that have no pixel there."""
    part = in_frames(target, frames)
    visible = part.masks.flatten(1).any(1)
    return replace(part, masks=part.masks[visible], classes=part.classes[visible], track_ids=part.track_ids[visible])


def first_frame(target: ClipTargets) -> ClipTargets:
    """The targets of the first frame of a clip, with all tubes: their numbers stay."""
    return in_frames(target, slice(1))


def in_frames(target: ClipTargets, frames: slice) -> ClipTargets:
    """The targets of some frames of a clip, with all tubes."""
    return replace(target, masks=target.masks[:, frames], void=target.void[frames],
                   unlabelled=None if target.unlabelled is None else target.unlabelled[frames])
