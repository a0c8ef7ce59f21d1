"""Segmentation and tracking quality (Weber et al., STEP, arXiv 2102.11859), the measure of KITTI-STEP.

SQ is the mean IoU of the classes that occur in truth or prediction; IoU is computed as in `miou`. AQ measures how well
tracks hold together, whatever their class: it is the mean, over all true thing tracks g, of
1/|g| sum_p TPA^2 / (|g| + |p| - TPA), where TPA counts the pixels of the whole video that g shares with the predicted
thing track p. Predicted pixels on stuff or void count against p, those on crowd are left out. STQ = sqrt(SQ AQ).
Source: DeepLab2's evaluation, segmentation_and_tracking_quality.py.

`official_compat` reproduces the released scripts, for comparison with published numbers. Both scripts count void as one
more class, with IoU 0, as soon as a labelled pixel is predicted as void, and give AQ 0 to a video without a track;
"step" (KITTI-STEP) does no more. VIPSeg's script (eval_stq_vspw.py) also numbers the segments of a video from 0 in the
order of listing. It therefore takes the first one for crowd if it is a thing, and ignores the crowd flags of the data:
"vipseg". This needs `PanopticVideo.segments` in the order of the json, as `Predictions` and `ShardSet.truth` return it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Any, Literal

import numpy as np

from model.labels import ClassTable
from pipeline.metrics.frame_pass import LabelVideo, Side, WholeVideo, score_video
from pipeline.metrics.miou import ClassIoU, class_ious, class_pixels, class_table
from pipeline.metrics.numbers import NAN, cell, mean, percent
from pipeline.metrics.per_video import PerVideoMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """STQ and its two factors, 0 to 1; NaN if there was nothing to score."""

    sq: float
    aq: float

    @property
    def stq(self) -> float:
        """The geometric mean."""
        return sqrt(self.sq * self.aq)


@dataclass(frozen=True, slots=True, kw_only=True)
class STQScores:
    """Result of `STQ`. Fractions everywhere, percent in `summary` and `table`, as papers print them."""

    videos: int
    frames: int
    tracks: int                        # true thing tracks
    all: Quality
    per_video: Mapping[str, Quality]
    per_class: tuple[ClassIoU, ...]    # one entry per class of the table

    def summary(self) -> dict[str, float | None]:
        """In percent; None if there was nothing to score."""
        return {"stq": percent(self.all.stq), "sq": percent(self.all.sq), "aq": percent(self.all.aq)}

    def table(self) -> str:
        """The scores in percent, as text."""
        head = f"{'':<22}{'STQ':>8}{'SQ':>8}{'AQ':>8}"
        return (f"{head}\n{'all':<22}" + "".join(cell(value) for value in self.summary().values())
                + f"\n{self.videos} videos, {self.frames} frames, {self.tracks} true tracks")


class STQ(PerVideoMetric):
    """Accumulates STQ in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable, *, official_compat: Literal["", "step", "vipseg"] = "") -> None:
        if official_compat not in ("", "step", "vipseg"):
            raise ValueError(f"official_compat is {official_compat!r}; choose 'step', 'vipseg', or '' for none")
        super().__init__(classes, official_compat=official_compat)
        self.official_compat = official_compat

    def update(self, prediction: LabelVideo, truth: LabelVideo) -> None:
        """Score one video. Raises BadInput, and counts nothing, for the reasons `score_video` lists."""
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> WholeVideo:
        """Start a video, in a pass shared with other metrics."""
        def count(video: str, frames: int, areas: np.ndarray) -> None:
            self.videos[video] = {"frames": frames, "pixels": class_pixels(areas, truth, prediction),
                                  **self._association(areas, truth, prediction)}

        return WholeVideo(truth, prediction, count)

    def result(self) -> STQScores:
        """The scores of everything counted so far."""
        records = dict(self.in_order())
        table = class_table((record["pixels"] for record in records.values()), len(self.classes))
        return STQScores(videos=len(records), frames=self.frames(), per_class=class_ious(table, self.classes),
                         tracks=sum(record["tracks"] for record in records.values()),
                         all=self._quality(list(records.values())),
                         per_video={video: self._quality([record]) for video, record in records.items()})

    def _association(self, areas: np.ndarray, truth: Side, prediction: Side) -> dict[str, Any]:
        """The sum of the association quality of all true tracks, and their number. areas: of the whole video."""
        things = np.append(self.classes.is_thing, False)                # void is not a thing
        crowd = things[truth.classes] & (truth.is_first if self.official_compat == "vipseg" else truth.is_crowd)
        size = areas.sum(1)
        tracks = things[truth.classes] & ~crowd & (size > 0)
        predicted = things[prediction.classes]
        common = areas[tracks][:, predicted]                            # tracks x predicted tracks
        union = size[tracks][:, None] + areas[~crowd][:, predicted].sum(0) - common
        quality = (common * (common / union.clip(min=1))).sum(1) / size[tracks]
        return {"association": fsum(quality.tolist()), "tracks": int(tracks.sum())}

    def _quality(self, records: list[Mapping[str, Any]]) -> Quality:
        table = class_table((record["pixels"] for record in records), len(self.classes))
        ious = [row.iou for row in class_ious(table, self.classes) if row.union]
        tracks = sum(record["tracks"] for record in records)
        if self.official_compat and table[:, -1].any():
            ious.append(0.0)
        none = 0.0 if self.official_compat else NAN
        return Quality(sq=mean(ious), aq=fsum(record["association"] for record in records) / tracks if tracks else none)
