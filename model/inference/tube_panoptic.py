"""Tube-Link's panoptic video (arXiv 2303.12782): paint each clip, then link and track the queries that own pixels.

Keeps compressed maps of the frames, never the clips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from model.association.quasi_dense import QuasiDenseTracker
from model.association.tube_linking import TubeLinking
from model.contracts import ClipPrediction, Geometry, VideoSegment
from model.labels import VOID, class_of, panoptic_id, track_of
from model.postprocess.panoptic import MergedVideo, PaintedFrames, packed
from model.postprocess.resize import MaskResizer
from model.postprocess.tube_panoptic import SureQueries, TubePanopticConfig, paint_frames, sure_queries


class TubePanoptic:
    """A `ResultMaker` of panoptic videos.

    Each clip but the first begins with the last `shared_frames` of the one before, which has painted them; its things
    in them are tracked all the same.
    reserved: how many of the last queries answer for stuff; they are not read when clips are linked, as in training.
    `official_compat` of the tracker's config makes this the released test code as well: all queries are read; a query
    reads the one of its own number only, and reads it as it was linked itself; after a frame without things those of
    the frames before it are not tracked; things absent from the last frame count as one and the same mask.
    """

    def __init__(self, config: TubePanopticConfig, *, linking: TubeLinking | None,
                 tracker: QuasiDenseTracker | None, is_thing: Sequence[bool] | np.ndarray, geometry: Geometry,
                 reserved: int = 0) -> None:
        """linking, tracker: both, or neither for clips whose query n is one object; its number is the track then."""
        self.config = config
        self.linking = linking
        self.tracker = tracker
        self.geometry = geometry
        self.is_thing = np.asarray(is_thing, dtype=bool)
        self.reserved = reserved
        self.compat = tracker is not None and tracker.config.official_compat
        self._previous: Tensor | None = None                        # 1 n c
        self._count = 0                                             # frames of the video that are painted
        self._forget()

    def _forget(self) -> None:
        self._frames: list[tuple[np.dtype, bytes]] = []
        self._palette = [VOID]                                      # number in the maps -> panoptic id
        self._queries: dict[int, int] = {}                          # panoptic id -> query of the clip it started in
        self._scores: dict[int, list[float]] = defaultdict(list)    # panoptic id -> class score in each clip

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        resizer = MaskResizer(self.geometry, size=tuple(clip.mask_logits.shape[3:]), device=clip.mask_logits.device)
        sure = sure_queries(clip.class_logits[0], config=self.config)
        painted = list(paint_frames(clip.mask_logits[0, :, :frames], sure, resizer=resizer, config=self.config))
        present = np.stack([np.isin(np.arange(len(sure.queries)), frame) for frame in painted])     # t x
        if self.tracker is None:
            owners = panoptic_id(*self._classes_and_slots(sure))
        else:
            owners = self._owners(sure, present, self._linked(self.linking.tokens(clip)))
        shared = min(self.config.shared_frames, self._count)
        painted = painted[shared:]
        present = present[shared:]
        numbers = np.append(len(self._palette) + np.arange(len(owners)), 0)                         # NOBODY is the last
        self._palette.extend(owners.tolist())
        self._frames.extend(packed(numbers[frame], largest=len(self._palette) - 1) for frame in painted)
        self._count += len(painted)
        for position in np.flatnonzero(present.any(0)):
            owner = int(owners[position])
            self._queries.setdefault(owner, int(sure.queries[position]))
            self._scores[owner].append(float(sure.scores[position]))

    def _linked(self, queries: Tensor) -> Tensor:
        """queries 1 n c of this clip, as `TubeLinking.tokens` gives them -> linked with those of the clip before."""
        count = queries.shape[1] - (0 if self.compat else self.reserved)
        linked = queries
        if self._previous is not None:
            linked = self.linking(queries, self._previous, official_compat=self.compat)
        self._previous = (linked if self.compat else queries)[:, :count]
        return linked

    def _owners(self, sure: SureQueries, present: np.ndarray, queries: Tensor) -> np.ndarray:
        """Panoptic id of each of the x sure queries."""
        classes, tracks = self._classes_and_slots(sure)         # as before tracking, in the official code
        things = np.flatnonzero(self.is_thing[classes])
        things = things[self._counted(present[:, things]).any(0)]
        overlaps = np.eye(len(things))                                     # one map never paints a pixel twice
        if self.compat:
            absent = ~present[-1, things]
            overlaps = np.maximum(overlaps, absent[:, None] & absent)
        embeddings = self.linking.embeddings(queries[0, sure.queries[things]])
        first = self._count - min(self.config.shared_frames, self._count)
        tracks[things] = self.tracker.step(embeddings, scores=sure.scores[things], overlaps=overlaps, frame=first)
        return panoptic_id(classes, tracks)

    def _classes_and_slots(self, sure: SureQueries) -> tuple[np.ndarray, np.ndarray]:
        """Class of each of the x sure queries, and its track: its number from 1 on, 0 for stuff."""
        classes = sure.classes.cpu().numpy()
        return classes, np.where(self.is_thing[classes], 1 + sure.queries.cpu().numpy(), 0)

    def _counted(self, present: np.ndarray) -> np.ndarray:
        """present t x, of things -> the frames whose things are tracked."""
        empty = np.flatnonzero(~present.any(1))
        return present[empty[-1] + 1:] if self.compat and len(empty) else present

    def finish(self) -> dict[str, MergedVideo]:
        """The panoptic video; a segment's score is the mean over the clips it is painted in."""
        frames = PaintedFrames(tuple(self._frames), self.geometry.source, np.array(self._palette, dtype=np.int32))
        segments = {owner: VideoSegment(class_index=class_of(owner), track=track_of(owner),
                                        score=float(np.mean(scores))) for owner, scores in self._scores.items()}
        merged = MergedVideo(frames=frames, queries=self._queries, segments=segments)
        self._forget()
        return {"panoptic": merged}
