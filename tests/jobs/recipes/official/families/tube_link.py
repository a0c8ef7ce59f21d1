"""Tube-Link on panoptic and semantic video: TL, configs/video/vipseg, vspw and vipseg_vss, and KITTI-STEP's data."""

from __future__ import annotations

import math

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.families.coco_mask2former import AUGMENT, LOSSES, NETWORK, OPENCV, SEGMENTER
from tests.jobs.recipes.official.families.youtube_vis import MMCV
from tests.jobs.recipes.official.parameters import mmdet, swin_stages
from tests.jobs.recipes.official.schedules import Drops

VIPSEG = "TL configs/video/vipseg/vipseg_tb_r50_8e.py"
VIPSEG_SWIN = "TL configs/video/vipseg/vipseg_tb_swinb_6e.py"
VIPSEG_STDC = {name: f"TL configs/video/vipseg/vipseg_tb_stdcv{name[-1]}_8e.py" for name in ("stdc1", "stdc2")}
VSPW = "TL configs/video/vspw/video_r50_train_4frames_vspw_test_6frames.py"
VSPW_SWIN = "TL configs/video/vspw/video_swin_l_train_6frames_6e_test_6frames_f3.py"
VSS = "TL configs/video/vipseg_vss/video_swin_l_train_2frames_vspw_test_2frames.py"
VSPW_DATA = "TL configs/video/_base_/datasets/vspw_dvps.py"
KITTI = "TL configs/video/_base_/datasets/kitti_step_dvps.py"
SCHEDULE = "TL configs/video/_base_/schedules/mask2former_schedules.py:3-27"
BATCH = "TL docs/TRAIN_EVALUATION_MODELS.md:22, 35"
DATA = "TL datasets/datasets/vipseg_dvps.py:410-431"
VPS = "TL models/video/tube_link_vps/tube_link_vps.py"
CROPS = "TL datasets/pipelines/transforms.py:243-247 (allow_negative_crop)"

PANOPTIC = "vipseg_tube_link_* kitti_step_tube_link_*"
SEMANTIC = "vspw_* vipseg_vss_tube_link_*"
ALL = f"{PANOPTIC} {SEMANTIC}"
ON_VIPSEG = "vipseg_tube_link_* vipseg_vss_tube_link_*"
RELEASED_VSS = "vspw_2_frames_tube_link_swin_l"     # the file is called VIPSeg VSS, and reads VSPW


def epochs(number: int, *, frames: int, videos: int, reach: int, batch: int, repeats: int = 1) -> int:
    """Steps of some epochs over all windows of a train split. reach: frames from the first to the last of a window."""
    return number * math.ceil(repeats * (frames - videos * reach) / batch)


def _trained(recipes: str, number: int, source: str, *, reach: int, frames: int, videos: int, batch: int = 16,
             repeats: int = 1, decision: str = "") -> Table:
    return table(recipes, *_drops(number, (number - 1,), source, reach=reach, frames=frames, videos=videos, batch=batch,
                                  repeats=repeats, decision=decision))


def _drops(number: int, drops: tuple[int, ...], source: str, *, reach: int, frames: int, videos: int, batch: int = 16,
           repeats: int = 1, decision: str = "") -> list[tuple]:
    """Facts of a training of some epochs, after some of which the learning rate drops."""
    steps, *milestones = (epochs(count, frames=frames, videos=videos, reach=reach, batch=batch, repeats=repeats)
                          for count in (number, *drops))
    schedule = Drops(lr=1e-4, steps=steps, milestones=tuple(milestones), warmup=500)
    where = f"{source}; {SCHEDULE}"
    return [("stage_one.rates", schedule, where, decision), ("stage_one.fit.steps", steps, where, decision),
            ("stage_one.input.batch_size", batch, BATCH, decision)]


_vipseg = {"frames": 66_767, "videos": 2806}
_vspw = {"frames": 198_244, "videos": 2806}

TABLES: tuple[Table, ...] = (
    table(ALL, *LOSSES, *NETWORK,
          (f"{SEGMENTER}.query_decoder.positions", "clip", f"{VIPSEG}:77-78"),
          (f"{SEGMENTER}.within_clip", None, VIPSEG),
          ("stage_one.fit.precision", "fp32", f"{VIPSEG} (no fp16 setting)"),
          ("stage_one.input.reach", 0, f"{VIPSEG}:228"),
          ("stage_one.input.copy_paste", None, f"{VIPSEG}:206-219"),
          ("stage_one.input.sampling", "windows", DATA, "D8"),
          ("stage_one.input.refuse.empty", "any", CROPS, "D9"),
          ("stage_one.input.refuse.labelled", None, VIPSEG),
          (f"{AUGMENT}.pad_to", None, f"{VIPSEG}:213 (a crop fills it)"),
          (f"{AUGMENT}.long_side", None, f"{VIPSEG}:209"),
          (f"{AUGMENT}.interpolation", "opencv", OPENCV, "D18"),
          (f"{AUGMENT}.scale", (1.0, 2.0), f"{VIPSEG}:209; {KITTI}:12"),
          (f"{AUGMENT}.crop", True, f"{VIPSEG}:211"),
          (f"{AUGMENT}.flip", 0.5, f"{VIPSEG}:210"),
          (f"{AUGMENT}.reverse", 0.0, VIPSEG),
          (f"{AUGMENT}.color", False, f"{VIPSEG}:206-219"),
          *rows("inference.resize", {"short_side": None, "long_side": None, "pad_to": 32},
                f"{VSPW_DATA}:26-33 (frames keep their size)", "D18"),
          ("inference.last_clip", "repeat", DATA),
          ("evaluation.mode", "near_online", VPS),
          ("stage_one.losses.frames", "stacked", "TL models/video/tube_link_vis/mask2former_video_head.py"),
          ("stage_two", None, VIPSEG),
          ("evaluation.split", "val", f"{VIPSEG}:235")),
    table(ON_VIPSEG,
          ("dataset.name", "vipseg", f"{VIPSEG}:2"),
          ("shards.resize_height", 720, "TL docs/DATASET.md (VIPSeg_720P)"),
          (f"{SEGMENTER}.num_classes", 124, f"{VIPSEG}:14-16"),
          (f"{AUGMENT}.size", (736, 736), f"{VIPSEG}:204", "D10"),
          (f"{AUGMENT}.short_side", (720,), f"{VIPSEG}:209")),
    table("kitti_step_tube_link_*",
          ("dataset.name", "kitti_step", f"{KITTI}:1"),
          (f"{SEGMENTER}.num_classes", 19, f"{KITTI}:1"),
          ("stage_one.input.clip_frames", 2, f"{KITTI}:44"),
          (f"{AUGMENT}.size", (384, 1248), f"{KITTI}:7"),
          (f"{AUGMENT}.short_side", (), f"{KITTI}:12"),
          ("start weights", "ImageNet and Cityscapes", "arXiv 2303.12782 section 4"),
          ("inference.clip_frames", 2, f"{KITTI}:65")),
    table("vspw_*",
          ("dataset.name", "vspw", f"{VSPW_DATA}:1-2", "D13"),
          (f"{SEGMENTER}.num_classes", 124, f"{VSPW}:36-38"),
          (f"{AUGMENT}.size", (480, 480), f"{VSPW_DATA}:8", "D10"),
          (f"{AUGMENT}.short_side", (480,), f"{VSPW_DATA}:12")),
    # panoptic video
    table(PANOPTIC,
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{VIPSEG}:41"),
          ("stage_one.linking.segmentation", "sum", f"{VPS}:285-320, 415", "D2"),
          ("stage_one.linking.contrast_weight", 0.25, f"{VIPSEG}:182"),
          ("stage_one.linking.cosine_weight", 1.0, f"{VIPSEG}:183-190"),
          ("stage_one.linking.negative_margin", 0.1, f"{VIPSEG}:187"),
          ("stage_one.linking.negatives_per_positive", 3, f"{VIPSEG}:185"),
          ("stage_one.linking.assignment", "matched", VPS),
          ("stage_one.linking.assigned_by", "clip", VPS),
          ("stage_one.linking.costs.class_weight", 2.0, f"{VIPSEG}:194-197"),
          ("stage_one.linking.costs.mask_weight", 5.0, f"{VIPSEG}:194-197"),
          ("stage_one.linking.costs.dice_weight", 4.0, f"{VIPSEG}:194-197"),
          ("stage_one.linking.costs.smoothing", 1e-3, "mmdet mmdet/core/bbox/match_costs (DiceCost eps)"),
          ("stage_one.linking.points", 12_544, f"{VIPSEG}:134-136"),
          ("stage_one.linking.shared_frames", 0, f"{VPS} (the two clips of a pair follow each other)"),
          *((f"{SEGMENTER}.linking.{name}", value, VPS)
            for name, value in (("link", True), ("head", True), ("reads", "queries"))),
          ("inference.results", ("panoptic",), f"{VIPSEG}:146"),
          ("inference.panoptic.kind", "tube", f"{VIPSEG}:130 (with_query)"),
          ("inference.panoptic.shared_frames", 0, f"{VPS} (clips follow each other)"),
          ("inference.panoptic.score", 0.8, "TL models/video/fusion_head (object_mask_thr)"),
          ("inference.panoptic.overlap", 0.8, f"{VIPSEG}:153"),
          *((f"inference.tracker.{name}", value, f"{VIPSEG}:145-173")
            for name, value in (("duplicate_overlap", 0.7), ("backdrop_overlap", 0.3), ("first_score", 0.2),
                                ("new_score", 0.5), ("object_score", 0.1), ("match", 0.5), ("memory_frames", 10),
                                ("backdrop_clips", 1), ("momentum", 0.5))),
          ("inference.tracker.official_compat", True, "TL tracker/qdtrack/trackers/idol_tracker.py")),
    table("vipseg_tube_link_* !*_stdc*", ("stage_one.input.clip_frames", 4, f"{VIPSEG}:228")),
    *(table(f"vipseg_tube_link_{name}",
            ("stage_one.input.clip_frames", 8, f"{file}:224"),
            ("start weights", f"coco_mask2former_panoptic_{name}", "arXiv 2303.12782 table 12"),
            ("inference.clip_frames", frames, f"{file}:235"),
            (f"{SEGMENTER}.backbone.name", name, f"{file}:20-23"))
      for (name, file), frames in zip(VIPSEG_STDC.items(), (6, 1))),
    table("vipseg_tube_link_*",
          ("reserved queries", 66, f"{VIPSEG}:15; TL models/video/tube_link_vps (CustomNoStuff)")),
    table("kitti_step_tube_link_*", ("reserved queries", 17, f"{KITTI}:1 (19 classes, 2 of them with tracks)")),
    table("vipseg_tube_link_r50",
          ("start weights", "coco_mask2former_panoptic_r50", f"{VIPSEG}:9-11"),
          ("inference.clip_frames", 4, f"{VIPSEG}:237")),
    table("vipseg_tube_link_swin_b",
          ("start weights", "coco_mask2former_panoptic_swin_b", f"{VIPSEG_SWIN}:9-11"),
          ("inference.clip_frames", 2, f"{VIPSEG_SWIN}:226")),
    _trained("vipseg_tube_link_r50", 8, f"{VIPSEG}:245-252", reach=3, **_vipseg),
    _trained("vipseg_tube_link_swin_b", 6, f"{VIPSEG_SWIN}:234-241", reach=3, batch=32, decision="D17", **_vipseg),
    _trained("vipseg_tube_link_stdc1", 8, f"{VIPSEG_STDC['stdc1']}:244-251", reach=7, **_vipseg),
    table("vipseg_tube_link_stdc2", *_drops(12, (9, 11), f"{VIPSEG_STDC['stdc2']}:244-251", reach=7, **_vipseg)),
    _trained("kitti_step_tube_link_*", 12, "arXiv 2303.12782 section 4", reach=3, frames=5027, videos=12, repeats=4),
    # semantic video
    table(SEMANTIC,
          (f"{SEGMENTER}.linking", None, f"{VSPW}:40-42"),
          ("stage_one.linking", None, f"{VSPW}:40-42"),
          ("reserved queries", 0, f"{VSPW}:36-37"),
          ("inference.results", ("semantic",), f"{VSPW}:79 (sem_seg_only_with_query)"),
          ("inference.clip_frames", 6, f"{VSPW}:28-29")),
    table(f"{SEMANTIC} !*_swin_l", (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{VSPW}:51")),
    table(f"vspw_tube_link_swin_l vipseg_vss_tube_link_swin_l {RELEASED_VSS}",
          (f"{SEGMENTER}.query_decoder.num_queries", 200, f"{VSPW_SWIN}:58; {VSS}:56"),
          ("start weights", "coco_mask2former_panoptic_swin_l", f"{VSPW_SWIN}:9-11; {VSS}:9-11")),
    table("vspw_tube_link_r50",
          ("start weights", "coco_mask2former_panoptic_r50", f"{VSPW}:9-11"),
          ("stage_one.input.clip_frames", 4, f"{VSPW}:20"),
          ("stage_one.input.frame_stride", 2, f"{VSPW}:20", "D15")),
    table("vspw_tube_link_swin_l",
          ("stage_one.input.clip_frames", 6, f"{VSPW_SWIN}:21"),
          ("stage_one.input.frame_stride", 2, f"{VSPW_SWIN}:21", "D15")),
    table(f"vipseg_vss_tube_link_* {RELEASED_VSS}", ("stage_one.input.clip_frames", 2, f"{VSS}:21")),
    table(f"{ALL} !vspw_tube_link_*", ("stage_one.input.frame_stride", 1, f"{VIPSEG}:228; {VSS}:21")),
    table(f"{ALL} !kitti_step_*", ("stage_one.input.samples_per_video", 1, DATA, "D8")),
    table("kitti_step_*", ("stage_one.input.samples_per_video", 4, f"{KITTI}:38", "D8")),
    *(table(f"vipseg_vss_tube_link_{backbone}",
            ("start weights", f"coco_mask2former_panoptic_{backbone}", f"{VSS}:9-11"))
      for backbone in ("r50", "swin_b")),
    _trained("vspw_tube_link_r50", 6, f"{VSPW}:126-133", reach=6, **_vspw),
    _trained("vspw_tube_link_swin_l", 6, f"{VSPW_SWIN}:126-133", reach=10, **_vspw),
    _trained(RELEASED_VSS, 6, VSS, reach=1, batch=32, decision="D13", **_vspw),
    _trained("vipseg_vss_tube_link_swin_l", 6, VSS, reach=1, batch=32, decision="D17", **_vipseg),
    _trained("vipseg_vss_tube_link_r50 vipseg_vss_tube_link_swin_b", 6, VSS, reach=1, **_vipseg),
    # backbones and optimiser
    table("*_tube_link_r50 *_tube_link_stdc* !youtube_vis_* !ovis_*",
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{VIPSEG}:22-31"),
          (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-5, "torch nn.SyncBatchNorm"),
          (f"{SEGMENTER}.backbone.batch_norm.momentum", 0.1, "torch nn.SyncBatchNorm"),
          (f"{SEGMENTER}.backbone.frozen_statistics", False, f"{VIPSEG}:27-29"),
          (f"{SEGMENTER}.backbone.output_norms", False, f"{VIPSEG}:22-31"),
          ("stage_one.parameters", mmdet(), f"{SCHEDULE}; {MMCV}", "D22")),
    table("vipseg_tube_link_swin_b kitti_step_tube_link_swin_b vipseg_vss_tube_link_swin_* "
          "vspw_2_frames_tube_link_swin_l",
          ("stage_one.parameters", mmdet(), f"{SCHEDULE}; {MMCV}", "D22")),
    table("vspw_tube_link_swin_l",
          ("stage_one.parameters", mmdet(frozen=swin_stages(3)),
           f"{VSPW_SWIN}:48; mmdet mmdet/models/backbones/swin.py:643-659; {SCHEDULE}; {MMCV}", "D22"),
          ("frozen parts", "no gradients, in evaluation mode", "mmdet mmdet/models/backbones/swin.py:643-659", "D16")),
    table("*_tube_link_swin_* !youtube_vis_* !ovis_*",
          (f"{SEGMENTER}.backbone.drop_path", 0.3, "TL configs/video/_base_/models/mask2former_video_swin_b.py"),
          (f"{SEGMENTER}.backbone.output_norms", True, "mmdet mmdet/models/backbones/swin.py (out_indices)")),
    *(table(f"*_tube_link_{backbone} !youtube_vis_* !ovis_* !kitti_step_*",
            (f"{SEGMENTER}.backbone.name", network, source))
      for backbone, network, source in (
          ("r50", "resnet50", f"{VIPSEG}:22-24"),
          ("swin_b", "swin_base_patch4_window12_384", "TL configs/video/_base_/models/mask2former_video_swin_b.py"),
          ("swin_l", "swin_large_patch4_window12_384", f"{VSPW_SWIN}:45-49"))),
    table("kitti_step_tube_link_r50", (f"{SEGMENTER}.backbone.name", "resnet50.tv_in1k", f"{VIPSEG}:22-31")),
    table("kitti_step_tube_link_swin_b", (f"{SEGMENTER}.backbone.name", "swin_base_patch4_window12_384.ms_in22k",
                                          "TL configs/video/_base_/models/mask2former_video_swin_b.py")),
)
