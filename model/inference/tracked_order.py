"""The order of queries by the quasi-dense tracker: a memory of tracks in place of the clip before.

Tube-Link (arXiv 2303.12782, table 17) sets this tracker against the naive one, which compares neighbouring clips alone.
The raw queries are what both compare.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.association.links.order import filled
from model.association.quasi_dense import QuasiDenseConfig, QuasiDenseTracker
from model.contracts import ClipPrediction


class TrackedOrder:
    """A `QueryOrder`: each remembered track has a slot, and the query that continues it takes the slot.

    The other queries fill the slots that are left by the cosine with the queries of the clip before. A new track takes
    a slot that no track has, or else that of the track which was not seen for longest.
    """

    def __init__(self, config: QuasiDenseConfig) -> None:
        self.tracker = QuasiDenseTracker(config)
        self._slots: dict[int, int] = {}                # track -> slot, the track that was seen last at the end
        self._previous: np.ndarray | None = None        # n c, unit queries of the clip before in its order
        self._frame = 0                                 # frames so far

    @torch.no_grad()
    def step(self, clip: ClipPrediction) -> Tensor:
        """The next clip -> permutation n."""
        scores = clip.class_logits[0].float().softmax(-1)[:, :-1].amax(-1)
        tracks = self.tracker.step(clip.queries[0], scores=scores, overlaps=mask_overlaps(clip.mask_logits[0]),
                                   frame=self._frame)
        self._frame += clip.mask_logits.shape[2]
        current = F.normalize(clip.queries[0].double().cpu(), dim=-1).numpy()
        order = filled(self._taken(tracks), self._previous, current)
        self._previous = current[order]
        return torch.from_numpy(order).to(clip.queries.device)

    def _taken(self, tracks: np.ndarray) -> dict[int, int]:
        """tracks n of the queries -> slot: query, for the queries of remembered tracks."""
        remembered = self.tracker.remembered
        queries = {track: query for query, track in enumerate(tracks.tolist()) if track in remembered}
        here = {track: self._slots.pop(track) for track in queries if track in self._slots}
        for track in [track for track in queries if track not in here]:
            free = set(range(len(tracks))) - {*here.values(), *self._slots.values()}
            here[track] = min(free) if free else self._slots.pop(next(iter(self._slots)))
        self._slots |= here
        return {slot: queries[track] for track, slot in here.items()}


def mask_overlaps(mask_logits: Tensor) -> np.ndarray:
    """mask_logits n t h w -> IoU of the masks n n; 0 for masks that are empty."""
    masks = rearrange(mask_logits > 0, "n t h w -> n (t h w)").float()
    both = masks @ masks.T
    areas = masks.sum(1)
    return (both / (areas[:, None] + areas - both).clamp(min=1)).cpu().numpy()
