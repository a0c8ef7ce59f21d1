"""All metrics of a data set in one object, which scores, merges and stores them together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from model.contracts import VideoResults
from model.labels import ClassTable
from pipeline.metrics.frame_pass import score_video
from pipeline.metrics.identity import Identity
from pipeline.metrics.miou import MeanIoU
from pipeline.metrics.stq import STQ
from pipeline.metrics.track_ap import TrackAP
from pipeline.metrics.track_identity import TrackIdentity
from pipeline.metrics.video_consistency import VideoConsistency
from pipeline.metrics.vpq import PROTOCOLS, VPQ

Result = Literal["panoptic", "tracks", "semantic"]     # fields of VideoResults
Metric = VPQ | STQ | Identity | MeanIoU | VideoConsistency | TrackAP | TrackIdentity
KINDS: dict[str, type[Metric]] = {"vpq": VPQ, "stq": STQ, "identity": Identity, "miou": MeanIoU,
                                  "mvc": VideoConsistency, "ap": TrackAP, "track_identity": TrackIdentity}

# The number by which results are ranked.
FIRST_NUMBER: dict[Result, str] = {"panoptic": "vpq", "tracks": "ap", "semantic": "miou"}
LOWER_IS_BETTER = ("switches", "matching_space_average", "matching_space_max")      # ends of names


class Scorecard:
    """Panoptic videos get VPQ, STQ and identity, tracks AP and identity. Semantic videos get mIoU and mVC; without
    them, panoptic videos do.

    windows: windows of VPQ, in frames. stq_compat, mvc_compat: `official_compat` of STQ and of mVC. sampled: maps hold
    a sample of pixels, other ones in each frame, so mVC, which compares frames pixel by pixel, is left out.
    Frames are decoded once for all metrics that read the same maps.
    """

    def __init__(self, classes: ClassTable, results: Sequence[Result], *, windows: Sequence[int],
                 stq_compat: Literal["", "step", "vipseg"] = "", mvc_compat: bool = False,
                 sampled: bool = False) -> None:
        if not results or not set(results) <= {"panoptic", "tracks", "semantic"}:
            raise ValueError(f"results {tuple(results)} cannot be scored; choose from panoptic, tracks and semantic")
        semantic: dict[str, Metric] = {"miou": MeanIoU(classes)}
        if not sampled:
            semantic["mvc"] = VideoConsistency(classes, official_compat=mvc_compat)
        self.metrics: dict[str, dict[str, Metric]] = {}        # result that they read -> name -> metric
        if "panoptic" in results:
            self.metrics["panoptic"] = {"vpq": VPQ(classes, windows=windows),
                                        "stq": STQ(classes, official_compat=stq_compat),
                                        "identity": Identity(classes)}
        if "tracks" in results:
            self.metrics["tracks"] = {"ap": TrackAP(classes), "track_identity": TrackIdentity(classes)}
        if "semantic" in results:
            self.metrics["semantic"] = semantic
        elif "panoptic" in results:
            self.metrics["panoptic"] |= semantic

    def update(self, predicted: VideoResults, truth: VideoResults) -> None:
        """Score one video. Raises BadInput if the two cannot be compared; the scorecard is then no longer complete."""
        for result, metrics in self.metrics.items():
            if result == "tracks":
                for metric in metrics.values():
                    metric.update(predicted.tracks, truth.tracks)
            else:
                score_video(list(metrics.values()), getattr(predicted, result), truth.panoptic or truth.semantic)

    def merge(self, other: Self) -> None:
        """Add the videos of `other`. Raises the errors of the metrics' own `merge`."""
        for result, metrics in self.metrics.items():
            for name, metric in metrics.items():
                metric.merge(other.metrics[result][name])

    @classmethod
    def sum_of(cls, cards: Iterable[Self]) -> Self:
        """A new scorecard of all videos of `cards`, of which there is at least one."""
        first, *others = cards
        total = cls.from_json(first.to_json())
        for card in others:
            total.merge(card)
        return total

    def to_json(self) -> dict[str, Any]:
        """All counts as plain values."""
        return {result: {name: metric.to_json() for name, metric in metrics.items()}
                for result, metrics in self.metrics.items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        card = cls.__new__(cls)
        card.metrics = {result: {name: KINDS[name].from_json(metric) for name, metric in metrics.items()}
                        for result, metrics in saved.items()}
        return card

    def ap_by_set(self, sets: Mapping[str, Collection[str]]) -> dict[str, dict[str, float | None]]:
        """Track AP of sets of videos, as `TrackAP.by_set` returns it; videos that were not scored are left out."""
        ap = self.metrics["tracks"]["ap"]
        return ap.by_set({name: [video for video in videos if video in ap.videos] for name, videos in sets.items()})

    def scores(self) -> dict[str, Any]:
        """The result of every metric, by name."""
        return {name: metric.result() for metrics in self.metrics.values() for name, metric in metrics.items()}


def lower_is_better(number: str) -> bool:
    """Whether less of a number is better."""
    return number.endswith(LOWER_IS_BETTER)


def headline(scores: Mapping[str, Any]) -> dict[str, Any]:
    """All headline numbers in one mapping, in percent; None if there was nothing to score."""
    numbers = {key: value for result in scores.values() for key, value in result.summary().items()}
    if "vpq" in scores and set(PROTOCOLS[1]) <= scores["vpq"].per_class.keys():
        numbers["vpq_with_8"] = scores["vpq"].summary(PROTOCOLS[1])["vpq"]
    return numbers
