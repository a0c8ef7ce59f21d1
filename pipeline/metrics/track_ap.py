"""Average precision and recall of tracks, as YouTube-VIS and OVIS define them (Yang et al., arXiv 1905.04804).

IoU of two tracks = pixels shared over all frames / pixels covered by either. Inside a video and class, predictions take
the free true track they overlap most, in descending order of score, when the IoU reaches the threshold; everything else
is COCO's protocol: ten thresholds, 101 recall points, caps of 1, 10 and 100 predictions per video and class, and crowd
and tracks outside the range of areas are ignored, as are predictions that fall on them. The area of a track is its mean
over the frames it is in. Measures are averaged over the classes that occur in the truth.
Source: the YouTube-VIS API (ytvoseval.py); equal scores are ranked by video, then in the order given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from model.contracts import Track, Tracks
from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.metrics.frame_pass import refuse_unfit
from pipeline.metrics.numbers import mean
from pipeline.metrics.per_video import PerVideoMetric
from pipeline.metrics.track_ap_scores import AREAS, CAPS, MOST, ClassAP, TrackAPScores, measures

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RANGES = np.array(list(AREAS.values()))    # areas 2
# outcomes of a prediction; 0 is wrong
RIGHT = 1
IGNORED = 2


class TrackAP(PerVideoMetric):
    """Accumulates track AP video by video. Keeps scores and IoUs, no masks; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable) -> None:
        super().__init__(classes)

    def update(self, prediction: Tracks, truth: Tracks) -> None:
        """Score one video.

        Raises BadInput, and counts nothing, when names, counts or sizes of frames differ, for classes outside the
        table and scores that are not finite, and for a video that was scored before.
        """
        refuse_unfit([self], prediction, truth)
        for side, name in ((truth, "truth"), (prediction, "prediction")):
            self._refuse(side, name, truth.size)
        rows = []
        for index in sorted({track.class_index for track in (*truth.tracks, *prediction.tracks)}):
            targets = [track for track in truth.tracks if track.class_index == index]
            guesses = [track for track in prediction.tracks if track.class_index == index]
            guesses = sorted(guesses, key=lambda track: -track.score)[:MOST]
            ious, areas, true_areas = compare_tracks(guesses, targets)
            rows.append({"class": index, "scores": [float(track.score) for track in guesses], "areas": areas.tolist(),
                         "true_areas": true_areas.tolist(), "crowd": [int(track.is_crowd) for track in targets],
                         "ious": ious.tolist()})
        self.videos[truth.video_id] = {"frames": len(truth.frame_names), "classes": rows}

    def result(self, videos: Collection[str] | None = None) -> TrackAPScores:
        """The scores of everything counted so far, or of a subset of `videos`.

        Raises ValueError for a video that was not scored.
        """
        if unknown := sorted(set(videos or ()) - self.videos.keys()):
            raise ValueError(f"{len(unknown)} of the videos asked for were not scored, first {unknown[0]!r}")
        chosen = [record for video, record in self.in_order() if videos is None or video in videos]
        rows: list[list[dict[str, Any]]] = [[] for _ in self.classes.classes]
        for record in chosen:
            for row in record["classes"]:
                rows[row["class"]].append(row)
        return TrackAPScores(videos=len(chosen), frames=sum(record["frames"] for record in chosen),
                             per_class=tuple(_class_ap(info.name, part)
                                             for info, part in zip(self.classes.classes, rows)))

    def by_set(self, sets: Mapping[str, Collection[str]]) -> dict[str, dict[str, float | None]]:
        """Summaries of sets of videos, and their mean as "all": YouTube-VIS 2022 has "short" and "long".

        Raises ValueError unless every scored video is in exactly one set.
        """
        members = [video for videos in sets.values() for video in videos]
        if sorted(members) != sorted(self.videos):
            wrong = sorted(set(members) ^ self.videos.keys()) or sorted({v for v in members if members.count(v) > 1})
            raise ValueError(f"{len(wrong)} videos are not in exactly one of the sets {list(sets)}, or were not "
                             f"scored, first {wrong[0]!r}")
        parts = {name: self.result(videos).summary() for name, videos in sets.items()}
        keys = next(iter(parts.values()))
        together = {key: [part[key] for part in parts.values() if part[key] is not None] for key in keys}
        return {**parts, "all": {key: mean(values) if values else None for key, values in together.items()}}

    def _refuse(self, side: Tracks, name: str, size: tuple[int, int]) -> None:
        for number, track in enumerate(side.tracks):
            where = f"track {number} of the {name}"
            sizes = {tuple(mask["size"]) for mask in track.masks if mask} | {tuple(side.size)}
            if sizes != {tuple(size)}:
                raise BadInput("size-differs", f"{where} has masks of {sorted(sizes)} (height, width), the frames have "
                               f"{tuple(size)}.", video=side.video_id, cure="Give masks at the size of the frames.")
            if len(track.masks) != len(side.frame_names):
                raise BadInput("frame-mismatch", f"{where} has {len(track.masks)} masks for {len(side.frame_names)} "
                               "frames.", video=side.video_id, cure="Give one per frame, None where it is absent.")
            if not 0 <= track.class_index < len(self.classes):
                raise BadInput("unknown-category", f"{where} has the class {track.class_index}, outside 0 to "
                               f"{len(self.classes) - 1}.", video=side.video_id,
                               cure="Use the class table the video was made with.")
            if not isfinite(track.score):
                raise BadInput("bad-score", f"{where} has the score {track.score}.", video=side.video_id,
                               cure="Scores are finite numbers.")


def compare_tracks(guesses: Sequence[Track], targets: Sequence[Track]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU of all pairs (guesses x targets), and the mean areas of both in pixels, over the frames each is in.

    One call per frame compares all pairs present; the pixels they share follow from its IoU, exactly, since they are
    whole numbers: shared = iou (a + b) / (1 + iou).
    """
    # guesses T, targets T
    areas = _areas(guesses)
    true_areas = _areas(targets)
    shared = np.zeros((len(guesses), len(targets)))
    for frame in range(areas.shape[1] if targets else 0):
        here = np.flatnonzero(areas[:, frame])
        there = np.flatnonzero(true_areas[:, frame])
        if len(here) and len(there):
            ious = run_lengths.iou([guesses[i].masks[frame] for i in here],
                                   [targets[i].masks[frame] for i in there], [0] * len(there))
            both = areas[here, frame][:, None] + true_areas[there, frame][None]
            shared[np.ix_(here, there)] += np.rint(ious * both / (1 + ious))
    union = areas.sum(1)[:, None] + true_areas.sum(1)[None] - shared
    return shared / np.maximum(union, 1), *(a.sum(1) / np.maximum((a > 0).sum(1), 1) for a in (areas, true_areas))


def match_tracks(ious: np.ndarray, crowd: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Outcome of every prediction, areas thresholds n: right, wrong, or ignored for having taken what is ignored.

    ious: n m, by descending score. crowd: m, may be taken by many. ignored: areas m, crowd and out of range.
    A prediction prefers what counts over what is ignored, then the higher IoU, then the later true track.
    """
    outcome = np.zeros((len(ignored), len(THRESHOLDS), len(ious)), np.int8)
    free = np.ones((len(ignored), len(THRESHOLDS), len(crowd)), bool)               # areas thresholds m
    areas, thresholds = np.ogrid[:len(ignored), :len(THRESHOLDS)]
    for guess in np.flatnonzero(ious.max(1, initial=0) >= THRESHOLDS[0]):
        eligible = (ious[guess] >= THRESHOLDS[:, None]) & (free | crowd)            # areas thresholds m
        counting = eligible & ~ignored[:, None]
        eligible = np.where(counting.any(-1, keepdims=True), counting, eligible)
        backwards = np.where(eligible, ious[guess], -1)[..., ::-1]
        best = len(crowd) - 1 - backwards.argmax(-1)                                # areas thresholds
        found = eligible[areas, thresholds, best]
        outcome[..., guess] = np.where(found, np.where(ignored[areas, best], IGNORED, RIGHT), 0)
        free[areas, thresholds, best] &= ~found
    return outcome


def _areas(tracks: Sequence[Track]) -> np.ndarray:
    frames = len(tracks[0].masks) if tracks else 0
    areas = np.zeros((len(tracks), frames))
    for row, track in zip(areas, tracks):
        present = [frame for frame, mask in enumerate(track.masks) if mask]
        row[present] = run_lengths.area([track.masks[frame] for frame in present])
    return areas


def _outside(areas: np.ndarray) -> np.ndarray:
    """Which areas lie outside of each range: areas n."""
    return (areas < RANGES[:, :1]) | (areas > RANGES[:, 1:])


def _class_ap(name: str, rows: Sequence[Mapping[str, Any]]) -> ClassAP:
    """All measures of one class from its rows of all videos."""
    outcomes = []
    targets = np.zeros(len(RANGES), np.int64)
    for row in rows:
        crowd = np.array(row["crowd"], bool)
        n = len(row["scores"])
        ignored = crowd | _outside(np.array(row["true_areas"]))                              # areas m
        targets += (~ignored).sum(1)
        outcome = match_tracks(np.array(row["ious"]).reshape(n, len(crowd)), crowd, ignored)  # areas thresholds n
        outcomes.append(np.where((outcome == 0) & _outside(np.array(row["areas"]))[:, None], IGNORED, outcome))
    scores = np.array([score for row in rows for score in row["scores"]])
    place = np.array([place for row in rows for place in range(len(row["scores"]))], np.int64)
    order = np.argsort(-scores, kind="stable")
    joined = np.concatenate(outcomes, -1) if outcomes else np.zeros((len(RANGES), len(THRESHOLDS), 0), np.int8)
    by_cap = {cap: joined[..., order[place[order] < cap]] for cap in CAPS}
    return ClassAP(name=name, tracks=int(targets[0]), measures=measures(by_cap, targets))
