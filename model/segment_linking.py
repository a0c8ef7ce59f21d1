"""From the clips of one video to its panoptic result, linking segments after every clip was merged on its own.

    clips -> merge each -> ClipSegments -> linker -> tracks of the video

It stands beside `near_online` of `model/video_inference.py`, which aligns queries and merges once. Clips may share
frames; a frame is painted by the first clip that has it, later ones only carry tracks onwards. (The public Video-kMaX
code paints both frames of every second clip instead.) Memory grows by the compressed maps of the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import find_objects

from model.association.linker import Linker, Looks
from model.contracts import ClipPrediction, ClipSegments, VideoSegment
from model.labels import DIVISOR, VOID, class_of, panoptic_id, track_of
from model.postprocess.panoptic import MergedVideo, PaintedFrames, PanopticMerger
from model.video_inference import Clips, check_clip


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


@torch.no_grad()
def link_clips(clips: Clips, linker: Linker, *, new_merger: Callable[[], PanopticMerger],
               overlap: int = 0) -> MergedVideo:
    """clips: as for `near_online`; each but the first begins with the last `overlap` frames of the one before.

    A segment's score is the mean over the clips it is painted in, its query that of the first of them.
    """
    places = []
    queries = {}
    scores = {}
    for clip, frames in clips:
        check_clip(clip, frames)
        shared = overlap if places else 0
        merged = merge_clip(clip, frames, new_merger())
        segments, present = clip_segments(merged, clip, looks=linker.looks, shared=shared)
        tracks = linker.step(segments)                                                  # m
        if tracks.max(initial=0) >= DIVISOR:
            raise ValueError(f"the video has more than {DIVISOR - 1} tracks of one class, more than panoptic ids can "
                             "tell apart; cut it into parts, or raise evaluation.merge.thing")
        owners = panoptic_id(segments.classes, tracks)
        painted = replace(segments.frames, palette=np.append(owners, VOID)[segments.frames.palette].astype(np.int32))
        places.extend((painted, number) for number in range(shared, frames))
        found = zip(owners.tolist(), merged.queries.values(), merged.segments.values(), present[shared:].any(0))
        for owner, query, segment, is_painted in found:
            if is_painted:
                queries.setdefault(owner, query)
                scores.setdefault(owner, []).append(segment.score)
    if not places:
        raise ValueError("the video has no clips, so there is nothing to segment")
    return MergedVideo(frames=LinkedFrames(tuple(places)), queries=queries, segments={
        owner: VideoSegment(class_index=class_of(owner), track=track_of(owner), score=float(np.mean(found)))
        for owner, found in scores.items()})


def merge_clip(clip: ClipPrediction, frames: int, merger: PanopticMerger) -> MergedVideo:
    """The first `frames` frames of a clip, b = 1, as if they were a video."""
    merger.add(clip.mask_logits[0, :, :frames])
    return merger.finish(clip.class_logits[0])


def clip_segments(merged: MergedVideo, clip: ClipPrediction, *, looks: Looks,
                  shared: int = 0) -> tuple[ClipSegments, np.ndarray]:
    """What a linker sees of a merged clip; and which of its m segments each frame shows, t m bool."""
    embeddings = getattr(clip, looks)
    if embeddings is None:
        raise ValueError(f"this segmenter gives no {looks}, by which the chosen association knows an object again; "
                         "set evaluation.association to hungarian, stitching or clip_wise")
    embeddings = embeddings[0, list(merged.queries.values())].double().cpu().numpy()    # m d
    if not np.isfinite(embeddings).all():
        raise ValueError(f"the {looks} of the segments hold NaN or infinity and cannot be linked; the segmenter "
                         "diverged or its checkpoint does not fit")
    position = {identity: number for number, identity in enumerate(merged.segments)}
    palette = np.array([position.get(identity, VOID) for identity in merged.frames.palette.tolist()], dtype=np.int32)
    frames = replace(merged.frames, palette=palette)
    found = list(merged.segments.values())
    boxes, present = locate(frames, len(found))
    return ClipSegments(
        frames=frames, shared=shared, boxes=boxes, embeddings=embeddings,
        classes=np.array([segment.class_index for segment in found], dtype=np.int64),
        is_thing=np.array([segment.track > 0 for segment in found], dtype=bool)), present


def locate(frames: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """frames: t maps H W of positions 0 ... count-1, VOID elsewhere.

    Returns the boxes around each position over all frames, m 4, as in `ClipSegments`, and where it is, t m bool.
    """
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
