"""Reordering the queries of each clip, so that query n is the same object in every clip, before results are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from model.association.hungarian import QueryAligner
from model.contracts import ClipPrediction
from model.inference.driver import ResultMaker

PER_QUERY = ("class_logits", "mask_logits", "queries", "mask_embeddings", "alignment", "appearance")


class QueryOrder(Protocol):
    """One per video, one `step` per clip."""

    def step(self, clip: ClipPrediction, /) -> Tensor:
        """The next clip -> permutation n: entry i is the query of this clip that takes slot i of the video."""


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
        clip = reordered(clip, self.order.step(clip))
        for maker in self.makers:
            maker.add(clip, frames)

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`."""
        return {name: result for maker in self.makers for name, result in maker.finish().items()}


def reordered(clip: ClipPrediction, order: Tensor) -> ClipPrediction:
    """The same clip with query order[i] in slot i."""
    per_query = {name: getattr(clip, name) for name in PER_QUERY}
    return replace(clip, **{name: part[:, order] for name, part in per_query.items() if part is not None})
