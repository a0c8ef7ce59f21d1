"""Where a recipe differs from the official run, what it does instead, and why. Nothing else may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.jobs.recipes.official.facts import matches
from tests.jobs.recipes.official.readers import ABSENT


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A stated difference. It must be there as stated: one that is mended has to leave this list."""

    recipes: tuple[str, ...]
    fields: tuple[str, ...]
    ours: Any
    reason: str
    decision: str = ""      # "D5": the number in the comparison

    def covers(self, recipe: str, field: str) -> bool:
        """Whether it speaks about a field of a recipe."""
        return matches(recipe, self.recipes) and matches(field, self.fields)


def _deviation(recipes: str, fields: tuple[str, ...] | str, ours: Any, reason: str, decision: str = "") -> Deviation:
    return Deviation(recipes=tuple(recipes.split()), fields=(fields,) if isinstance(fields, str) else fields, ours=ours,
                     reason=reason, decision=decision)


VIPSEG = "vipseg_video_kmax_* vipseg_ablation_* !vipseg_ablation_tube_link_*"
ORIGINAL = "vipseg_original_video_kmax_* kitti_step_video_kmax_*"
VIDEO_KMAX = f"coco_video_kmax_* {ORIGINAL}"
INSTANCES = "youtube_vis_*_tube_link_* ovis_tube_link_*"
PANOPTIC = "vipseg_tube_link_* vipseg_ablation_tube_link_* kitti_step_tube_link_*"
VITA = "*_vita_*"
AUGMENT = "stage_one.input.augment"

DEVIATIONS: list[Deviation] = [
    # images in training
    _deviation(f"coco_kmax_* {VIPSEG} {VIDEO_KMAX} {VITA} !*_frozen", f"{AUGMENT}.interpolation", "halving",
               "as smooth as Pillow's filter where frames shrink, at a seventh of its cost"),
    # COCO
    _deviation("coco_mask2former_panoptic_*", "inference.results", ("semantic",),
               "Tube-Link makes a panoptic result by linking alone; the model is scored by its semantic one"),
    # VIPSeg
    _deviation(VIPSEG, ("stage_one.input.official_compat", "inference.panoptic.official_compat",
                        "stage_two.head.official_compat"), False,
               "the last window is drawn too, pasted segments get ids of their own, repeated frames do not count, and "
               "each video has a softmax of its own; `official_compat` brings the released behaviour back", "D25"),
    # Video-kMaX
    _deviation("coco_video_kmax_*", "stage_one.input.clip_frames", 2,
               "the pseudo-videos of the paper have two frames; the released file makes one of each still"),
    _deviation(ORIGINAL, ("stage_one.input.official_compat", "inference.panoptic.official_compat",
                          "inference.association.official_compat"), False,
               "flaws of the released code are mended; `official_compat` brings them back"),
    _deviation("coco_video_kmax_*", "stage_one.input.refuse.empty", "",
               "a clip is drawn again where no frame holds a target; officially where the first one holds none"),
    _deviation(ORIGINAL, ("stage_one.input.refuse.empty", "stage_one.input.refuse.labelled"), ABSENT,
               "a clip without any segment is kept; the labels of VIPSeg and KITTI-STEP leave hardly any"),
    _deviation("coco_video_kmax_*", "inference.panoptic.sure_first", False,
               "stills are merged mask by mask, which the released code can do too; no score is published"),
    _deviation("coco_video_kmax_*", ("inference.panoptic.thing", "inference.panoptic.stuff"), 0.5,
               "the released thresholds of merging mask by mask (CLASS_THRESHOLD_THING and _STUFF)"),
    _deviation("coco_video_kmax_*", "inference.panoptic.pixel", 0.4,
               "the released threshold of merging mask by mask (OBJECT_MASK_THRESHOLD)"),
    # stage two: the query cache
    _deviation(f"{VIPSEG} {INSTANCES} {VITA}", "cache.views", 5,
               "views are cached, the frozen segmenter runs once for each; more of them come closer", "D5"),
    _deviation(VIPSEG, "cache.evidence.pixels", 256,
               "weighted pixels of a clip estimate the sums over all of them; their gradient has a cosine above .99 "
               "with that of all pixels (docs/query_cache.md)", "D5"),
    _deviation(INSTANCES, "cache.evidence.pixels", 1024,
               "weighted pixels of a clip estimate the mean over all of them without bias", "D12"),
    # Tube-Link
    _deviation("vipseg_tube_link_r50", "inference.clip_frames", 6,
               "the published score is that of clips of 6 frames (table 8e); the released file has 4"),
    _deviation("vipseg_tube_link_stdc2", "inference.clip_frames", 6,
               "the paper tests clips of six frames (A.2); the released file has 1"),
    _deviation(PANOPTIC, "inference.tracker.official_compat", False,
               "flaws of the released tracker are mended; `official_compat` brings them back"),
    _deviation("kitti_step_tube_link_*", "stage_one.input.clip_frames", 4,
               "learned linking needs two clips of two frames; the data file, made for other models, has 2"),
    _deviation("kitti_step_* !*_axial_*", "start weights", "ImageNet",
               "there is no Cityscapes run here; `stage_one.start_from` takes a model that was trained on it"),
    _deviation("kitti_step_video_kmax_axial_*", "start weights", "nothing",
               "the network's weights were released for TensorFlow alone; `stage_one.start_from` takes a model"),
    # VITA
    _deviation(f"{VITA} !coco_*", "stage_one.input.drop_empty", False,
               "stills without an object of the videos' classes have left the shards already"),
    _deviation(VITA, ("stage_one.losses.official_compat", "stage_one.joint.losses.official_compat",
                      "stage_two.losses.official_compat"), False,
               "the mask losses are divided by the matched objects; it differs only where there are more objects than "
               "queries"),
    _deviation("*_frozen", "stage_two.losses.frame_costs.class_weight", 0.0,
               "the frozen detector's class rows for the videos are random, so masks alone assign its queries"),
    _deviation("*_frozen", ("stills in stage two", "detector layers in stage two"), ABSENT,
               "the cache holds the last decoder layer's queries of the videos", "D5"),
    _deviation("*_frozen", "cache.evidence.pixels", 1024,
               "weighted pixels of a clip estimate the mean over all of them without bias", "D12"),
]
