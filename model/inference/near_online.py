"""One decision per query for the whole video, from the clips' own masks and the mean of their class logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from model.contracts import ClipPrediction
from model.labels import class_of, panoptic_id, track_of
from model.postprocess.panoptic import MergedVideo


class Merger(Protocol):
    """Makes one decision per query from aligned masks, once: `PanopticMerger`, `TrackMerger`."""

    def add(self, mask_logits: Tensor, /) -> None:
        """mask_logits: n t h w; the next frames of the video."""

    def finish(self, class_logits: Tensor, /) -> Any:
        """class_logits: n classes+1 for the whole video -> the result."""


class NearOnline:
    """Keeps of each clip only its share of the mean class logits and the mergers' compressed maps. A `ResultMaker`.

    Its clips are aligned. `finish` decides with the class logits of all clips so far; afterwards the masks start anew,
    and the objects that are found again keep the panoptic ids they had.
    """

    def __init__(self, new_mergers: Mapping[str, Callable[[], Merger]], *, repeats_count: bool = False) -> None:
        """repeats_count: as in the public code, repeated frames take part in merging, where they count as area; who
        names the frames drops them afterwards.
        """
        self.new_mergers = new_mergers
        self.repeats_count = repeats_count
        self._mergers: dict[str, Merger] = {}
        self._class_logits: Tensor | float = 0.0        # n classes+1, the sum over clips
        self._clips = 0
        self._identities = Identities()

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        if not self._mergers:
            self._mergers = {name: new() for name, new in self.new_mergers.items()}
        masks = clip.mask_logits[0] if self.repeats_count else clip.mask_logits[0, :, :frames]
        for merger in self._mergers.values():
            merger.add(masks)
        self._class_logits = self._class_logits + clip.class_logits[0].float()
        self._clips += 1

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`."""
        mean = self._class_logits / self._clips
        results = {name: merger.finish(mean) for name, merger in self._mergers.items()}
        self._mergers = {}
        if "panoptic" in results:
            results["panoptic"] = self._identities.kept(results["panoptic"])
        return results


class Identities:
    """Panoptic ids that stay those of their (class, query slot) over several merged parts of one video."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}      # class, slot -> panoptic id

    def kept(self, merged: MergedVideo) -> MergedVideo:
        """The same result under the ids its things had in earlier parts. The ids of the first part are its own."""
        if not self._ids:
            self._ids = {(class_of(owner), slot): owner for owner, slot in _things(merged)}
            return merged
        ids = {owner: self._id(class_of(owner), slot) for owner, slot in _things(merged)}
        palette = np.array([ids.get(owner, owner) for owner in merged.frames.palette.tolist()], dtype=np.int32)
        segments = {ids.get(owner, owner): replace(segment, track=track_of(ids.get(owner, owner)))
                    for owner, segment in merged.segments.items()}
        return MergedVideo(frames=replace(merged.frames, palette=palette), segments=segments,
                           queries={ids.get(owner, owner): slot for owner, slot in merged.queries.items()})

    def _id(self, label: int, slot: int) -> int:
        if (label, slot) not in self._ids:
            last = max((track_of(owner) for owner in self._ids.values() if class_of(owner) == label), default=0)
            self._ids[label, slot] = int(panoptic_id(label, last + 1))
        return self._ids[label, slot]


def _things(merged: MergedVideo) -> list[tuple[int, int]]:
    """(panoptic id, query slot) of every thing."""
    return [(owner, slot) for owner, slot in merged.queries.items() if track_of(owner)]
