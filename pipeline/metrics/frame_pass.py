"""One pass over the frames of a video for all metrics that compare label maps.

These metrics need to know which true and predicted segments share pixels in a frame, how many, and where. The pass
splits a frame, in reading order, into runs of pixels with the same true and predicted id. One comparison per pixel
finds the runs; sorting and counting all pixels is slower. Metrics see only runs. `score_video` decodes each frame once
for any number of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from model.contracts import PanopticVideo, SemanticVideo, VideoSegment
from model.labels import VOID, ClassTable
from pipeline.errors import BadInput
from pipeline.file_names import composed

LabelVideo = PanopticVideo | SemanticVideo


class VideoPart(Protocol):
    """The counts of one metric over one video."""

    def add(self, frame: FramePair) -> None:
        """Count the next frame."""

    def finish(self, video: str, frames: int) -> None:
        """Add the video to the metric. Called once, after every frame has passed all checks."""


class FrameMetric(Protocol):
    """A metric that compares label maps."""

    classes: ClassTable
    videos: Mapping[str, Any]    # the videos scored so far, by id

    def begin(self, truth: Side, prediction: Side) -> VideoPart:
        """Start a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePair:
    """One frame of truth and prediction. Segments are given as positions in the lists of the two `Side`s."""

    index: int                # of the frame in the video
    true: np.ndarray          # runs    segment of every run
    predicted: np.ndarray     # runs
    lengths: np.ndarray       # runs    pixels, in reading order
    pairs: np.ndarray         # pairs   segments that share pixels: positions in the flattened table true x predicted
    areas: np.ndarray         # pairs   int64 pixels


def score_video(metrics: Sequence[FrameMetric], prediction: LabelVideo, truth: LabelVideo) -> None:
    """Score one video with all `metrics`, which share a class table. Frames are streamed, and each is decoded once.

    A semantic video counts as one segment per class. Raises BadInput, and adds nothing to any metric, when names,
    counts or sizes of frames differ, when a map holds an id that is not listed, when a predicted id has no pixel, and
    when the video was scored before.
    """
    classes = metrics[0].classes
    if any(metric.classes != classes for metric in metrics):
        raise ValueError("metrics of one pass must share a class table; build them of the same one")
    refuse_unfit(metrics, prediction, truth)
    true = Side(truth, "truth", len(classes))
    predicted = Side(prediction, "prediction", len(classes))
    parts = [metric.begin(true, predicted) for metric in metrics]
    for frame in _frame_pairs(truth, prediction, true, predicted):
        for part in parts:
            part.add(frame)
    predicted.refuse_empty()
    for part in parts:
        part.finish(truth.video_id, len(truth.frame_names))


def refuse_unfit(metrics: Sequence[FrameMetric], prediction: Any, truth: Any) -> None:
    """Raise BadInput if truth and prediction have different frames, or if a metric has scored the video before."""
    video = truth.video_id
    if any(video in metric.videos for metric in metrics):
        raise BadInput("scored-twice", "the video was scored before.", video=video,
                       cure="Give every video its own id and score it once.")
    same_frames = [*map(composed, prediction.frame_names)] == [*map(composed, truth.frame_names)]
    if prediction.video_id != video or not same_frames:
        raise BadInput("frame-mismatch", f"the prediction has video {prediction.video_id!r} with "
                       f"{len(prediction.frame_names)} frames {_ends(prediction.frame_names)}, the truth has "
                       f"{len(truth.frame_names)} frames {_ends(truth.frame_names)}.", video=video,
                       cure="Predict every annotated frame, in the same order.")


class Side:
    """The listed segments of truth or prediction. Position 0 is void, position i the i-th smallest id."""

    def __init__(self, video: LabelVideo, name: str, classes: int) -> None:
        self.video = video.video_id
        self.name = name
        self.is_semantic = isinstance(video, SemanticVideo)
        segments = ({index: VideoSegment(class_index=index, track=0) for index in range(classes)} if self.is_semantic
                    else video.segments)
        self.ids = np.array([VOID, *sorted(segments)], np.int64)
        listed: list[VideoSegment] = [segments[i] for i in self.ids[1:].tolist()]
        self.classes = np.array([classes, *(segment.class_index for segment in listed)])    # void is one past the table
        self.is_crowd = np.array([True, *(segment.is_crowd for segment in listed)])         # void is no target either
        self.is_first = self.ids == next(iter(segments), VOID)                              # in the order of listing
        self.seen = np.zeros(len(self.ids), bool)
        known = (self.classes[1:] >= 0) & (self.classes[1:] < classes)
        if self.ids[1:].min(initial=0) < 0 or not known.all():
            raise BadInput("unknown-category", f"a segment of the {name} has an id below 0 or a class outside 0 to "
                           f"{classes - 1}.", video=self.video,
                           cure="Use the class table of the model that made the video.")

    def positions(self, ids: np.ndarray, frame: str) -> np.ndarray:
        """Ids -> positions in the list. Raises BadInput for ids that are not listed."""
        positions = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        if (self.ids[positions] != ids).any():
            unlisted = np.unique(ids[self.ids[positions] != ids]).tolist()
            raise BadInput("unlisted-id", f"frame {frame!r} of the {self.name} holds the ids {unlisted[:5]}, which its "
                           "segments do not list.", video=self.video, cure="List every id of the maps; void is -1.")
        self.seen[positions] = True
        return positions

    def refuse_empty(self) -> None:
        """Raise BadInput for listed ids without a pixel. In a semantic video, not every class has to occur."""
        if not self.is_semantic and (empty := self.ids[1:][~self.seen[1:]].tolist()):
            raise BadInput("empty-segment", f"the {self.name} lists the ids {empty[:5]}, which have no pixel in any "
                           f"frame.", video=self.video, cure="List only segments that have pixels.")


class WholeVideo:
    """Collects the areas of a whole video, true segments x predicted segments, for metrics that need nothing else."""

    def __init__(self, truth: Side, prediction: Side, count: Callable[[str, int, np.ndarray], None]) -> None:
        self.areas = np.zeros((len(truth.ids), len(prediction.ids)), np.int64)
        self.count = count

    def add(self, frame: FramePair) -> None:
        """Add the pixels of one frame."""
        self.areas.reshape(-1)[frame.pairs] += frame.areas

    def finish(self, video: str, frames: int) -> None:
        """Pass the areas to the metric."""
        self.count(video, frames, self.areas)


def _frame_pairs(truth: LabelVideo, prediction: LabelVideo, true: Side, predicted: Side) -> Iterator[FramePair]:
    """Yield every frame. Raises BadInput if sizes differ, or if there are more or fewer maps than names."""
    trues = iter(truth.frames)
    predicteds = iter(prediction.frames)
    for index, name in enumerate(truth.frame_names):
        true_map = next(trues, None)
        predicted_map = next(predicteds, None)
        shapes = [None if ids is None else ids.shape for ids in (true_map, predicted_map)]
        if shapes[0] != shapes[1] or true_map is None:
            raise BadInput("size-differs", f"frame {name!r} is {shapes[0]} (height, width) in the truth and "
                           f"{shapes[1]} in the prediction; None means that there is no such frame.",
                           video=truth.video_id,
                           cure="Predict every annotated frame at its own size.")
        yield _frame_pair(index, name, true_map.ravel(), predicted_map.ravel(), true, predicted)
    if next(trues, None) is not None or next(predicteds, None) is not None:
        raise BadInput("frame-mismatch", f"there are more maps than the {len(truth.frame_names)} frame names.",
                       video=truth.video_id, cure="Give one map per frame name.")


def _frame_pair(index: int, name: str, true_ids: np.ndarray, predicted_ids: np.ndarray, true: Side,
                predicted: Side) -> FramePair:
    changes = (true_ids[1:] != true_ids[:-1]) | (predicted_ids[1:] != predicted_ids[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=true_ids.size)
    rows = true.positions(true_ids[starts], name)
    columns = predicted.positions(predicted_ids[starts], name)
    areas = np.bincount(rows * len(predicted.ids) + columns, lengths)
    pairs = np.flatnonzero(areas)
    return FramePair(index=index, true=rows, predicted=columns, lengths=lengths, pairs=pairs,
                     areas=areas[pairs].astype(np.int64))


def _ends(names: Sequence[str]) -> str:
    return f"({names[0]} to {names[-1]})" if names else "(none)"
