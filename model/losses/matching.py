"""Which query is matched to which ground-truth tube: kMaX-DeepLab's PQ-style matching (arXiv 2207.04044, section 3).

The similarity of query n and tube m is the dice of their masks over the whole volume, times the probability of the
tube's class. The assignment with the largest sum is taken, and there is no other cost. Facts follow
`kmax_deeplab/modeling/matcher.py` in bytedance/kmax-deeplab and `maxtron_deeplab/modeling/matcher.py` in TACJu/MaXTron.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from model.assignment import best_assignment
from model.losses.targets import NO_TUBE, PixelTargets

EPSILON = 1e-5       # in the denominators of similarities


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The assignment, and the parts of the matched prediction that the losses need. Nothing here has a gradient."""

    query_of_tube: Tensor       # b m   int64; NO_TUBE (-1): the row is padding, or there are fewer queries than tubes
    tube_of_query: Tensor       # b n   int64; NO_TUBE where the query is matched to no tube
    mask_similarity: Tensor     # b n m dice over the volume, 0-1; see `mask_similarities`
    class_similarity: Tensor    # b n m probability of the tube's class, 0-1
    void_share: Tensor          # b n   share of the query's mass that lies on void

    @property
    def is_matched(self) -> Tensor:
        """b m bool."""
        return self.query_of_tube != NO_TUBE

    def of_tube(self, similarity: Tensor) -> Tensor:
        """b n m -> b m: the similarity of each tube to its query; meaningless for tubes without a query."""
        return similarity.take_along_dim(self.query_of_tube.clamp(min=0)[:, None], 1)[:, 0]

    def of_query(self, similarity: Tensor) -> Tensor:
        """b n m -> b n: the similarity of each query to its tube; meaningless for queries without a tube."""
        return similarity.take_along_dim(self.tube_of_query.clamp(min=0)[..., None], 2)[..., 0]


@torch.no_grad()
def match_queries(class_logits: Tensor, mask_logits: Tensor, targets: PixelTargets, *, compete: bool = True) -> Matches:
    """class_logits b n classes+1, mask_logits b n p -> one query per tube, as long as there are queries.

    compete: masks are a softmax over queries, as in kMaX-DeepLab; False: each is a sigmoid of its own.
    """
    mask_similarity, void_share = mask_similarities(mask_logits, targets, compete=compete)
    probability = class_logits.softmax(-1, dtype=torch.float32)             # b n classes+1
    classes = targets.classes.clamp(min=0)[:, None].expand(-1, probability.shape[1], -1)
    class_similarity = probability.gather(2, classes)                       # b n m
    query_of_tube, tube_of_query = assign(mask_similarity * class_similarity, targets.classes != NO_TUBE)
    return Matches(query_of_tube=query_of_tube, tube_of_query=tube_of_query, mask_similarity=mask_similarity,
                   class_similarity=class_similarity, void_share=void_share)


def mask_similarities(mask_logits: Tensor, targets: PixelTargets, *, compete: bool = True) -> tuple[Tensor, Tensor]:
    """mask_logits b n p -> dice of queries and tubes b n m, share of each query's mass that lies on void b n.

    The dice is taken over the pixels where masks are compared, so void is part of it only if void counts.
    """
    masks = mask_logits.softmax(1, dtype=torch.float32) if compete else mask_logits.float().sigmoid()
    rows = torch.stack([targets.compared, targets.void, targets.weights], 1)
    sums = einsum(masks, torch.cat([targets.masks, rows], 1), "b n p, b m p -> b n m")
    overlap = sums[..., :-3]
    (mass, void, everywhere) = sums[..., -3:].unbind(-1)
    dice = overlap / ((mass[..., None] + targets.areas[:, None]) / 2 + EPSILON)
    return dice, void / (everywhere + EPSILON)


def assign(similarity: Tensor, is_tube: Tensor) -> tuple[Tensor, Tensor]:
    """similarity b n m, is_tube b m -> query of each tube b m, tube of each query b n, NO_TUBE where there is none."""
    # A diverged network gives NaN, which the solver refuses. The loss becomes NaN as well, and its name is reported.
    cost = -np.nan_to_num(similarity.float().cpu().numpy())
    items, queries, tubes = cost.shape
    query_of_tube = np.full((items, tubes), NO_TUBE)
    tube_of_query = np.full((items, queries), NO_TUBE)
    for item, is_real in enumerate(is_tube.cpu().numpy()):
        columns = np.flatnonzero(is_real)
        matched, column = best_assignment(cost[item][:, columns])
        query_of_tube[item, columns[column]] = matched
        tube_of_query[item, matched] = columns[column]
    device = similarity.device
    return torch.from_numpy(query_of_tube).to(device), torch.from_numpy(tube_of_query).to(device)
