"""IDF1 and identity switches of tracks, which may overlap and have scores; `identity.py` defines both.

Overlapping masks can match several others. IDF1 reads all pairs; for switches, the true and the predicted tracks of a
frame are paired one to one, with the largest sum of IoUs above 0.5. A predicted mask that matches nothing does not
count if more than half of it lies on a crowd. AP ranks many tracks of low scores; here only those from a threshold on
count, and of ten thresholds (0 to 0.9) the one with the best IDF1 over all videos is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from model.association.clip_wise import assign_below
from model.contracts import Track, Tracks
from model.labels import ClassTable
from pipeline.metrics.identity import IdentityScores, LastMatches, paired, summed
from pipeline.metrics.per_video import PerVideoMetric
from pipeline.metrics.track_ap import refuse_unfit_tracks

THRESHOLDS = np.arange(10) / 10    # of scores
MATCH = 0.5                        # an IoU above it


class TrackIdentity(PerVideoMetric):
    """Accumulates the matches of tracks at every threshold, video by video; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable) -> None:
        super().__init__(classes)

    def update(self, prediction: Tracks, truth: Tracks) -> None:
        """Score one video. Raises BadInput, and counts nothing, for the reasons `refuse_unfit_tracks` lists."""
        refuse_unfit_tracks(self, prediction, truth)
        targets = [track for track in truth.tracks if not track.is_crowd]
        crowds = [track for track in truth.tracks if track.is_crowd]
        scores = np.array([track.score for track in prediction.tracks])
        frames = len(truth.frame_names)
        true = np.array([[mask is not None for mask in track.masks] for track in targets], bool).reshape(-1, frames)
        ious = compared(prediction.tracks, targets, frames=frames)
        covered = compared(prediction.tracks, crowds, frames=frames, is_crowd=True).max(2, initial=0)
        seen = np.array([[mask is not None for mask in track.masks] for track in prediction.tracks], bool)
        forgiven = (covered > MATCH) & (ious.max(2, initial=0) <= MATCH)               # T n
        seen = seen.reshape(-1, frames).T & ~forgiven
        counts = []
        for threshold in THRESHOLDS:
            kept = scores >= threshold
            counts.append([paired((ious[:, kept] > MATCH).sum(0).T), int(true.sum()), int(seen[:, kept].sum()),
                           _switches(ious[:, kept])])
        self.videos[truth.video_id] = {"frames": frames, "things": int(true.any(1).sum()), "counts": counts}

    def result(self) -> IdentityScores:
        """The scores of everything counted so far, at the threshold with the best IDF1; the lowest of equals."""
        records = [record for _, record in self.in_order()]
        options = [self._scores(records, index) for index in range(len(THRESHOLDS))]
        return max(options, key=lambda scores: -1 if scores.idf1 != scores.idf1 else scores.idf1)

    def _scores(self, records: Sequence[dict[str, Any]], index: int) -> IdentityScores:
        matched, true, predicted, switches = summed(record["counts"][index] for record in records)
        return IdentityScores(videos=len(records), frames=self.frames(), matched=matched, true=true,
                              predicted=predicted, switches=switches, name="identity of tracks", prefix="track_",
                              things=sum(record["things"] for record in records), threshold=float(THRESHOLDS[index]))


def compared(predicted: Sequence[Track], targets: Sequence[Track], *, frames: int,
             is_crowd: bool = False) -> np.ndarray:
    """IoU of all pairs in every frame, T predicted targets; with crowds, the part of the predicted mask they cover."""
    ious = np.zeros((frames, len(predicted), len(targets)))
    for frame in range(frames):
        rows = [index for index, track in enumerate(predicted) if track.masks[frame]]
        columns = [index for index, track in enumerate(targets) if track.masks[frame]]
        if rows and columns:
            ious[frame][np.ix_(rows, columns)] = run_lengths.iou(
                [predicted[index].masks[frame] for index in rows], [targets[index].masks[frame] for index in columns],
                [is_crowd] * len(columns))
    return ious


def matches_by_frame(ious: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """The (target, predicted) pairs of each frame for switches. ious: T predicted targets."""
    for frame in ious:
        yield [(int(target), int(predicted)) for predicted, target in assign_below(1 - frame, limit=1 - MATCH)]


def _switches(ious: np.ndarray) -> int:
    """ious: T predicted targets."""
    last = LastMatches()
    return sum(len(last.switches(frame, matches)) for frame, matches in enumerate(matches_by_frame(ious)))
