"""A frozen segmenter, with or without a head, over one video: the same steps for caching, scoring and predicting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from jobs.config import to_json
from jobs.models import known_classes, load_head, load_segmenter, untrained_segmenter
from jobs.recipes.schema import EvaluationConfig, Recipe
from model.association import HungarianConfig, build_linker
from model.association.linker import MatchingSpace
from model.association.quasi_dense import QuasiDenseTracker
from model.contracts import ClipPrediction, Geometry, VideoResults
from model.cross_clip.vita import VitaHead
from model.labels import ClassTable
from model.postprocess.instances import TrackMerger, tracks_video
from model.postprocess.panoptic import MergedVideo, PanopticConfig, PanopticMerger
from model.postprocess.semantic import SemanticMerger, semantic_video
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.segment_linking import link_clips
from model.segmenters import SegmenterConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.video_inference import AlignBy, Clips, Merger, Together, near_online, offline, panoptic_video
from model.video_tasks import TubePanoptic, VideoTask, run_tasks
from pipeline.clips import Transform, VideoClip, VideoSource, video_clips
from pipeline.spool import TensorSpool

# Fields of the evaluation that decide predictions.
HOW = ("results", "merge", "tracker", "tracks", "association", "clip_frames", "last_clip", "enlarge", "vita_window",
       "vita_keep")


@dataclass(kw_only=True)
class System:
    """What turns a video into results: a segmenter, a head when offline, and what is to be made how."""

    segmenter: nn.Module
    head: nn.Module | None
    classes: ClassTable
    config: EvaluationConfig
    clip_frames: int
    size: tuple[int, int]           # network input, pixels
    made_by: dict[str, Any]         # for the record

    def __post_init__(self) -> None:
        """Raises ValueError where segmenter, head and results do not go together."""
        refuse_unfit(self.config, self.segmenter.config, offline=self.head is not None, clip_frames=self.clip_frames)

    @property
    def head_reads(self) -> AlignBy:
        """What clips are aligned by before a cross-clip head reads them: VITA knows frame queries by their number."""
        return None if isinstance(self.segmenter.config, Mask2FormerConfig) else "mask_embeddings"

    def predict(self, source: VideoSource, *, matching: MatchingSpace | None = None) -> VideoResults:
        """Segment and track one video, clip by clip; memory does not grow with its pixels.

        matching: counts how much the memory of an association was asked on the way.
        """
        geometry = Geometry.fit(source.size, padded=self.size, enlarge=self.config.enlarge)
        shorten = self.config.last_clip == "shorten" and self.head is None
        clips = ((prediction, clip.valid) for clip, prediction in self.clip_predictions(
            source, overlap=self.config.association.overlap, shorten=shorten))
        if isinstance(self.config.association, HungarianConfig):
            made = self._decide(clips, geometry)
        else:
            made = {"panoptic": self._link(clips, geometry, matching)}
        names = {"video_id": source.video_id, "frame_names": tuple(source.frame_names)}
        finish = {"panoptic": panoptic_video, "tracks": partial(tracks_video, size=source.size),
                  "semantic": semantic_video}
        return VideoResults(**{result: finish[result](what, **names) for result, what in made.items()})

    def _decide(self, clips: Clips, geometry: Geometry) -> dict[str, Any]:
        """Everything in one pass: decisions about aligned queries, and tasks that look at each clip by itself."""
        tasks = self._tasks(geometry)
        mergers = self._mergers(geometry)
        if not mergers:
            return run_tasks(clips, tasks)
        watched = watch(clips, tasks)
        together = Together(mergers)
        if self.head is None:
            compat = isinstance(self.config.merge, PanopticConfig) and self.config.merge.official_compat
            made = near_online(watched, merger=together, official_compat=compat)
        else:
            with closing(TensorSpool()) as spool:
                made = offline(watched, self.head, merger=together, by=self.head_reads, spool=spool)
        return made | {name: task.finish() for name, task in tasks.items()}

    def _mergers(self, geometry: Geometry) -> dict[str, Merger]:
        """What decides once per query for the whole video."""
        config = self.config
        settings = {"is_thing": self.classes.is_thing, "geometry": geometry}
        made: dict[str, Merger] = {}
        if "panoptic" in config.results and isinstance(config.merge, PanopticConfig):
            made["panoptic"] = PanopticMerger(config.merge, **settings)
        if "tracks" in config.results:
            made["tracks"] = TrackMerger(config.tracks, **settings)
        return made

    def _tasks(self, geometry: Geometry) -> dict[str, VideoTask]:
        """What looks at each clip by itself."""
        config = self.config
        made = {}
        if "panoptic" in config.results and isinstance(config.merge, TubePanopticConfig):
            made["panoptic"] = TubePanoptic(
                config.merge, linking=self.segmenter.linking, tracker=QuasiDenseTracker(config.tracker),
                is_thing=self.classes.is_thing, geometry=geometry, reserved=self.segmenter.config.stuff_queries)
        if "semantic" in config.results:
            made["semantic"] = SemanticMerger(num_classes=len(self.classes), geometry=geometry)
        return made

    def _link(self, clips: Clips, geometry: Geometry, matching: MatchingSpace | None) -> MergedVideo:
        """Clips merged one by one, then their segments linked."""
        linker = build_linker(self.config.association)
        new_merger = partial(PanopticMerger, self.config.merge, is_thing=self.classes.is_thing, geometry=geometry)
        merged = link_clips(clips, linker, new_merger=new_merger, overlap=self.config.association.overlap)
        if matching is not None:
            matching.merge(linker.matching)
        return merged

    def clip_predictions(self, source: VideoSource, *, overlap: int = 0, shorten: bool = False,
                         transform: Transform | None = None) -> Iterator[tuple[VideoClip, ClipPrediction]]:
        """The segmenter on each clip, in order, as `video_clips` cuts them.

        transform: an augmented view instead of the test-time geometry.
        """
        device = next(self.segmenter.parameters()).device
        for clip in video_clips(source, self.clip_frames, self.size, overlap=overlap, shorten=shorten,
                                enlarge=self.config.enlarge, transform=transform):
            with torch.inference_mode():
                prediction = self.segmenter(clip.frames.to(device), clip.real_pixels.to(device))
            yield clip, prediction


def watch(clips: Clips, tasks: dict[str, VideoTask]) -> Clips:
    """The same clips, shown to the tasks as they pass."""
    for clip, frames in clips:
        for task in tasks.values():
            task.add(clip, frames)
        yield clip, frames


def refuse_unfit(config: EvaluationConfig, segmenter: SegmenterConfig, *, offline: bool, clip_frames: int) -> None:
    """Raise ValueError where what is to be made needs another segmenter, mode or association."""
    association = config.association
    tube_panoptic = isinstance(config.merge, TubePanopticConfig)
    aligned = isinstance(association, HungarianConfig)
    shares_pixels = isinstance(segmenter, VideoKMaxConfig)
    linking = getattr(segmenter, "linking", None) is not None
    if offline and not aligned:
        raise ValueError(f"a cross-clip head reads aligned queries and links no segments, so offline goes with "
                         f"association hungarian only, not {association.name}; set evaluation.mode (or "
                         "predict.mode) to near_online, or evaluation.association='{\"name\": \"hungarian\"}'")
    if association.overlap >= clip_frames:
        raise ValueError(f"{association.name} with overlap={association.overlap} needs longer clips than "
                         f"the {clip_frames} frames this segmenter takes; set evaluation.association.overlap "
                         f"below {clip_frames}")
    if shares_pixels and (config.results != ("panoptic",) or tube_panoptic):
        raise ValueError(f"Video-kMaX shares every pixel out among its queries, so it makes panoptic videos by "
                         f"PanopticConfig only, not {config.results} by {type(config.merge).__name__}; choose a "
                         "recipe of Tube-Link for tracks and semantic videos, or of VITA for tracks")
    if not shares_pixels and "panoptic" in config.results and not (tube_panoptic and linking and not offline):
        raise ValueError("Tube-Link makes panoptic videos near-online, by TubePanopticConfig, with a segmenter that "
                         f"has linking, and VITA none; got {type(config.merge).__name__}, linking "
                         f"{'there' if linking else 'absent'}, {'offline' if offline else 'near-online'}. Leave "
                         "panoptic out of evaluation.results, or choose a recipe of Tube-Link for panoptic video")
    if not shares_pixels and not aligned:
        raise ValueError(f"{association.name} links the segments of Video-kMaX; Tube-Link and VITA go with hungarian")


def set_at_test_time(head: nn.Module, config: EvaluationConfig) -> None:
    """What VITA was trained with and what it is tested with may differ: its windows, and how many queries it reads."""
    if isinstance(head, VitaHead):
        window = head.config.window if config.vita_window is None else config.vita_window
        head.config = replace(head.config, window=window, keep=config.vita_keep)


def open_system(recipe: Recipe, mode: str, classes: ClassTable | None = None) -> System:
    """Load what a mode needs: "untrained" (needs `classes`), "near_online" or "offline".

    Raises FileNotFoundError naming the verb that makes a missing model, ValueError when head and segmenter differ, and
    for classes that are unknown or not those expected.
    """
    config = recipe.evaluation
    how = {name: value for name, value in to_json(config).items() if name in HOW}
    head = None
    made_by = {"mode": mode, "recipe": recipe.name, **how}
    if mode == "untrained":
        segmenter = untrained_segmenter(recipe)
        table = classes
        size = recipe.stage_one.input.augment.size
        clip_frames = recipe.stage_one.segmenter_frames
    else:
        segmenter, card = load_segmenter(recipe.segmenter_folder)
        table = known_classes(recipe.segmenter_folder, expected=classes)
        size = tuple(card["input_size"])
        clip_frames = card["clip_frames"]
        made_by["segmenter_sha256"] = card["weights_sha256"]
        if mode == "offline":
            head, head_card = load_head(recipe.head_folder, segmenter_card=card)
            set_at_test_time(head, config)
            made_by["head_sha256"] = head_card["weights_sha256"]
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.cluster.gpus_per_actor else "cpu")
    return System(segmenter=segmenter.to(device), head=None if head is None else head.to(device), classes=table,
                  config=config, clip_frames=config.clip_frames or clip_frames, size=size, made_by=made_by)
