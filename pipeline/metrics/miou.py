"""Mean intersection over union of classes, over all frames of a data set, as VSPW reports it (Miao et al., CVPR 2021).

One table counts the pixels of all videos, true class x predicted class. Void of the truth is left out; a labelled pixel
that is predicted as void counts as missed. The mean is over the classes that occur in the truth (VSPW_code,
iou_cal.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.labels import ClassTable
from pipeline.metrics.frame_pass import LabelVideo, Side, WholeVideo, score_video
from pipeline.metrics.numbers import NAN, cell, mean, percent
from pipeline.metrics.per_video import PerVideoMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassIoU:
    """Pixels of one class over all scored frames."""

    name: str
    is_thing: bool
    true: int        # pixels with this label
    common: int      # those of them that are predicted with it
    union: int       # pixels labelled or predicted with it, void of the truth left out

    @property
    def iou(self) -> float:
        """0 to 1; NaN for a class that occurs in neither truth nor prediction."""
        return self.common / self.union if self.union else NAN


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanIoUScores:
    """Result of `MeanIoU`. Fractions everywhere, percent in `summary` and `table`, as papers print them."""

    videos: int
    frames: int
    per_class: tuple[ClassIoU, ...]    # one entry per class of the table

    @property
    def miou(self) -> float:
        """The mean over the classes that occur in the truth; NaN if none does."""
        return mean(row.iou for row in self.per_class if row.true)

    def summary(self) -> dict[str, float | None]:
        """In percent; None if there was nothing to score."""
        return {"miou": percent(self.miou)}

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class that occurs in truth or prediction, in percent."""
        return [{"class": row.name, "thing": row.is_thing, "iou": percent(row.iou), "true_pixels": row.true}
                for row in self.per_class if row.union]

    def table(self) -> str:
        """The score in percent, as text."""
        return f"{'mIoU':<22}{cell(percent(self.miou))}\n{self.videos} videos, {self.frames} frames"


class MeanIoU(PerVideoMetric):
    """Accumulates the table of pixels in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable) -> None:
        super().__init__(classes)

    def update(self, prediction: LabelVideo, truth: LabelVideo) -> None:
        """Score one video, semantic or panoptic. Raises BadInput, and counts nothing, as `score_video` does."""
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> WholeVideo:
        """Start a video, in a pass shared with other metrics."""
        def count(video: str, frames: int, areas: np.ndarray) -> None:
            self.videos[video] = {"frames": frames, "pixels": class_pixels(areas, truth, prediction)}

        return WholeVideo(truth, prediction, count)

    def result(self) -> MeanIoUScores:
        """The scores of everything counted so far."""
        pixels = class_table((record["pixels"] for record in self.videos.values()), len(self.classes))
        return MeanIoUScores(videos=len(self.videos), frames=self.frames(),
                             per_class=class_ious(pixels, self.classes))


def class_pixels(areas: np.ndarray, truth: Side, prediction: Side) -> list[list[int]]:
    """[true class, predicted class, pixels] of every pair that occurs; void is one past the last class.

    areas: true segments x predicted segments, pixels. Void of the truth is left out.
    """
    pixels: dict[tuple[int, int], int] = {}
    for true, predicted in zip(*(index.tolist() for index in np.nonzero(areas)), strict=True):
        if true:
            pair = int(truth.classes[true]), int(prediction.classes[predicted])
            pixels[pair] = pixels.get(pair, 0) + int(areas[true, predicted])
    return [[*pair, count] for pair, count in sorted(pixels.items())]


def class_table(parts: Iterable[list[list[int]]], classes: int) -> np.ndarray:
    """The sum of results of `class_pixels`: classes x classes+1 int64."""
    table = np.zeros((classes, classes + 1), np.int64)
    for part in parts:
        for true, predicted, pixels in part:
            table[true, predicted] += pixels
    return table


def class_ious(table: np.ndarray, classes: ClassTable) -> tuple[ClassIoU, ...]:
    """Intersection and union of every class. table: classes x classes+1."""
    true = table.sum(1)
    predicted = table.sum(0)[:-1]
    common = table.diagonal()
    return tuple(ClassIoU(name=info.name, is_thing=info.is_thing, true=t, common=c, union=t + p - c)
                 for info, t, p, c in zip(classes.classes, true.tolist(), predicted.tolist(), common.tolist()))
