"""A frozen segmenter, with or without a head, over one video: the same steps for caching, scoring and predicting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.config import to_json
from jobs.models import load_head, load_segmenter, untrained_segmenter
from jobs.recipes.schema import Recipe
from model.association import AssociationConfig, HungarianConfig, build_linker
from model.association.linker import MatchingSpace
from model.contracts import ClipPrediction, Geometry, PanopticVideo
from model.labels import ClassTable
from model.postprocess.panoptic import PanopticConfig, PanopticMerger
from model.segment_linking import link_clips
from model.video_inference import near_online, offline, panoptic_video
from pipeline.augment import Transform
from pipeline.spool import TensorSpool
from pipeline.video_clips import VideoClip, VideoSource, video_clips
from pipeline.visualise.overlay import beside, overlay
from pipeline.visualise.video_writer import VideoWriter


@dataclass(kw_only=True)
class System:
    """What turns a video into a panoptic video: a segmenter, a head when offline, thresholds and association."""

    segmenter: nn.Module
    head: nn.Module | None
    classes: ClassTable
    merge: PanopticConfig
    clip_frames: int
    size: tuple[int, int]           # network input, pixels
    made_by: dict[str, Any]         # for the record
    association: AssociationConfig = field(default_factory=HungarianConfig)

    def __post_init__(self) -> None:
        if self.head is not None and not isinstance(self.association, HungarianConfig):
            raise ValueError(f"a cross-clip head reads aligned queries and links no segments, so offline goes with "
                             f"association hungarian only, not {self.association.name}; set evaluation.mode (or "
                             "predict.mode) to near_online, or evaluation.association='{\"name\": \"hungarian\"}'")
        if self.association.overlap >= self.clip_frames:
            raise ValueError(f"{self.association.name} with overlap={self.association.overlap} needs longer clips than "
                             f"the {self.clip_frames} frames this segmenter takes; set evaluation.association.overlap "
                             f"below {self.clip_frames}")

    def predict(self, source: VideoSource, *, matching: MatchingSpace | None = None) -> PanopticVideo:
        """Segment and track one video, clip by clip; memory does not grow with its pixels.

        matching: counts how much the memory of an association was asked on the way.
        """
        new_merger = partial(PanopticMerger, self.merge, is_thing=self.classes.is_thing,
                             geometry=Geometry.fit(source.size, padded=self.size))
        overlap = self.association.overlap
        clips = ((prediction, clip.valid) for clip, prediction in self.clip_predictions(source, overlap=overlap))
        if self.head is not None:
            with closing(TensorSpool()) as spool:
                merged = offline(clips, self.head, merger=new_merger(), spool=spool)
        elif isinstance(self.association, HungarianConfig):
            merged = near_online(clips, merger=new_merger(), official_compat=self.merge.official_compat)
        else:
            linker = build_linker(self.association)
            merged = link_clips(clips, linker, new_merger=new_merger, overlap=overlap)
            if matching is not None:
                matching.merge(linker.matching)
        return panoptic_video(merged, video_id=source.video_id, frame_names=tuple(source.frame_names))

    def clip_predictions(self, source: VideoSource, *, overlap: int = 0, transform: Transform | None = None
                         ) -> Iterator[tuple[VideoClip, ClipPrediction]]:
        """The segmenter on each clip, in order; neighbours share `overlap` frames.

        transform: an augmented view instead of the test-time geometry.
        """
        device = next(self.segmenter.parameters()).device
        for clip in video_clips(source, self.clip_frames, self.size, overlap=overlap, transform=transform):
            with torch.inference_mode():
                prediction = self.segmenter(clip.frames.to(device), clip.real_pixels.to(device))
            yield clip, prediction


def open_system(recipe: Recipe, mode: str, classes: ClassTable | None = None) -> System:
    """Load what a mode needs: "untrained" (needs `classes`), "near_online" or "offline".

    Raises FileNotFoundError naming the verb that makes a missing model, ValueError when head and segmenter differ.
    """
    association = recipe.evaluation.association
    head, made_by = None, {"mode": mode, "recipe": recipe.name, "association": to_json(association)}
    if mode == "untrained":
        segmenter, table = untrained_segmenter(recipe), classes
        size, clip_frames = recipe.stage_one.input.augment.size, recipe.stage_one.input.clip_frames
    else:
        segmenter, card = load_segmenter(recipe.segmenter_folder)
        table, size, clip_frames = ClassTable.from_json(card["classes"]), tuple(card["input_size"]), card["clip_frames"]
        made_by["segmenter_sha256"] = card["weights_sha256"]
        if mode == "offline":
            head, head_card = load_head(recipe.head_folder, segmenter_card=card)
            made_by["head_sha256"] = head_card["weights_sha256"]
        if classes is not None and classes != table:
            raise ValueError(f"the segmenter in {recipe.segmenter_folder} was trained on the classes of {table.name}, "
                             f"these shards have those of {classes.name}; evaluate on shards of the same data set")
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.cluster.gpus_per_actor else "cpu")
    return System(segmenter=segmenter.to(device), head=None if head is None else head.to(device), classes=table,
                  merge=recipe.evaluation.merge, clip_frames=clip_frames, size=size, made_by=made_by,
                  association=association)


def draw(source: VideoSource, predicted: PanopticVideo, classes: ClassTable, folder: Path, *,
         truth: PanopticVideo | None = None, times: Sequence[float] | None = None) -> Path:
    """Write an overlay video: the prediction over the frames, beside frame and truth when there is a truth.

    times: seconds of each frame, where the source knows them; six frames a second otherwise, as VIPSeg and YouTube-VIS.
    Frames of less than 320 lines are enlarged, or the names would cover everything.
    """
    path, scale = folder / f"{predicted.video_id}.mp4", max(1, 320 // source.size[0])
    videos = [video for video in (truth, predicted) if video is not None]
    with VideoWriter(path, fps=6.0) as writer:
        for number, maps in enumerate(zip(*(video.frames for video in videos))):
            frame = enlarged(source.frames(number, number + 1)[0], scale)
            pictures = [overlay(frame, enlarged(ids, scale), video.segments, classes)
                        for ids, video in zip(maps, videos)]
            writer.write(beside([frame, *pictures]) if truth is not None else pictures[0],
                         time=times[number] - times[0] if times else None)
    return path


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """H W ... -> (scale H) (scale W) ...: every pixel becomes a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
