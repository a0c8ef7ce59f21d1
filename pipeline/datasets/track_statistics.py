"""How hard a data set is to track: how often things hide, and how often looks and nearness lose their identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.errors import BadInput
from pipeline.images import decode_image
from pipeline.records import Dataset, FrameRecord, VideoRecord

FORBIDDEN = 1e6    # cost of linking different classes; an assignment may hold such a pair, which is then dropped


@dataclass(frozen=True, kw_only=True)
class TrackStatistics:
    """Counts over some videos. A hiding is a stretch of frames without the thing between two with it."""

    tracks: int = 0          # things that show in at least one frame
    hidings: int = 0
    long_hidings: int = 0    # those of at least `long` frames
    handovers: int = 0       # from one clip that shows a thing to the next that does
    breaks: int = 0          # handovers at which the naive association changes the id

    @property
    def break_rate(self) -> float:
        """Share of handovers that break."""
        return self.breaks / max(1, self.handovers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the naive association sees of a thing: its class, mean colour (3, 0-1) and place (y, x in shorter sides)."""

    class_index: int
    color: np.ndarray
    place: np.ndarray


def track_statistics(dataset: Dataset, video_ids: Iterable[str], *, clip_length: int = 2,
                     long: int = 4) -> TrackStatistics:
    """Walk through labelled videos of a data set with id maps. Raises `BadInput` for what cannot be read.

    The naive association takes the true segments of clips of `clip_length` frames, so segmentation is perfect and what
    breaks is identity alone.
    """
    tracks = hidings = long_hidings = handovers = breaks = 0
    for video_id in video_ids:
        video = dataset.read(video_id)
        frames = [_looks(dataset, video, frame) for frame in video.frames]
        clips = [_mean_looks(frames[start:start + clip_length]) for start in range(0, len(frames), clip_length)]
        given = associate(clips)
        for track in set().union(*frames):
            shown = np.flatnonzero([track in frame for frame in frames])
            hidden = np.diff(shown) - 1
            ids = [ids[track] for ids in given if track in ids]
            tracks += 1
            hidings += int((hidden > 0).sum())
            long_hidings += int((hidden >= long).sum())
            handovers += len(ids) - 1
            breaks += sum(before != after for before, after in pairwise(ids))
    return TrackStatistics(tracks=tracks, hidings=hidings, long_hidings=long_hidings, handovers=handovers,
                           breaks=breaks)


def associate(clips: list[dict[int, Look]]) -> list[dict[int, int]]:
    """Per clip, true track -> id from linking neighbouring clips by colour and place; the unlinked get new ids."""
    given: list[dict[int, int]] = []
    fresh = 0
    for old, new in zip([{}, *clips], clips):
        cost = np.array([[_distance(a, b) for b in old.values()] for a in new.values()]).reshape(len(new), len(old))
        before = list(old)
        now = list(new)
        ids = {}
        for row, column in zip(*linear_sum_assignment(cost)):
            if cost[row, column] < FORBIDDEN:
                ids[now[row]] = given[-1][before[column]]
        for track in now:
            if track not in ids:
                fresh += 1
                ids[track] = fresh
        given.append(ids)
    return given


def _distance(a: Look, b: Look) -> float:
    if a.class_index != b.class_index:
        return FORBIDDEN
    return float(np.linalg.norm(a.color - b.color) + np.linalg.norm(a.place - b.place))


def _looks(dataset: Dataset, video: VideoRecord, frame: FrameRecord) -> dict[int, Look]:
    """Every thing of a frame."""
    try:
        image = decode_image(frame.image.read_bytes())
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=video.video_id, file=frame.image, cure=error.cure) from None
    ids = dataset.frame_ids(video, frame)
    looks = {}
    for segment in video.segments:
        y, x = np.nonzero(ids == segment.id)
        if dataset.classes.is_thing[segment.class_index] and len(y):
            looks[segment.id] = Look(class_index=segment.class_index, color=image[y, x].mean(axis=0) / 255,
                                     place=np.array([y.mean(), x.mean()]) / min(video.height, video.width))
    return looks


def _mean_looks(frames: list[dict[int, Look]]) -> dict[int, Look]:
    """The things of a clip, their looks averaged over the frames that show them."""
    clip = {}
    for track in sorted(set().union(*frames)):
        shown = [frame[track] for frame in frames if track in frame]
        clip[track] = Look(class_index=shown[0].class_index, color=np.mean([look.color for look in shown], axis=0),
                           place=np.mean([look.place for look in shown], axis=0))
    return clip
