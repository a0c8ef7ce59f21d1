"""Reordering the queries of each clip, so that query n is the same object in every clip, before results are made.

Each clip is compared with the *already aligned* clip before it by the cosine of one embedding per query, and the best
one-to-one assignment of all queries is taken; no query is left out. MaXTron on Video-kMaX compares mask embeddings,
MaXTron on Tube-Link raw decoder queries: `ClipPrediction.alignment` holds them (arXiv 2311.18537 v1, section 3.2, and
`match_from_embds` in TACJu/MaXTron).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model.assignment import best_assignment
from model.contracts import ClipPrediction
from model.inference.driver import ResultMaker
from model.inference.places import without_repeats

PER_QUERY = ("class_logits", "mask_logits", "queries", "mask_embeddings", "alignment", "appearance", "places", "looks")


class QueryOrder(Protocol):
    """One per video, one `step` per clip. See also `links.LinkedInTime`."""

    def step(self, clip: ClipPrediction, /) -> Tensor:
        """The next clip -> permutation n: entry i is the query of this clip that takes slot i of the video."""


class QueryAligner:
    """Aligns one video, one `step` per clip. Its only memory is the embeddings of the last clip, in aligned order."""

    def __init__(self) -> None:
        self._previous: Tensor | None = None        # n d, unit length

    @torch.no_grad()
    def step(self, embeddings: Tensor) -> Tensor:
        """embeddings: n d of the next clip -> permutation n: entry i is the query of this clip that takes slot i."""
        if not embeddings.isfinite().all():
            raise ValueError(f"the query embeddings {tuple(embeddings.shape)} hold NaN or infinity and cannot be "
                             "aligned; the segmenter diverged or its checkpoint does not fit")
        current = F.normalize(embeddings.detach().double().cpu(), dim=-1)
        if self._previous is None:
            order = torch.arange(len(current))
        elif self._previous.shape != current.shape:
            raise ValueError(f"this clip has queries {tuple(current.shape)} but the one before it had "
                             f"{tuple(self._previous.shape)}; one segmenter must make all clips of a video")
        else:
            _, assigned = best_assignment(1 - self._previous @ current.T)
            order = torch.from_numpy(assigned)
        self._previous = current[order]
        return order.to(embeddings.device)


def align_clips(embeddings: Tensor) -> Tensor:
    """embeddings: k n d of all clips of one video, in time -> permutations k n (row 0 is the identity)."""
    aligner = QueryAligner()
    return torch.stack([aligner.step(clip) for clip in embeddings])


class ByAlignment:
    """The order that aligns each clip with the clip before it by `ClipPrediction.alignment`; their own without it."""

    def __init__(self) -> None:
        self._aligner = QueryAligner()

    def step(self, clip: ClipPrediction) -> Tensor:
        """See `QueryOrder`."""
        if clip.alignment is None:
            return torch.arange(clip.queries.shape[1], device=clip.queries.device)
        return self._aligner.step(clip.alignment[0])


class Aligned:
    """Reorders each clip once and shows it to the makers inside. A `ResultMaker` itself."""

    def __init__(self, makers: Sequence[ResultMaker], *, order: QueryOrder | None = None) -> None:
        """order: one for this video; by default each clip is aligned with the clip before it."""
        self.makers = makers
        self.order = ByAlignment() if order is None else order

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        seen = clip if clip.places is None else without_repeats(clip, frames)
        clip = reordered(clip, self.order.step(seen))
        for maker in self.makers:
            maker.add(clip, frames)

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`."""
        return {name: result for maker in self.makers for name, result in maker.finish().items()}


def reordered(clip: ClipPrediction, order: Tensor) -> ClipPrediction:
    """The same clip with query order[i] in slot i."""
    per_query = {name: getattr(clip, name) for name in PER_QUERY}
    return replace(clip, **{name: part[:, order] for name, part in per_query.items() if part is not None})
