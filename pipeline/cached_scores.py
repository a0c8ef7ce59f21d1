"""Scores from a query cache alone: what a system would score on the frames, estimated from the stored pixels.

The clips come from the cache, with their pixels as maps one pixel high, and everything behind the segmenter is the code
of inference: the head, the association, merging, metrics. So an estimate takes a second or two where a pass over the
frames takes minutes, and its error is that of the sample: docs/sweep.md says how large it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from model.contracts import Geometry, Result, VideoResults
from model.families import ALIGNED
from model.inference import InferenceConfig, make_results
from model.labels import ClassTable
from pipeline.metrics.labelled_frames import tracks_in
from pipeline.metrics.scorecard import Scorecard
from pipeline.query_cache import QueryCache, SampledVideo, sampled_videos
from pipeline.system import System, named

SCORED = ("panoptic", "tracks")     # results that stored pixels tell about


class CachedScores:
    """The videos of a cache in memory, and the scores of any system that holds the segmenter of the cache."""

    def __init__(self, cache: QueryCache, classes: ClassTable, results: Sequence[Result], *, windows: Sequence[int],
                 stq_compat: Literal["", "step", "vipseg"] = "") -> None:
        """windows: of VPQ, in frames. Raises ValueError for a cache whose pixels cannot be scored."""
        self.classes = classes
        self.results = tuple(result for result in results if result in SCORED)
        if not self.results:
            raise ValueError(f"inference.results={list(results)} cannot be scored from a query cache; add one of "
                             f"{', '.join(SCORED)}")
        self.fingerprint = cache.fingerprint
        self.frames = cache.manifest["made_from"]["clip_frames"]
        self.windows = tuple(windows)
        self.stq_compat = stq_compat
        self.videos = sampled_videos(cache)
        self.truths = [video.truth(classes, self.results) for video in self.videos]

    def cards(self, system: System) -> dict[str, Scorecard]:
        """Video -> the scorecard of a system on it. Raises ValueError where its results cannot be made from a cache."""
        refuse_uncached(system.inference)
        cards = {}
        for video, truth in zip(self.videos, self.truths):
            card = Scorecard(self.classes, self.results, windows=self.windows, stq_compat=self.stq_compat,
                             sampled=True)
            card.update(self.predicted(system, video), truth)
            cards[video.video_id] = card
        return cards

    def card(self, system: System) -> Scorecard:
        """The scorecard of a system on all videos."""
        return Scorecard.sum_of(self.cards(system).values())

    def predicted(self, system: System, video: SampledVideo) -> VideoResults:
        """The results of a system on the stored pixels of a video."""
        size = (1, video.width)
        inference = replace(system.inference, results=self.results)
        makers = replace(system, inference=inference).makers(
            Geometry(source=size, resized=size, padded=size), None, head=system.head)
        clips = video.predictions(system.segmenter, frames=self.frames)
        predicted = named(make_results(clips, makers, num_classes=len(self.classes)), video_id=video.video_id,
                          frame_names=video.frame_names, size=size)
        if predicted.tracks is None:
            return predicted
        return replace(predicted, tracks=tracks_in(predicted.tracks, video.labelled))


def refuse_uncached(inference: InferenceConfig) -> None:
    """Raise ValueError for settings that read more of a clip than a cache holds."""
    if inference.association.kind not in ALIGNED:
        raise ValueError(f"inference.association={inference.association.kind} compares segments of whole frames, which "
                         f"no query cache holds; score on the frames, or set inference.association={ALIGNED[0]}")
    if "panoptic" in inference.results and inference.panoptic.kind != "mask_wise":
        raise ValueError(f"inference.panoptic.kind={inference.panoptic.kind} tracks queries by their number, and those "
                         "of a cache are aligned; score on the frames")
