"""Video panoptic quality as VIPSeg defines it (Kim et al., arXiv 2006.11339; VIPSeg-Dataset, eval_vpq_vspw.py).

A window of k frames slides over a video with stride 1; a tube is all pixels of one id inside the window. For a true and
a predicted tube of one class, union = true + predicted - intersection - predicted pixels on void, and IoU above 0.5
makes a true positive. Every other true tube is a false negative, every other predicted tube a false positive, but for
crowd: never a target, and a predicted tube is forgiven when more than half of it lies on void and crowd of its class.
Counts run over all windows of all videos; PQ of a class = sum of IoU / (tp + fp/2 + fn/2); VPQ^k averages the classes
that occur in truth or prediction, VPQ averages VPQ^k. A video shorter than k adds nothing to VPQ^k.

Areas are counted from the maps. The official script takes true areas from the json, which are the same numbers in a
well-formed data set, and of several crowds of one class in a window it forgives the last listed only; here all count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.contracts import PanopticVideo, VideoSegment
from model.labels import VOID, ClassTable
from pipeline.errors import BadInput
from pipeline.metrics.vpq_scores import ClassScore, VPQScores

WINDOWS = (1, 2, 4, 6, 8, 12)    # both published protocols, and 12 to see how long identities last
# An IoU above 0.5 is a double in (0.5, 1], so a multiple of 2^-53: sums of these units are exact integers, and merging
# in any order gives the same bits.
IOU_UNITS = 2**53


class VPQ:
    """Accumulates VPQ for any window lengths in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable, *, windows: Sequence[int] = WINDOWS) -> None:
        if not windows or min(windows) < 1 or len(set(windows)) != len(windows):
            raise ValueError(f"windows {tuple(windows)} must be different frame counts from 1 up, such as {WINDOWS}")
        self.classes, self.windows = classes, tuple(sorted(windows))
        self.videos: dict[str, int] = {}                                       # video -> frames
        self._counts = {k: np.zeros((3, len(classes)), np.int64) for k in self.windows}    # tp, fp, fn of each class
        self._iou = {k: [0] * len(classes) for k in self.windows}                          # in IOU_UNITS

    def update(self, prediction: PanopticVideo, truth: PanopticVideo) -> None:
        """Score one video; frames are streamed, only tables of areas are kept, for the longest window.

        Raises BadInput, and counts nothing, when names, counts or sizes of frames differ, when a map holds an id that
        is not listed, when a predicted id has no pixel, and for a video that was scored before.
        """
        self._refuse(prediction, truth)
        sides = [_Side(truth, "truth", len(self.classes)), _Side(prediction, "prediction", len(self.classes))]
        tubes = _Tubes(*sides)
        counts, iou = {k: np.zeros_like(c) for k, c in self._counts.items()}, {k: [] for k in self.windows}
        sliding = {k: np.zeros(tubes.shape, np.int64) for k in self.windows}
        recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=max(self.windows) + 1)
        for frame, (name, true, predicted) in enumerate(_frames(truth, prediction)):
            recent.append(_pair_areas(true, predicted, sides, name))
            for k, areas in sliding.items():
                _add(areas, recent[-1], 1)
                if frame >= k:
                    _add(areas, recent[-1 - k], -1)
                if frame >= k - 1:
                    iou[k].extend(tubes.score(areas, counts[k]))
        sides[1].refuse_empty()
        self.videos[truth.video_id] = len(truth.frame_names)
        for k in self.windows:
            self._counts[k] += counts[k]
            for class_index, units in iou[k]:
                self._iou[k][class_index] += units

    def merge(self, other: VPQ) -> None:
        """Add what `other` has counted. Raises ValueError for other classes or windows, or a video both have scored."""
        if (self.classes, self.windows) != (other.classes, other.windows):
            raise ValueError(f"scores of class table {other.classes.name!r}, windows {other.windows} cannot be merged "
                             f"into {self.classes.name!r}, {self.windows}; score all parts with the same two")
        if both := sorted(self.videos.keys() & other.videos.keys()):
            raise ValueError(f"{len(both)} videos would count twice, first {both[0]!r}; score each video in one part")
        self.videos |= other.videos
        for k in self.windows:
            self._counts[k] += other._counts[k]
            self._iou[k] = [a + b for a, b in zip(self._iou[k], other._iou[k])]

    def result(self) -> VPQScores:
        """The scores of everything counted so far."""
        table = {k: tuple(ClassScore(name=info.name, is_thing=info.is_thing, iou=units / IOU_UNITS, tp=tp, fp=fp, fn=fn)
                          for info, units, (tp, fp, fn) in zip(self.classes.classes, self._iou[k],
                                                               self._counts[k].T.tolist()))
                 for k in self.windows}
        return VPQScores(videos=len(self.videos), frames=sum(self.videos.values()), per_class=table)

    def to_json(self) -> dict[str, Any]:
        """Everything counted, as plain values: a worker scores its part, `from_json` and `merge` join the parts."""
        return {"classes": self.classes.to_json(), "videos": dict(sorted(self.videos.items())),
                "windows": [{"frames": k, "counts": self._counts[k].tolist(), "iou": self._iou[k]}
                            for k in self.windows]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> VPQ:
        """Read what `to_json` wrote."""
        vpq = cls(ClassTable.from_json(saved["classes"]), windows=[part["frames"] for part in saved["windows"]])
        vpq.videos = dict(saved["videos"])
        for part in saved["windows"]:
            vpq._counts[part["frames"]][:] = part["counts"]
            vpq._iou[part["frames"]] = list(part["iou"])
        return vpq

    def _refuse(self, prediction: PanopticVideo, truth: PanopticVideo) -> None:
        video = truth.video_id
        if video in self.videos:
            raise BadInput("scored-twice", "the video was scored before.", video=video,
                           cure="Give every video its own id and score it once.")
        if prediction.video_id != video or tuple(prediction.frame_names) != tuple(truth.frame_names):
            raise BadInput("frame-mismatch", f"the prediction is of video {prediction.video_id!r} with "
                           f"{len(prediction.frame_names)} frames {_ends(prediction.frame_names)}, the truth has "
                           f"{len(truth.frame_names)} frames {_ends(truth.frame_names)}.", video=video,
                           cure="Predict every annotated frame, in the same order.")


class _Side:
    """The listed segments of truth or prediction; position 0 is void, position i the i-th smallest id."""

    def __init__(self, video: PanopticVideo, name: str, classes: int) -> None:
        self.video, self.name = video.video_id, name
        self.ids = np.array([VOID, *sorted(video.segments)], np.int64)
        listed: list[VideoSegment] = [video.segments[i] for i in self.ids[1:].tolist()]
        self.classes = np.array([0, *(segment.class_index for segment in listed)])    # void's entry is never read
        self.is_crowd = np.array([True, *(segment.is_crowd for segment in listed)])   # void is no target either
        self.seen = np.zeros(len(self.ids), bool)
        if self.ids[1:].min(initial=0) < 0 or not ((self.classes >= 0) & (self.classes < classes)).all():
            raise BadInput("unknown-category", f"a segment of the {name} has an id below 0 or a class outside 0 to "
                           f"{classes - 1}.", video=self.video, cure="Use the class table the video was made with.")

    def positions(self, ids: np.ndarray, frame: str) -> np.ndarray:
        """Ids -> positions in the list; refuses ids that are not listed."""
        found = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        if (self.ids[found] != ids).any():
            unlisted = np.unique(ids[self.ids[found] != ids]).tolist()
            raise BadInput("unlisted-id", f"frame {frame!r} of the {self.name} holds the ids {unlisted[:5]}, which its "
                           "segments do not list.", video=self.video, cure="List every id of the maps; void is -1.")
        self.seen[found] = True
        return found

    def refuse_empty(self) -> None:
        if empty := self.ids[1:][~self.seen[1:]].tolist():
            raise BadInput("empty-segment", f"the {self.name} lists the ids {empty[:5]}, which have no pixel in any "
                           f"frame.", video=self.video, cure="List only segments that own pixels.")


class _Tubes:
    """Which tubes of a video can meet; scores one window from the areas of their pairs."""

    def __init__(self, truth: _Side, prediction: _Side) -> None:
        self.truth, self.prediction = truth, prediction
        self.shape = (len(truth.ids), len(prediction.ids))
        same = truth.classes[:, None] == prediction.classes[None]
        same[0] = same[:, 0] = False
        self.candidates = np.nonzero(same & ~truth.is_crowd[:, None])
        self.crowds = np.nonzero(same & truth.is_crowd[:, None])

    def score(self, areas: np.ndarray, counts: np.ndarray) -> list[tuple[int, int]]:
        """Count one window. areas: truth x prediction, pixels. Adds to tp, fp, fn; returns class and IoU of each tp."""
        true_area, area, on_void = areas.sum(1), areas.sum(0), areas[0]
        true, predicted = self.candidates
        common = areas[true, predicted]
        union = true_area[true] + area[predicted] - common - on_void[predicted]
        hit = 2 * common > union                                  # at most one per tube, since above a half
        matched = self.truth.classes[true[hit]]
        missed, wrong = (true_area > 0) & ~self.truth.is_crowd, area > 0
        missed[true[hit]] = wrong[predicted[hit]] = wrong[0] = False
        crowd, covered = self.crowds
        forgiven = on_void + np.bincount(covered, areas[crowd, covered], len(area))
        wrong &= 2 * forgiven <= area
        for row, classes in enumerate((matched, self.prediction.classes[wrong], self.truth.classes[missed])):
            counts[row] += np.bincount(classes, minlength=counts.shape[1])
        units = common[hit] / union[hit] * IOU_UNITS
        return list(zip(matched.tolist(), units.astype(np.int64).tolist()))


def _frames(truth: PanopticVideo, prediction: PanopticVideo):
    """(name, true map, predicted map) of each frame; refuses other sizes and other counts than the names say."""
    trues, predicteds = iter(truth.frames), iter(prediction.frames)
    for name in truth.frame_names:
        true, predicted = next(trues, None), next(predicteds, None)
        shapes = [None if ids is None else ids.shape for ids in (true, predicted)]
        if shapes[0] != shapes[1] or true is None:
            raise BadInput("size-differs", f"frame {name!r} is {shapes[0]} (height, width) in the truth and "
                           f"{shapes[1]} in the prediction; None: no such frame.", video=truth.video_id,
                           cure="Predict every annotated frame at its own size.")
        yield name, true, predicted
    if next(trues, None) is not None or next(predicteds, None) is not None:
        raise BadInput("frame-mismatch", f"there are more maps than the {len(truth.frame_names)} frame names.",
                       video=truth.video_id, cure="Give one map per frame name.")


def _pair_areas(true: np.ndarray, predicted: np.ndarray, sides: Sequence[_Side],
                name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs of ids share pixels in one frame (positions in the flattened table of pairs), and how many.

    Looks at runs of equal pairs instead of pixels: one comparison a pixel replaces sorting them all.
    """
    true, predicted = true.ravel(), predicted.ravel()
    changes = (true[1:] != true[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=true.size)
    columns = len(sides[1].ids)
    pairs = sides[0].positions(true[starts], name) * columns + sides[1].positions(predicted[starts], name)
    areas = np.bincount(pairs, lengths)
    present = np.flatnonzero(areas)
    return present, areas[present].astype(np.int64)


def _add(areas: np.ndarray, frame: tuple[np.ndarray, np.ndarray], sign: int) -> None:
    areas.reshape(-1)[frame[0]] += sign * frame[1]


def _ends(names: Sequence[str]) -> str:
    return f"({names[0]} to {names[-1]})" if names else "(none)"
