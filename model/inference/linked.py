"""The panoptic result of a video whose clips are merged one by one, and whose segments are linked afterwards.

    clips -> merge each -> ClipSegments -> linker -> tracks of the video

`near_online.py` beside this file aligns queries and merges once instead. Clips may share frames; a frame is painted by
the first clip that has it, later ones only carry tracks onwards. (The public Video-kMaX code paints both frames of
every second clip instead.) Memory grows by the compressed maps of the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.association.linker import Linker, Looks
from model.contracts import ClipPrediction, ClipSegments, VideoSegment
from model.labels import DIVISOR, VOID, class_of, panoptic_id, track_of
from model.postprocess.panoptic import MergedVideo, PaintedFrames, PanopticMerger


@dataclass(frozen=True)
class LinkedFrames(Sequence):
    """T maps H W int32 of panoptic ids, painted when asked for: each is one frame of a clip."""

    places: tuple[tuple[PaintedFrames, int], ...]    # T    clip, number in it

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, frame: int | slice) -> np.ndarray | LinkedFrames:
        if isinstance(frame, slice):
            return LinkedFrames(self.places[frame])
        clip, number = self.places[frame]
        return clip[number]


class LinkedPanoptic:
    """Merges each clip on its own and gives its segments the tracks of the video. A `ResultMaker`.

    Each clip but the first begins with the last `overlap` frames of the one before.
    """

    def __init__(self, linker: Linker, *, new_merger: Callable[[], PanopticMerger], overlap: int = 0) -> None:
        self.linker = linker
        self.new_merger = new_merger
        self.overlap = overlap
        self._is_first = True
        self._forget()

    def _forget(self) -> None:
        self._places: list[tuple[PaintedFrames, int]] = []      # clip, position of a frame in it
        self._queries: dict[int, int] = {}                      # panoptic id -> query of the first clip that shows it
        self._scores: dict[int, list[float]] = {}               # panoptic id -> class score in each clip

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`. Raises ValueError for more tracks of one class than panoptic ids can tell apart."""
        shared = 0 if self._is_first else self.overlap
        self._is_first = False
        merged = merge_clip(clip, frames, self.new_merger())
        segments, present = clip_segments(merged, clip, looks=self.linker.looks, shared=shared)
        tracks = self.linker.step(segments)                                                  # m
        if tracks.max(initial=0) >= DIVISOR:
            raise ValueError(f"the video has more than {DIVISOR - 1} tracks of one class, more than panoptic ids can "
                             "tell apart; cut it into parts, or raise inference.panoptic.thing")
        owners = panoptic_id(segments.classes, tracks)
        painted = replace(segments.frames, palette=np.append(owners, VOID)[segments.frames.palette].astype(np.int32))
        self._places.extend((painted, frame) for frame in range(shared, frames))
        shown = present[shared:].any(0)
        for owner, query, segment, is_painted in zip(owners.tolist(), merged.queries.values(),
                                                     merged.segments.values(), shown):
            if is_painted:
                self._queries.setdefault(owner, query)
                self._scores.setdefault(owner, []).append(segment.score)

    def finish(self) -> dict[str, MergedVideo]:
        """The panoptic video. A segment's score is the mean over the clips it is painted in."""
        segments = {owner: VideoSegment(class_index=class_of(owner), track=track_of(owner),
                                        score=float(np.mean(scores))) for owner, scores in self._scores.items()}
        merged = MergedVideo(frames=LinkedFrames(tuple(self._places)), queries=self._queries, segments=segments)
        self._forget()
        return {"panoptic": merged}


def merge_clip(clip: ClipPrediction, frames: int, merger: PanopticMerger) -> MergedVideo:
    """The first `frames` frames of a clip, b = 1, as if they were a video.

    With `sure_first` the queries without a sufficient class score are left out before pixels are shared. With
    `pixel=0.5` no two of the others claim a pixel: this is the pixel-wise merging of the public Video-kMaX code.
    """
    masks = clip.mask_logits[0, :, :frames]
    classes = clip.class_logits[0]
    if not merger.config.sure_first:
        merger.add(masks)
        return merger.finish(classes)
    sure = merger.sure_queries(classes)
    merger.add(masks[sure])
    merged = merger.finish(classes[sure])
    return replace(merged, queries={owner: sure[query] for owner, query in merged.queries.items()})


def clip_segments(merged: MergedVideo, clip: ClipPrediction, *, looks: Looks,
                  shared: int = 0) -> tuple[ClipSegments, np.ndarray]:
    """What a linker sees of a merged clip; and which of its m segments each frame shows, t m bool."""
    embeddings = getattr(clip, looks)
    if embeddings is None:
        raise ValueError(f"this segmenter gives no {looks}, by which the chosen association knows an object again; "
                         "set inference.association to hungarian, stitching or clip_wise")
    embeddings = embeddings[0, list(merged.queries.values())].double().cpu().numpy()    # m d
    if not np.isfinite(embeddings).all():
        raise ValueError(f"the {looks} of the segments hold NaN or infinity and cannot be linked; the segmenter "
                         "diverged or its checkpoint does not fit")
    position = {identity: number for number, identity in enumerate(merged.segments)}
    palette = np.array([position.get(identity, VOID) for identity in merged.frames.palette.tolist()], dtype=np.int32)
    frames = replace(merged.frames, palette=palette)
    listed = list(merged.segments.values())
    boxes, present = locate(frames, len(listed))
    return ClipSegments(
        frames=frames, shared=shared, boxes=boxes, embeddings=embeddings,
        classes=np.array([segment.class_index for segment in listed], dtype=np.int64),
        is_thing=np.array([segment.track > 0 for segment in listed], dtype=bool)), present


def locate(frames: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """frames: t maps H W of positions 0 ... count-1, VOID elsewhere.

    Returns the boxes around each position over all frames, m 4, as in `ClipSegments`, and where it is, t m bool.
    """
    from scipy.ndimage import find_objects  # as slow to import as model/assignment.py says

    low = np.full((count, 2), np.inf)
    high = np.full((count, 2), -np.inf)
    present = np.zeros((len(frames), count), dtype=bool)
    for number, frame in enumerate(frames):
        height, width = frame.shape
        for position, place in enumerate(find_objects(frame + 1, max_label=count)):
            if place is not None:
                rows, columns = place
                present[number, position] = True
                low[position] = np.minimum(low[position], (columns.start / width, rows.start / height))
                high[position] = np.maximum(high[position], (columns.stop / width, rows.stop / height))
    return np.concatenate([low, high], axis=1), present
