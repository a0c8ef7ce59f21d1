"""Mask2Former on COCO, as mmdetection trains it: TL and MXT, configs/image/mask2former."""

from __future__ import annotations

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.parameters import mmdet, resnet_norms
from tests.jobs.recipes.official.schedules import Drops

STDC = "TL configs/image/mask2former/mask2former_stdc1_lsj_8x2_32e_coco-panoptic.py"
R50 = "TL configs/image/mask2former/mask2former_r50_lsj_8x2_50e_coco-panoptic.py"
SWIN_T = "TL configs/image/mask2former/mask2former_swin-t-p4-w7-224_lsj_8x2_50e_coco-panoptic.py"
SWIN_L = "mmdet configs/mask2former/mask2former_swin-l-p4-w12-384-in21k_lsj_16x1_100e_coco-panoptic.py"
M2F_SWIN_L = "M2F configs/coco/instance-segmentation/swin/maskformer2_swin_large_IN21k_384_bs16_100ep.yaml"
SWIN_L_INSTANCE = "TL configs/image/mask2former/mask2former_swin-l_p4-w12-384-in21k_lsj_16x1_50e_coco.py"
OPENCV = "mmcv mmcv/image/geometric.py (imresize, cv2 bilinear)"
AUGMENT = "stage_one.input.augment"
SEGMENTER = "stage_one.segmenter"

# Losses, matching and parts of the network that Mask2Former shares with Tube-Link, MaXTron on it, and VITA.
LOSSES = (
    ("stage_one.losses.class_weight", 2.0, f"{R50}:91-96"),
    ("stage_one.losses.mask_weight", 5.0, f"{R50}:97-101"),
    ("stage_one.losses.dice_weight", 5.0, f"{R50}:102-109"),
    ("stage_one.losses.no_object_weight", 0.1, f"{R50}:96"),
    ("stage_one.losses.costs.class_weight", 2.0, f"{R50}:120-126"),
    ("stage_one.losses.costs.mask_weight", 5.0, f"{R50}:120-126"),
    ("stage_one.losses.costs.dice_weight", 5.0, f"{R50}:120-126"),
    ("stage_one.losses.costs.smoothing", 1.0, f"{R50}:120-126"),
    ("stage_one.losses.points.count", 12_544, f"{R50}:117-119"),
    ("stage_one.losses.points.oversample", 3.0, f"{R50}:117-119"),
    ("stage_one.losses.points.importance", 0.75, f"{R50}:117-119"),
    ("stage_one.losses.official_compat", False, "TL models/video/tube_link_vis/mask2former_video_head.py "
                                                "(num_total_masks)"),
)
NOTHING_ELSE = (
    *((f"stage_one.{part}", None, f"{R50} (nothing of the kind)")
      for part in ("input.pseudo_video", "stills", "joint")),
    ("stage_one.train", True, R50),
    ("stage_one.input.jitter_stills", False, f"{R50} (nothing of the kind)"),
    ("stage_one.input.official_compat", False, f"{R50} (no copy-paste)"),
    (f"{AUGMENT}.color_per_frame", False, f"{R50} (no colours)"),
    ("inference.head", None, f"{R50} (nothing of the kind)"),
)
NETWORK = (
    (f"{SEGMENTER}.query_decoder.layers", 9, f"{R50}:68"),
    (f"{SEGMENTER}.pixel_decoder.layers", 6, f"{R50}:36-46"),
    (f"{SEGMENTER}.pixel_decoder.dropout", 0.0, f"{R50}:36-46"),
    (f"{SEGMENTER}.pixel_mean", (123.675, 116.28, 103.53), f"{R50}:144-145"),
    (f"{SEGMENTER}.pixel_std", (58.395, 57.12, 57.375), f"{R50}:144-145"),
    ("stage_one.optimizer.betas", (0.9, 0.999), f"{R50}:205-210"),
    ("stage_one.optimizer.clip_norm", 0.01, f"{R50}:219"),
    ("stage_one.fit.accumulate", 1, R50),
    ("inference.precision", "fp32", f"{R50} (no fp16 setting)"),
    *NOTHING_ELSE,
)

TABLES: tuple[Table, ...] = (
    table("coco_mask2former_*", *LOSSES, *NETWORK,
          ("stage_two", None, R50),
          ("start weights", "ImageNet", f"{R50}:18; {SWIN_T}:29"),
          (f"{SEGMENTER}.query_decoder.positions", "frame", f"{R50}:63-64"),
          (f"{SEGMENTER}.within_clip", None, R50),
          (f"{SEGMENTER}.linking", None, R50),
          ("stage_one.linking", None, R50),
          ("stage_one.fit.precision", "fp32", f"{R50} (no fp16 setting)"),
          ("stage_one.input.batch_size", 16, f"{R50}:191 (8 GPUs x 2)"),
          ("stage_one.input.clip_frames", 1, R50),
          ("stage_one.input.reach", 0, R50),
          ("stage_one.input.samples_per_video", 1, R50),
          ("stage_one.input.copy_paste", None, f"{R50}:146-173"),
          ("stage_one.input.sampling", "videos", R50),
          ("stage_one.input.frame_stride", 1, R50),
          ("stage_one.input.refuse", None, f"{R50}:161-166 (allow_negative_crop)"),
          (f"{AUGMENT}.size", (1024, 1024), f"{R50}:143"),
          (f"{AUGMENT}.short_side", (), f"{R50}:155-160"),
          (f"{AUGMENT}.scale", (0.1, 2.0), f"{R50}:155-160"),
          (f"{AUGMENT}.crop", True, f"{R50}:161-166"),
          (f"{AUGMENT}.flip", 0.5, f"{R50}:153"),
          (f"{AUGMENT}.reverse", 0.0, R50),
          (f"{AUGMENT}.color", False, f"{R50}:146-173"),
          (f"{AUGMENT}.interpolation", "opencv", OPENCV, "D18"),
          (f"{AUGMENT}.pad_to", None, f"{R50}:168"),
          (f"{AUGMENT}.long_side", None, f"{R50}:155-160"),
          *rows("inference.resize", {"short_side": 800, "long_side": 1333, "pad_to": 32, "interpolation": "opencv"},
                f"{R50}:174-188; {OPENCV}", "D18")),
    table("coco_mask2former_instance_*",
          ("dataset.name", "coco_instance", f"{SWIN_L_INSTANCE}:58-65"),
          (f"{SEGMENTER}.num_classes", 80, f"{SWIN_L_INSTANCE}:3-5"),
          ("stage_one.input.drop_empty", True, "mmdet mmdet/datasets/custom.py:68, 176-184 (filter_empty_gt, 1021 of "
                                               "118,287 images)", "D23"),
          ("inference.results", ("tracks",), f"{R50}:133"),
          ("inference.tracks.candidates", 100, f"{R50}:135"),
          ("inference.tracks.per_frame", 100, f"{R50}:135"),
          ("inference.tracks.scored", "frames", f"{R50}:133")),
    table("coco_mask2former_panoptic_*",
          ("stage_one.input.drop_empty", False, f"{R50}:2"),
          ("dataset.name", "coco_panoptic", f"{R50}:2"),
          (f"{SEGMENTER}.num_classes", 133, f"{R50}:4-6"),
          ("inference.results", ("panoptic", "tracks"), f"{R50}:128-133")),
    table("coco_mask2former_*_r50",
          ("stage_one.parameters", mmdet(frozen=resnet_norms), f"{R50}:14-15, 203-218; mmcv "
           "mmcv/runner/optimizer/default_constructor.py"),
          ("stage_one.rates", Drops(lr=1e-4, steps=368_750, milestones=(327_778, 355_092), warmup=10, factor=1.0),
           f"{R50}:205-232"),
          ("stage_one.fit.steps", 368_750, f"{R50}:231"),
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{R50}:27"),
          (f"{SEGMENTER}.backbone.name", "resnet50.tv_in1k", f"{R50}:18"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{R50}:9-18"),
          (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-5, "torch nn.BatchNorm2d"),
          (f"{SEGMENTER}.backbone.frozen_statistics", True, f"{R50}:15-16"),
          ("frozen parts", "no gradients, in evaluation mode", f"{R50}:15-16 (requires_grad=False, norm_eval)", "D24"),
          (f"{SEGMENTER}.backbone.output_norms", False, R50)),
    table("coco_mask2former_panoptic_stdc*",
          ("stage_one.parameters", mmdet(), f"{STDC}:180-194; mmcv mmcv/runner/optimizer/default_constructor.py"),
          ("stage_one.rates", Drops(lr=1e-4, steps=266_148, milestones=(199_611, 243_969), warmup=500),
           f"{STDC}:197-208"),
          ("stage_one.fit.steps", 266_148, f"{STDC}:206-207 (36 epochs of 118,287 images, 16 a step)"),
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{STDC}:20"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{STDC}:8-10"),
          (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-5, "torch nn.BatchNorm2d"),
          (f"{SEGMENTER}.backbone.frozen_statistics", False, "TL mmdet/models/backbones/stdc.py"),
          (f"{SEGMENTER}.backbone.output_norms", False, STDC)),
    table("coco_mask2former_panoptic_stdc1", (f"{SEGMENTER}.backbone.name", "stdc1.in1k", f"{STDC}:9 (STDCNet813)")),
    table("coco_mask2former_panoptic_stdc2",
          (f"{SEGMENTER}.backbone.name", "stdc2.in1k",
           "TL configs/image/mask2former/mask2former_stdc2_lsj_8x2_32e_coco-panoptic.py:9 (STDCNet1446)")),
    table("coco_mask2former_*_swin_*",
          ("stage_one.parameters", mmdet(swin_keys=True), f"{SWIN_T}:36-65; mmcv mmcv/runner/optimizer/"
                                                          "default_constructor.py"),
          (f"{SEGMENTER}.backbone.drop_path", 0.3, f"{SWIN_T}:22"),
          (f"{SEGMENTER}.backbone.output_norms", True, "mmdet mmdet/models/backbones/swin.py (out_indices)")),
    table("coco_mask2former_panoptic_swin_b",
          ("stage_one.rates", Drops(lr=1e-4, steps=368_750, milestones=(327_778, 355_092), warmup=10, factor=1.0),
           f"{R50}:205-232"),
          ("stage_one.fit.steps", 368_750, f"{R50}:231"),
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{R50}:27"),
          (f"{SEGMENTER}.backbone.name", "swin_base_patch4_window12_384.ms_in22k", "mmdet configs/mask2former/"
           "mask2former_swin-b-p4-w12-384-in21k_lsj_8x2_50e_coco-panoptic.py")),
    table("coco_mask2former_instance_swin_l",
          ("stage_one.rates", Drops(lr=1e-4, steps=737_500, milestones=(655_556, 710_184), warmup=10, factor=1.0),
           f"{M2F_SWIN_L}:50-52; {SWIN_L}:11-16"),
          ("stage_one.fit.steps", 737_500, f"{M2F_SWIN_L}:52; {SWIN_L}:15"),
          (f"{SEGMENTER}.query_decoder.num_queries", 200, f"{SWIN_L}:9"),
          (f"{SEGMENTER}.backbone.name", "swin_large_patch4_window12_384.ms_in22k", f"{SWIN_L}:2")),
    table("coco_mask2former_panoptic_swin_l",
          ("stage_one.rates", Drops(lr=1e-4, steps=737_500, milestones=(655_556, 710_184), warmup=10, factor=1.0),
           f"{SWIN_L}:11-16"),
          ("stage_one.fit.steps", 737_500, f"{SWIN_L}:15"),
          (f"{SEGMENTER}.query_decoder.num_queries", 200, f"{SWIN_L}:9"),
          (f"{SEGMENTER}.backbone.name", "swin_large_patch4_window12_384.ms_in22k", f"{SWIN_L}:2")),
)
