"""How difficult tracking is in a data set: how often things are hidden, and how often naive association loses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model.assignment import best_assignment
from pipeline.errors import BadInput
from pipeline.foreign_files import read_file
from pipeline.images import decode_image
from pipeline.records import Dataset, FrameRecord, VideoRecord

FORBIDDEN = 1e6    # cost of linking different classes; an assignment may contain such a pair, which is then dropped


@dataclass(frozen=True, kw_only=True)
class TrackStatistics:
    """Counts over some videos. A hiding is a run of frames without the thing, between two frames that show it."""

    tracks: int = 0          # things that are visible in at least one frame
    hidings: int = 0
    long_hidings: int = 0    # hidings of at least `long` frames
    handovers: int = 0       # steps from a clip that shows a thing to the next clip that shows it
    breaks: int = 0          # handovers at which the naive association changes the id

    @property
    def break_rate(self) -> float:
        """Share of handovers that break."""
        return self.breaks / max(1, self.handovers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The features that the naive association compares."""

    class_index: int
    color: np.ndarray     # 3, mean colour, 0-1
    center: np.ndarray    # 2, (y, x) in shorter sides of the frame


def track_statistics(dataset: Dataset, video_ids: Iterable[str], *, clip_length: int = 2,
                     long: int = 4) -> TrackStatistics:
    """Count over labelled videos of a data set with id maps. Raises `BadInput` for a file that cannot be read.

    The naive association links the true segments of clips of `clip_length` frames. Segmentation is therefore perfect,
    and every break is a loss of identity.
    """
    tracks = hidings = long_hidings = handovers = breaks = 0
    for video_id in video_ids:
        video = dataset.read(video_id)
        frames = [_looks(dataset, video, frame) for frame in video.frames]
        clips = [_mean_looks(frames[start:start + clip_length]) for start in range(0, len(frames), clip_length)]
        ids_by_clip = associate(clips)
        for track in set().union(*frames):
            visible = np.flatnonzero([track in frame for frame in frames])
            hidden = np.diff(visible) - 1
            ids = [ids[track] for ids in ids_by_clip if track in ids]
            tracks += 1
            hidings += int((hidden > 0).sum())
            long_hidings += int((hidden >= long).sum())
            handovers += len(ids) - 1
            breaks += sum(before != after for before, after in pairwise(ids))
    return TrackStatistics(tracks=tracks, hidings=hidings, long_hidings=long_hidings, handovers=handovers,
                           breaks=breaks)


def associate(clips: list[dict[int, Look]]) -> list[dict[int, int]]:
    """For each clip, true track -> id. Neighbouring clips are linked by colour and place; the rest get new ids."""
    ids_by_clip: list[dict[int, int]] = []
    highest = 0
    for old, new in zip([{}, *clips], clips):
        cost = np.array([[_distance(a, b) for b in old.values()] for a in new.values()]).reshape(len(new), len(old))
        before = list(old)
        now = list(new)
        ids = {}
        for row, column in zip(*best_assignment(cost)):
            if cost[row, column] < FORBIDDEN:
                ids[now[row]] = ids_by_clip[-1][before[column]]
        for track in now:
            if track not in ids:
                highest += 1
                ids[track] = highest
        ids_by_clip.append(ids)
    return ids_by_clip


def _distance(a: Look, b: Look) -> float:
    if a.class_index != b.class_index:
        return FORBIDDEN
    return float(np.linalg.norm(a.color - b.color) + np.linalg.norm(a.center - b.center))


def _looks(dataset: Dataset, video: VideoRecord, frame: FrameRecord) -> dict[int, Look]:
    """Track id -> look, for every thing in a frame."""
    try:
        image = decode_image(read_file(frame.image))
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=video.video_id, file=frame.image, cure=error.cure) from None
    ids = dataset.frame_ids(video, frame)
    looks = {}
    for segment in video.segments:
        y, x = np.nonzero(ids == segment.id)
        if dataset.classes.is_thing[segment.class_index] and len(y):
            looks[segment.id] = Look(class_index=segment.class_index, color=image[y, x].mean(axis=0) / 255,
                                     center=np.array([y.mean(), x.mean()]) / min(video.height, video.width))
    return looks


def _mean_looks(frames: list[dict[int, Look]]) -> dict[int, Look]:
    """The things of a clip; each look is the mean over the frames that show the thing."""
    clip = {}
    for track in sorted(set().union(*frames)):
        looks = [frame[track] for frame in frames if track in frame]
        clip[track] = Look(class_index=looks[0].class_index, color=np.mean([look.color for look in looks], axis=0),
                           center=np.mean([look.center for look in looks], axis=0))
    return clip
