"""Average precision and recall of tracks, as YouTube-VIS and OVIS define them (Yang et al., arXiv 1905.04804).

The IoU of two tracks is the number of pixels they share over all frames, divided by the number that either covers. In
each video and class, predictions are matched in descending order of score: each takes the free true track with the
highest IoU, if that reaches the threshold. The rest is COCO's protocol: ten thresholds, 101 recall points, and caps of
1, 10 and 100 predictions per video and class; crowd and tracks outside the range of areas are ignored, and so are
predictions that match them. The area of a track is its mean over the frames that show it. Measures are averaged over
the classes that occur in the truth. Source: the YouTube-VIS API (ytvoseval.py); equal scores are ranked by video, then
in the given order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import Any, Self

import numpy as np

from model.contracts import Track, Tracks
from model.labels import ClassTable
from model.postprocess.track_overlap import compare_tracks
from pipeline.errors import BadInput
from pipeline.metrics.frame_pass import refuse_unfit
from pipeline.metrics.numbers import mean
from pipeline.metrics.per_video import PerVideoMetric
from pipeline.metrics.track_ap_scores import AREAS, CAPS, MOST, ClassAP, TrackAPScores, measures

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RANGES = np.array(list(AREAS.values()))    # areas 2
# outcomes of a prediction; 0 means wrong
RIGHT = 1
IGNORED = 2


class ClassRow(dict[str, Any]):
    """What is kept of one class in one video, and what follows from it in any set of videos, computed once."""

    @cached_property
    def targets(self) -> np.ndarray:
        """The number of true tracks that are not ignored: areas."""
        return (~self._ignored).sum(1)

    @cached_property
    def outcomes(self) -> np.ndarray:
        """The outcome of each prediction, which is RIGHT, IGNORED or 0: areas thresholds n."""
        ious = np.array(self["ious"]).reshape(len(self["scores"]), len(self["crowd"]))
        outcomes = match_tracks(ious, np.array(self["crowd"], bool), self._ignored)
        return np.where((outcomes == 0) & _outside(np.array(self["areas"]))[:, None], IGNORED, outcomes)

    @property
    def _ignored(self) -> np.ndarray:
        return np.array(self["crowd"], bool) | _outside(np.array(self["true_areas"]))       # areas m


class TrackAP(PerVideoMetric):
    """Accumulates track AP video by video. Keeps scores and IoUs but no masks; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable) -> None:
        super().__init__(classes)

    def update(self, prediction: Tracks, truth: Tracks) -> None:
        """Score one video. Raises BadInput, and counts nothing, for the reasons `refuse_unfit_tracks` lists."""
        refuse_unfit_tracks(self, prediction, truth)
        rows = []
        for index in sorted({track.class_index for track in (*truth.tracks, *prediction.tracks)}):
            targets = [track for track in truth.tracks if track.class_index == index]
            predicted = [track for track in prediction.tracks if track.class_index == index]
            predicted = sorted(predicted, key=lambda track: -track.score)[:MOST]
            ious, areas, true_areas = compare_tracks(predicted, targets)
            rows.append(ClassRow({
                "class": index, "scores": [float(track.score) for track in predicted], "areas": areas.tolist(),
                "true_areas": true_areas.tolist(), "crowd": [int(track.is_crowd) for track in targets],
                "ious": ious.tolist()}))
        self.videos[truth.video_id] = {"frames": len(truth.frame_names), "classes": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        metric = super().from_json(saved)
        metric.videos = {video: {**record, "classes": [ClassRow(row) for row in record["classes"]]}
                         for video, record in metric.videos.items()}
        return metric

    def result(self, videos: Collection[str] | None = None) -> TrackAPScores:
        """The scores of everything counted so far, or of a subset of `videos`.

        Raises ValueError for a video that was not scored.
        """
        if unknown := sorted(set(videos or ()) - self.videos.keys()):
            raise ValueError(f"{len(unknown)} of the requested videos were not scored, first {unknown[0]!r}; score "
                             "them, or leave them out")
        chosen = [record for video, record in self.in_order() if videos is None or video in videos]
        rows: list[list[ClassRow]] = [[] for _ in self.classes.classes]
        for record in chosen:
            for row in record["classes"]:
                rows[row["class"]].append(row)
        return TrackAPScores(videos=len(chosen), frames=sum(record["frames"] for record in chosen),
                             per_class=tuple(_class_ap(info.name, part)
                                             for info, part in zip(self.classes.classes, rows)))

    def by_set(self, sets: Mapping[str, Collection[str]]) -> dict[str, dict[str, float | None]]:
        """Summaries of sets of videos (YouTube-VIS 2022 has "short" and "long"), and the mean of the sets as "all".

        Raises ValueError unless every scored video is in exactly one set.
        """
        members = [video for videos in sets.values() for video in videos]
        if sorted(members) != sorted(self.videos):
            wrong = sorted(set(members) ^ self.videos.keys()) or sorted({v for v in members if members.count(v) > 1})
            raise ValueError(f"{len(wrong)} videos are not in exactly one of the sets {list(sets)}, or were not "
                             f"scored, first {wrong[0]!r}")
        parts = {name: self.result(videos).summary() for name, videos in sets.items()}
        keys = next(iter(parts.values()))
        values_of = {key: [part[key] for part in parts.values() if part[key] is not None] for key in keys}
        return {**parts, "all": {key: mean(values) if values else None for key, values in values_of.items()}}


def refuse_unfit_tracks(metric: PerVideoMetric, prediction: Tracks, truth: Tracks) -> None:
    """Raise BadInput unless the two can be compared.

    They cannot when names, counts or sizes of frames differ, for classes outside the table, for scores that are not
    finite, and for a video that the metric has scored before.
    """
    refuse_unfit([metric], prediction, truth)
    for side, name in ((truth, "truth"), (prediction, "prediction")):
        for index, track in enumerate(side.tracks):
            _refuse_unfit_track(track, side, f"track {index} of the {name}", size=tuple(truth.size),
                                classes=len(metric.classes))


def _refuse_unfit_track(track: Track, side: Tracks, where: str, *, size: tuple[int, int], classes: int) -> None:
    sizes = {tuple(mask["size"]) for mask in track.masks if mask} | {tuple(side.size)}
    if sizes != {size}:
        raise BadInput("size-differs", f"{where} has masks of {sorted(sizes)} (height, width), the frames have "
                       f"{size}.", video=side.video_id, cure="Give masks at the size of the frames.")
    if len(track.masks) != len(side.frame_names):
        raise BadInput("frame-mismatch", f"{where} has {len(track.masks)} masks for {len(side.frame_names)} "
                       "frames.", video=side.video_id, cure="Give one mask per frame, None where the track is absent.")
    if not 0 <= track.class_index < classes:
        raise BadInput("unknown-category", f"{where} has the class {track.class_index}, outside 0 to "
                       f"{classes - 1}.", video=side.video_id,
                       cure="Use the class table of the model that made the video.")
    if not isfinite(track.score):
        raise BadInput("bad-score", f"{where} has the score {track.score}.", video=side.video_id,
                       cure="Give finite scores.")


def match_tracks(ious: np.ndarray, crowd: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Outcome of every prediction, areas thresholds n: right, wrong, or ignored since its true track is ignored.

    ious: n m, predictions by descending score. crowd: m; a crowd can match many predictions. ignored: areas m, true
    tracks that are crowd or out of range. A prediction prefers a track that is not ignored, then the higher IoU, then
    the later track.
    """
    outcome = np.zeros((len(ignored), len(THRESHOLDS), len(ious)), np.int8)
    free = np.ones((len(ignored), len(THRESHOLDS), len(crowd)), bool)               # areas thresholds m
    areas, thresholds = np.ogrid[:len(ignored), :len(THRESHOLDS)]
    for index in np.flatnonzero(ious.max(1, initial=0) >= THRESHOLDS[0]):
        eligible = (ious[index] >= THRESHOLDS[:, None]) & (free | crowd)            # areas thresholds m
        counting = eligible & ~ignored[:, None]
        eligible = np.where(counting.any(-1, keepdims=True), counting, eligible)
        backwards = np.where(eligible, ious[index], -1)[..., ::-1]
        best = len(crowd) - 1 - backwards.argmax(-1)                                # areas thresholds
        matched = eligible[areas, thresholds, best]
        outcome[..., index] = np.where(matched, np.where(ignored[areas, best], IGNORED, RIGHT), 0)
        free[areas, thresholds, best] &= ~matched
    return outcome


def _outside(areas: np.ndarray) -> np.ndarray:
    """Whether each area lies outside each range: areas n."""
    return (areas < RANGES[:, :1]) | (areas > RANGES[:, 1:])


def _class_ap(name: str, rows: Sequence[ClassRow]) -> ClassAP:
    """All measures of one class, from its rows in all videos."""
    targets = sum((row.targets for row in rows), np.zeros(len(RANGES), np.int64))
    scores = np.array([score for row in rows for score in row["scores"]])
    rank = np.array([rank for row in rows for rank in range(len(row["scores"]))], np.int64)      # in video and class
    order = np.argsort(-scores, kind="stable")
    nothing = np.zeros((len(RANGES), len(THRESHOLDS), 0), np.int8)
    joined = np.concatenate([nothing, *(row.outcomes for row in rows)], -1)
    by_cap = {cap: joined[..., order[rank[order] < cap]] for cap in CAPS}
    return ClassAP(name=name, tracks=int(targets[0]), measures=measures(by_cap, targets))
