"""The losses of Mask2Former, Tube-Link and VITA written down plainly: one clip, one query and one tube after the other.

Sources: Mask2Former (arXiv 2112.01527, section 3.3) and mmdetection's `mask2former_head.py`; Tube-Link
(arXiv 2303.12782, section 3.2) with `tube_link_vps.py`; VITA (arXiv 2206.04403, section 3.3) with `vita_criterion.py`.
Weights are those of the papers and the released files: 2 for classes, 5 for masks, 5 for dice. Points are drawn in the
order of the project's criteria, from torch's global generator. Nothing of `model.losses` is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CLASS, MASK, DICE, NO_OBJECT = 2.0, 5.0, 5.0, 0.1
Pair = tuple[int, int]                                  # a query and the tube it is matched to


@dataclass(frozen=True)
class Tubes:
    """The ground truth of one item: m masks on i images each, and m classes."""

    masks: Tensor       # m i h w float
    classes: Tensor     # m

    def only(self, rows: Tensor) -> Tubes:
        return Tubes(self.masks[rows], self.classes[rows])


def read(images: Tensor, points: Tensor) -> Tensor:
    """images i h w, points i p 2 (x, y in 0 ... 1) -> i p."""
    return F.grid_sample(images[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def dice(values: Tensor, truth: Tensor, smoothing: float = 1.0) -> Tensor:
    share = values.sigmoid()
    return 1 - (2 * (share * truth).sum() + smoothing) / (share.sum() + truth.sum() + smoothing)


@torch.no_grad()
def matched(classes: Tensor, masks: Tensor, tubes: Tubes, points: Tensor, *, dice_cost: float = DICE,
            smoothing: float = 1.0) -> list[Pair]:
    """classes n c, masks n i h w, points p 2, the same in all images -> pairs, by query."""
    points = points.expand(masks.shape[1], -1, -1)
    cost = torch.zeros(len(masks), len(tubes.classes))
    for query, (logits, mask) in enumerate(zip(classes, masks)):
        values = read(mask, points)
        for tube, (truth, label) in enumerate(zip(tubes.masks, tubes.classes)):
            covered = read(truth, points)
            cost[query, tube] = (MASK * F.binary_cross_entropy_with_logits(values, covered) + dice_cost * dice(
                values, covered, smoothing) - CLASS * logits.softmax(-1)[label])
    return sorted(zip(*map(list, linear_sum_assignment(cost.numpy()))))


def class_loss(classes: Sequence[Tensor], matches: Sequence[Sequence[Pair]], tubes: Sequence[Tubes]) -> Tensor:
    """Cross-entropy of every query of every item, weighted: "no object" counts a tenth."""
    weights = []
    losses = []
    for logits, pairs, truth in zip(classes, matches, tubes):
        label_of = {query: int(truth.classes[tube]) for query, tube in pairs}
        for query, row in enumerate(logits):
            weights.append(1.0 if query in label_of else NO_OBJECT)
            losses.append(-weights[-1] * row.log_softmax(-1)[label_of.get(query, len(row) - 1)])
    return sum(losses) / sum(weights)


def mask_and_dice(masks: Sequence[Tensor], matches: Sequence[Sequence[Pair]], tubes: Sequence[Tubes], *, count: int
                  ) -> Tensor:
    """At `count` points of each image, three quarters of them the least certain of three times as many."""
    pairs = [(item, query, tube) for item, found in enumerate(matches) for query, tube in found]
    number = max(sum(len(truth.classes) for truth in tubes), 1)
    if not pairs:
        return torch.zeros(())
    images = masks[0].shape[1]
    candidates = torch.rand(len(pairs) * images, 3 * count, 2).view(len(pairs), images, 3 * count, 2)
    kept = int(0.75 * count)
    anywhere = torch.rand(len(pairs) * images, count - kept, 2).view(len(pairs), images, count - kept, 2)
    total = 0
    for (item, query, tube), some, others in zip(pairs, candidates, anywhere):
        mask = masks[item][query]
        nearest = read(mask.detach(), some).abs().argsort(-1)[:, :kept]
        points = torch.cat([some.take_along_dim(nearest[..., None], 1), others], 1)
        values = read(mask, points)
        truth = read(tubes[item].masks[tube], points)
        total = total + MASK * F.binary_cross_entropy_with_logits(values, truth) + DICE * dice(values, truth)
    return total / number


def layer_loss(classes: Sequence[Tensor], masks: Sequence[Tensor], tubes: Sequence[Tubes], *, count: int,
               reserved: Sequence[int] = ()) -> Tensor:
    """One decoder layer. classes: n c of each item; masks: n i h w. reserved: the class of each of the last queries.

    Reserved queries are not matched: each belongs to its class. Their losses are averaged apart and added.
    """
    if not reserved:
        points = [torch.rand(1, count, 2) for _ in tubes]
        matches = [matched(*item) for item in zip(classes, masks, tubes, points)]
        return CLASS * class_loss(classes, matches, tubes) + mask_and_dice(masks, matches, tubes, count=count)
    things = len(classes[0]) - len(reserved)
    is_stuff = [torch.tensor([int(label) in reserved for label in truth.classes], dtype=torch.bool) for truth in tubes]
    total = layer_loss([item[:things] for item in classes], [item[:things] for item in masks],
                       [truth.only(~stuff) for truth, stuff in zip(tubes, is_stuff)], count=count)
    stuff = [truth.only(rows) for truth, rows in zip(tubes, is_stuff)]
    own = [[(reserved.index(int(label)), tube) for tube, label in enumerate(truth.classes)] for truth in stuff]
    own = [sorted(pairs) for pairs in own]
    return (total + CLASS * class_loss([item[things:] for item in classes], own, stuff)
            + mask_and_dice([item[things:] for item in masks], own, stuff, count=count))


def linking_loss(embeddings: tuple[Tensor, Tensor], tracks: tuple[Tensor, Tensor]) -> Tensor:
    """Embeddings x c of the assigned queries of key and reference clip, and the track of each.

    0.25 times the contrast of every key query with its partner against all others, plus the squared error of cosines:
    1 for partners, below 0.1 for others, of which the three hardest for each partner count.
    """
    key, reference = embeddings
    rows = []
    same = []
    different = []
    for query, track in zip(key, tracks[0]):
        partners = [query @ other for other, its in zip(reference, tracks[1]) if its == track]
        others = [query @ other for other, its in zip(reference, tracks[1]) if its != track]
        if partners:
            pairs = [torch.exp(other - partner) for other in others for partner in partners]
            rows.append(torch.log(1 + sum(pairs, torch.zeros(()))))
        for other, its in zip(reference, tracks[1]):
            cosine = F.cosine_similarity(query, other, dim=0)
            (same if its == track else different).append(cosine)
    if not same:
        return torch.zeros(())
    errors = [(cosine.clamp(0, 1) - 1) ** 2 for cosine in same]
    errors += sorted(((cosine - 0.1).clamp(0, 1) ** 2 for cosine in different), reverse=True)[:3 * len(same)]
    return 0.25 * sum(rows) / len(rows) + sum(errors) / len(errors)


def similarity_loss(groups: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Of each video: embeddings x c of all its matched queries and their tracks x. Half the mean over all pairs."""
    total = torch.zeros(())
    pairs = 0
    for vectors, tracks in groups:
        for one, its in zip(vectors, tracks):
            for other, theirs in zip(vectors, tracks):
                total = total + F.binary_cross_entropy_with_logits(one @ other, (its == theirs).float())
                pairs += 1
    return 0.5 * total / max(pairs, 1)
