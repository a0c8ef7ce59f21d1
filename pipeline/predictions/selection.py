"""The part of the results that is wanted: objects of some classes, from a score upwards."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from model.contracts import PanopticVideo, SemanticVideo, Tracks, VideoResults
from model.labels import VOID, ClassTable


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is kept of the results of a video; the pixels of the rest become void."""

    threshold: float = 0.0              # lowest score of a segment or a track
    classes: frozenset[int] | None = None      # None: all

    @classmethod
    def named(cls, threshold: float | None, names: Sequence[str], table: ClassTable) -> Self:
        """The selection of classes by name, in any case; of classes with one name, all are kept.

        Raises ValueError for a name that the table lacks.
        """
        known: dict[str, list[int]] = {}
        for index, info in enumerate(table.classes):
            known.setdefault(_plain(info.name), []).append(index)
        for name in names:
            if _plain(name) not in known:
                near = difflib.get_close_matches(_plain(name), known, n=3) or list(known)
                raise ValueError(f"predict.classes={list(names)}: the model has no class {name!r}; did you mean "
                                 f"{near}?")
        return cls(threshold=threshold or 0.0,
                   classes=frozenset(index for name in names for index in known[_plain(name)]) if names else None)

    def applied_to(self, results: VideoResults) -> VideoResults:
        """The results without what is not wanted."""
        if self == Selection():
            return results
        return VideoResults(panoptic=results.panoptic and self._panoptic(results.panoptic),
                            tracks=results.tracks and self._tracks(results.tracks),
                            semantic=results.semantic and self._semantic(results.semantic))

    def _keeps(self, class_index: int, score: float) -> bool:
        return score >= self.threshold and (self.classes is None or class_index in self.classes)

    def _panoptic(self, video: PanopticVideo) -> PanopticVideo:
        segments = {i: s for i, s in video.segments.items() if self._keeps(s.class_index, s.score)}
        return replace(video, segments=segments, frames=_Kept(video.frames, sorted(segments)))

    def _tracks(self, video: Tracks) -> Tracks:
        return replace(video, tracks=tuple(t for t in video.tracks if self._keeps(t.class_index, t.score)))

    def _semantic(self, video: SemanticVideo) -> SemanticVideo:
        return video if self.classes is None else replace(video, frames=_Kept(video.frames, sorted(self.classes)))


def _plain(name: str) -> str:
    """A name as it is compared: macOS writes accents as characters of their own."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(frozen=True, slots=True)
class _Kept:
    """Maps in which all but some values are void; can be iterated again where the maps can."""

    frames: Iterable[np.ndarray]
    values: list[int]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (np.where(np.isin(ids, self.values), ids, VOID).astype(ids.dtype) for ids in self.frames)
