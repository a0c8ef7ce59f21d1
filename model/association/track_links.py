"""Joins the tracks of the parts of a video where their masks overlap, as VITA's table 5 does (arXiv 2206.04403).

Neighbouring parts share frames, and both make tracks there. A track goes on in the track of the next part with which
it shares the largest part of its pixels: the best pair first, or those pairs whose IoUs have the largest sum. Only
tracks of one class that overlap are candidates. A track that the shared frames do not show ends, and what returns later
is a new one. The paper says neither how many frames its clips share nor how scores are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from model.assignment import best_assignment
from model.association.linker import best_first
from model.contracts import Track
from model.postprocess.track_overlap import compare_tracks


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """A video that a cross-clip head sees in parts, one after the other."""

    clips: int                                              # of a part; those of VITA are frames
    shared: int = 1                                         # clips that neighbouring parts have in common
    pairs: Literal["greedy", "hungarian"] = "greedy"        # the best pair first, or the pairs of the largest sum

    def __post_init__(self) -> None:
        if not 1 <= self.shared < self.clips:
            raise ValueError(f"inference.parts has clips={self.clips} and shared={self.shared}: tracks are compared on "
                             "clips that two parts share; set shared to 1 and clips to at least 2")
        if self.pairs not in ("greedy", "hungarian"):
            raise ValueError(f"inference.parts.pairs={self.pairs!r} does not exist; choose 'greedy' or 'hungarian'")


@dataclass
class JoinedTrack:
    """One object through the parts seen so far."""

    class_index: int
    masks: list                 # T
    scores: list[float]         # of each part that shows it
    lengths: list[int]          # new frames of those parts

    def ended(self, frames: int) -> Track:
        """The track, absent where a video of `frames` frames goes on. Its score is the mean over the frames of its
        parts."""
        absent = [None] * (frames - len(self.masks))
        return Track(class_index=self.class_index, masks=(*self.masks, *absent),
                     score=float(np.average(self.scores, weights=self.lengths)))


class TrackLinks:
    """The tracks of one video: `add` every part in time, then `finish` once."""

    def __init__(self, pairs: Literal["greedy", "hungarian"]) -> None:
        self.pairs = pairs
        self._joined: list[JoinedTrack] = []
        self._frames = 0

    def add(self, tracks: Sequence[Track], *, frames: int, shared: int) -> None:
        """tracks: of a part of `frames` frames, the first `shared` of which are the last ones of the part before.

        The shared frames keep the masks of the part before; a new track that starts in them keeps its own.
        """
        before = [joined.ended(self._frames) for joined in self._joined]
        goes_on = {new: self._joined[old] for old, new in self._linked(before, tracks, shared=shared)}
        new_frames = frames - shared
        for number, track in enumerate(tracks):
            joined = goes_on.get(number)
            if joined is None:
                absent = [None] * (self._frames - shared)
                self._joined.append(JoinedTrack(class_index=track.class_index, masks=[*absent, *track.masks],
                                                scores=[track.score], lengths=[new_frames]))
                continue
            joined.masks.extend(track.masks[shared:])
            joined.scores.append(track.score)
            joined.lengths.append(new_frames)
        self._frames += new_frames

    def finish(self, *, most: int) -> tuple[Track, ...]:
        """The `most` best tracks of the video, the best first."""
        tracks = [joined.ended(self._frames) for joined in self._joined]
        return tuple(sorted(tracks, key=lambda track: -track.score)[:most])

    def _linked(self, before: Sequence[Track], after: Sequence[Track], *, shared: int) -> list[tuple[int, int]]:
        """Pairs (track of the parts before, track of the next part)."""
        if not before or not after or not shared:
            return []
        ious, _, _ = compare_tracks([replace(track, masks=track.masks[-shared:]) for track in before],
                                    [replace(track, masks=track.masks[:shared]) for track in after])
        classes = [np.array([track.class_index for track in tracks]) for tracks in (before, after)]
        ious = np.where(classes[0][:, None] == classes[1], ious, 0)
        if self.pairs == "greedy":
            return best_first(np.where(ious > 0, ious, -np.inf), least=0)
        return [pair for pair in zip(*best_assignment(ious, maximize=True)) if ious[pair] > 0]
