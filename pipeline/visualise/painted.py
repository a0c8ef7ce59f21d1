"""Tracks and semantic videos as panoptic ones, for pictures: one owner per pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as run_lengths

from model.contracts import PanopticVideo, SemanticVideo, Track, Tracks, VideoResults, VideoSegment
from model.labels import VOID, ClassTable, panoptic_id

MIN_SCORE = 0.3    # of a track that is drawn; result files also list tracks of far lower scores


def pictured(results: VideoResults, classes: ClassTable, *, min_score: float = MIN_SCORE) -> PanopticVideo:
    """The video to draw: the panoptic result, without one the tracks, and without those the semantic result.

    min_score: of tracks.
    """
    if results.panoptic is not None:
        return results.panoptic
    if results.tracks is not None:
        return painted_tracks(results.tracks, min_score=min_score)
    return painted_classes(results.semantic, classes)


def painted_tracks(video: Tracks, *, min_score: float = MIN_SCORE) -> PanopticVideo:
    """The tracks of at least `min_score`; the highest score is on top, and number 1 of its class."""
    chosen = sorted((track for track in video.tracks if track.score >= min_score), key=lambda track: -track.score)
    numbers = Counter()     # class -> tracks numbered so far
    segments = {}
    ids = []
    for track in chosen:
        numbers[track.class_index] += 1
        number = numbers[track.class_index]
        ids.append(panoptic_id(track.class_index, number))
        segments[ids[-1]] = VideoSegment(class_index=track.class_index, track=number, score=track.score,
                                         is_crowd=track.is_crowd)
    return PanopticVideo(video_id=video.video_id, frame_names=video.frame_names, segments=segments,
                         frames=_PaintedTracks(tuple(chosen), tuple(ids), video.size, len(video.frame_names)))


def painted_classes(video: SemanticVideo, classes: ClassTable) -> PanopticVideo:
    """Every class as one segment without a track."""
    segments = {panoptic_id(index, 0): VideoSegment(class_index=index, track=0) for index in range(len(classes))}
    table = np.array([*segments, VOID], dtype=np.int32)      # the last entry serves void, which is -1
    return PanopticVideo(video_id=video.video_id, frame_names=video.frame_names, segments=segments,
                         frames=_PaintedClasses(video.frames, table))


@dataclass(frozen=True, slots=True)
class _PaintedTracks(Sequence):
    """T maps H W int32 of panoptic ids, decoded when asked for."""

    tracks: tuple[Track, ...]       # by score, the highest first
    ids: tuple[int, ...]            # panoptic id of each
    size: tuple[int, int]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frame: int) -> np.ndarray:
        if not -self.length <= frame < self.length:
            raise IndexError(f"frame {frame} of {self.length}")
        ids = np.full(self.size, VOID, dtype=np.int32)
        for track, panoptic in zip(reversed(self.tracks), reversed(self.ids)):
            if track.masks[frame] is not None:
                ids[run_lengths.decode(dict(track.masks[frame])).view(bool)] = panoptic
        return ids


@dataclass(frozen=True, slots=True)
class _PaintedClasses:
    """Maps of classes as panoptic ids, translated when asked for; can be iterated again where the maps can."""

    frames: object
    table: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.table[classes] for classes in self.frames)
