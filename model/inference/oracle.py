"""The perfect order of queries, from the labels: the reference that no association is expected to pass.

In every clip, each query that matches a true tube (dice x class probability above 0.1, one to one, `model.losses.
matching`) goes to the slot of that tube; the others share the free slots as near-online aligns them. What is lost
between windows 1 and 12 with this order is lost by the segmenter, not by the association. It is no strict bound, since
queries that match no tube could be linked too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.assignment import best_assignment
from model.contracts import ClipPrediction, ClipTargets
from model.inference.alignment import reordered
from model.losses.matching import match_queries
from model.losses.targets import NO_TUBE, clip_targets

LEAST = 0.1         # similarity of a query and its tube
TAKEN = 10.0        # cost of a slot that belongs to another tube; costs of a pair lie between 0 and 2

Clip = TypeVar("Clip")


class TrueOrder:
    """The order of one video, one `step` per clip. A slot belongs to the tube that took it first."""

    def __init__(self, *, compete: bool) -> None:
        """compete: masks are a softmax over queries; False: each is a sigmoid of its own."""
        self.compete = compete
        self.slots: dict[int, int] = {}             # track id of a tube -> slot
        self._previous: Tensor | None = None        # n a, unit length, in slots

    @torch.no_grad()
    def step(self, clip: ClipPrediction, targets: ClipTargets) -> Tensor:
        """The next clip and its true tubes -> permutation n: entry i is the query that takes slot i."""
        tube_of = self._matched(clip, targets)
        similarity = self._similarity(clip)                                             # slots x queries
        cost = 1 - similarity
        owned = {slot: tube for tube, slot in self.slots.items()}
        for query, tube in tube_of.items():
            if tube in self.slots:
                cost[:, query] += TAKEN
                cost[self.slots[tube], query] = -TAKEN * len(cost)                      # before everything else
            else:
                cost[list(owned), query] += TAKEN
        slots, queries = best_assignment(cost)
        order = torch.from_numpy(queries)
        for slot, query in zip(slots.tolist(), queries.tolist()):
            if query in tube_of and slot not in owned:
                self.slots.setdefault(tube_of[query], slot)
        if clip.alignment is not None:
            self._previous = F.normalize(clip.alignment[0].double().cpu(), dim=-1)[order]
        return order.to(clip.queries.device)

    def _matched(self, clip: ClipPrediction, targets: ClipTargets) -> dict[int, int]:
        """Query -> track id of the tube that it matches."""
        if not len(targets.classes):
            return {}
        masks = rearrange(clip.mask_logits, "b n t h w -> b n (t h w)")
        matches = match_queries(clip.class_logits, masks, clip_targets([targets.to(masks.device)]),
                                compete=self.compete)
        surely = matches.of_query(matches.mask_similarity * matches.class_similarity)[0] > LEAST
        tubes = matches.tube_of_query[0]
        return {query: int(targets.track_ids[tubes[query]])
                for query in torch.nonzero(surely & (tubes != NO_TUBE))[:, 0].tolist()}

    def _similarity(self, clip: ClipPrediction) -> np.ndarray:
        """Slots x queries, -1 to 1: by which near-online would align; own numbers first where it would not."""
        if clip.alignment is None or self._previous is None:
            return np.eye(clip.queries.shape[1])
        return (self._previous @ F.normalize(clip.alignment[0].double().cpu(), dim=-1).T).numpy()


def in_true_order(clips: Iterable[tuple[Clip, ClipPrediction]], targets_of: Callable[[Clip], ClipTargets], *,
                  compete: bool) -> Iterator[tuple[Clip, ClipPrediction]]:
    """The clips of one video with their queries in the perfect order, which the makers of results then keep.

    targets_of: the true tubes of a clip at stride 4, whose track ids are unique in the video.
    """
    order = TrueOrder(compete=compete)
    for clip, prediction in clips:
        yield clip, replace(reordered(prediction, order.step(prediction, targets_of(clip))), alignment=None)
