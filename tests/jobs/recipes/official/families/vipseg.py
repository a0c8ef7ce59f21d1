"""MaXTron on Video-kMaX, VIPSeg: MXV, configs/VIPSeg/panoptic_segmentation, maxtron_wc_* and maxtron_cc_*."""

from __future__ import annotations

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.families.coco_kmax import AUGMENT, PANOPTIC, SEGMENTER, SHARED
from tests.jobs.recipes.official.parameters import kmax
from tests.jobs.recipes.official.schedules import Poly

WC = "MXV configs/VIPSeg/panoptic_segmentation/maxtron_wc_r50.yaml"
WC_LARGE = "MXV configs/VIPSeg/panoptic_segmentation/maxtron_wc_convnext_large.yaml"
WC_V2 = "MXV configs/VIPSeg/panoptic_segmentation/maxtron_wc_convnextv2_large.yaml"
CC = "MXV configs/VIPSeg/panoptic_segmentation/maxtron_cc_r50.yaml"
CC_LARGE = "MXV configs/VIPSeg/panoptic_segmentation/maxtron_cc_convnext_large.yaml"
MAPPER = "MXV maxtron_deeplab/data/dataset_mappers/vipseg_panoptic_maxtron_dataset_mapper.py"
SCRIPT = "MXV train_net_video.py:150-190"
HEAD = "MXV maxtron_deeplab/modeling/cross_clip_tracking_module.py"
TRAINED = "vipseg_video_kmax_r50* vipseg_video_kmax_convnext*"      # all of the family, offline rows too
SMALL = "vipseg_video_kmax_r50*"
LARGE = "vipseg_video_kmax_convnext*"
V2 = "vipseg_video_kmax_convnextv2*"
TWO_STAGES = "vipseg_video_kmax_*_near_online vipseg_video_kmax_*_offline"

_WITHIN_CLIP = (("dim", 256), ("ffn", 1024), ("blocks", 2), ("spatial_layers_per_block", 1), ("attention", "axial"),
                ("arrangement", "interleaved"), ("strides", (8, 16, 32)), ("trajectory_strides", (16, 32)),
                ("dropout", 0.0), ("attention_dropout", 0.0))

TABLES: tuple[Table, ...] = (
    table(TRAINED, *SHARED, *PANOPTIC,
          ("dataset.name", "vipseg", f"{WC}:73"),
          ("shards.resize_height", 720, "MXV datasets/README.md (VIPSeg_720P)"),
          (f"{SEGMENTER}.num_classes", 124, f"{WC}:17"),
          (f"{SEGMENTER}.semantic_head.dropout", 0.1, "MXV maxtron_deeplab/modeling/transformer_decoder/"
                                                      "maxtron_transformer_decoder.py"),
          (f"{SEGMENTER}.backbone.pretrained", False, f"{WC}:6"),
          ("stage_one.losses.class_weight", 4.0, f"{WC}:53"),
          ("stage_one.losses.dice_weight", 5.0, f"{WC}:54"),
          ("stage_one.losses.semantic_weight", 1.0, f"{WC}:57"),
          ("stage_one.losses.pixel_temperature", 1.8, f"{WC}:58"),
          ("stage_one.losses.semantic_temperature", 2.4, f"{WC}:59"),
          ("stage_one.fit.precision", "fp16", f"{WC}:92"),
          ("stage_one.input.batch_size", 32, f"{WC}:76"),
          ("stage_one.input.clip_frames", 2, f"{WC}:103-104"),
          ("stage_one.input.reach", 0, f"{MAPPER}:443-464"),
          ("stage_one.input.refuse", None, MAPPER),
          (f"{AUGMENT}.flip", 0.5, f"{MAPPER}:22-55"),
          (f"{AUGMENT}.size", (769, 1345), f"{MAPPER}:22-55"),
          (f"{AUGMENT}.scale", (0.3, 1.7), f"{MAPPER}:22-55"),
          (f"{AUGMENT}.color_per_frame", True, f"{MAPPER}:170-177; D2 projects/PointRend/point_rend/"
                                            "color_augmentation.py (apply_image)", "D4"),
          ("stage_one.input.copy_paste.probability", 1.0, f"{MAPPER}:216-345"),
          ("stage_one.input.copy_paste.scale", 0.5, f"{MAPPER}:216-345"),
          ("stage_one.input.copy_paste.all_things", True, f"{MAPPER}:216-345"),
          ("stage_one.input.copy_paste.reverse", None, f"{WC}:103-104"),
          ("stage_one.input.jitter_stills", False, f"{MAPPER} (videos)"),
          ("stage_one.input.official_compat", True, f"{MAPPER}:443-464", "D25"),
          ("inference.clip_frames", 2, f"{WC}:104"),
          ("inference.panoptic.official_compat", True, "MXV maxtron_deeplab/maxtron_wc_model.py:217-372", "D25"),
          ("inference.precision", "fp32", "MXV train_net_video.py (no autocast in test)"),
          ("inference.panoptic.sure_first", False, "MXV maxtron_deeplab/maxtron_wc_model.py:217-372"),
          ("inference.last_clip", "repeat", "MXV maxtron_deeplab/maxtron_wc_model.py:217-372"),
          ("inference.enlarge", False, "MXV maxtron_deeplab/maxtron_wc_model.py:217-372"),
          ("inference.association.kind", "hungarian", "MXV maxtron_deeplab/maxtron_wc_model.py:217-372"),
          ("evaluation.split", "val", f"{WC}:74")),
    table(SMALL,
          (f"{SEGMENTER}.backbone.name", "resnet50", f"{WC}:4-15"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, WC),
          ("stage_one.losses.mask_weight", 0.1, f"{WC}:55"),
          ("stage_one.rates", Poly(lr=5e-5, steps=40_000, warmup=2000), f"{WC}:79-84"),
          ("stage_one.fit.steps", 40_000, f"{WC}:82")),
    table(LARGE,
          (f"{SEGMENTER}.backbone.drop_path", 0.3, f"{WC_LARGE}:10"),
          ("stage_one.losses.mask_weight", 0.01, f"{WC_LARGE}:53"),
          ("stage_one.rates", Poly(lr=5e-5, steps=30_000, warmup=1500), f"{WC_LARGE}:76-81"),
          ("stage_one.fit.steps", 30_000, f"{WC_LARGE}:79"),
          ("inference.panoptic.thing", 0.7, f"{WC_LARGE}:34-37"),
          ("inference.panoptic.stuff", 0.5, f"{WC_LARGE}:34-37"),
          ("inference.panoptic.pixel", 0.4, f"{WC_LARGE}:34-37")),
    table("vipseg_video_kmax_convnext_l*", (f"{SEGMENTER}.backbone.name", "convnext_large", f"{WC_LARGE}:5")),
    table(V2, (f"{SEGMENTER}.backbone.name", "convnextv2_large", f"{WC_V2}:5")),
    table("vipseg_video_kmax_r50 vipseg_video_kmax_r50_near_online",
          ("inference.panoptic.thing", 0.2, f"{WC}:36-40"),
          ("inference.panoptic.stuff", 0.3, f"{WC}:36-40"),
          ("inference.panoptic.pixel", 0.3, f"{WC}:36-40")),
    table("vipseg_video_kmax_r50_offline",
          ("inference.panoptic.thing", 0.2, f"{CC}:45-49"),
          ("inference.panoptic.stuff", 0.45, f"{CC}:45-49"),
          ("inference.panoptic.pixel", 0.2, f"{CC}:45-49")),
    table(TWO_STAGES,
          *((f"{SEGMENTER}.within_clip.{name}", value, f"{WC}:26-34") for name, value in _WITHIN_CLIP)),
    table("vipseg_video_kmax_r50_near_online vipseg_video_kmax_r50_offline",
          ("start weights", "coco_kmax_msda_r50", "MXV GETTING_STARTED.md"),
          (f"{SEGMENTER}.within_clip.trajectory_layers_per_block", 2, f"{WC}:26-34"),
          (f"{SEGMENTER}.within_clip.residual_dropout", 0.0, f"{WC}:26-34; MXV maxtron_deeplab/modeling/"
                                                             "temporal_attention.py:164-166"),
          ("stage_one.parameters", kmax(slow_heads=True, convnextv2=False), SCRIPT),
          ("stage_two.input.reverse", 0.5, f"{CC}:110-112"),
          ("cache.copy_paste.reverse", 0.5, f"{CC}:110-112; {MAPPER}")),
    table("vipseg_video_kmax_convnext_l_*",
          ("start weights", "coco_kmax_msda_convnext_l", "MXV GETTING_STARTED.md"),
          (f"{SEGMENTER}.within_clip.trajectory_layers_per_block", 3, f"{WC_LARGE}:24-32"),
          (f"{SEGMENTER}.within_clip.residual_dropout", 0.1, f"{WC_LARGE}:24-32"),
          ("stage_one.parameters", kmax(slow_heads=True, convnextv2=False), SCRIPT),
          ("stage_two.input.reverse", 0.0, f"{CC_LARGE}:108-111"),
          ("cache.copy_paste.reverse", 0.0, f"{CC_LARGE}:108-111; {MAPPER}")),
    table("vipseg_video_kmax_convnextv2_l_*",
          ("start weights", "coco_kmax_msda_convnextv2_l", "MXV GETTING_STARTED.md"),
          (f"{SEGMENTER}.within_clip.trajectory_layers_per_block", 3, f"{WC_V2}:24-32"),
          (f"{SEGMENTER}.within_clip.residual_dropout", 0.2, f"{WC_V2}:24-32"),
          ("stage_one.parameters", kmax(slow_heads=True, convnextv2=True), f"{SCRIPT}; MXV maxtron_deeplab/modeling/"
                                                                           "backbone/convnextv2.py:46", "D22"),
          ("stage_two.input.reverse", 0.0, f"{CC_LARGE}:108-111"),
          ("cache.copy_paste.reverse", 0.0, f"{CC_LARGE}:108-111; {MAPPER}")),
    # Stage two, which a near-online recipe carries too.
    table(TWO_STAGES,
          ("stage_two.parameters", kmax(slow_heads=True, convnextv2=False), SCRIPT),
          ("stage_two.rates", Poly(lr=5e-5, steps=15_000, warmup=750), f"{CC}:88-95"),
          ("stage_two.optimizer.betas", (0.9, 0.999), "torch optim.AdamW; MXV train_net_video.py"),
          ("stage_two.optimizer.clip_norm", None, f"{CC}:96-97"),
          ("stage_two.fit.steps", 15_000, f"{CC}:91"),
          ("stage_two.fit.accumulate", 1, CC),
          ("stage_two.fit.precision", "fp16", f"{CC}:98-99", "D20"),
          ("stage_two.losses.class_weight", 4.0, f"{CC}:59-68"),
          ("stage_two.losses.dice_weight", 4.0, f"{CC}:59-68"),
          ("stage_two.losses.mask_weight", 0.0, f"{CC}:59-68"),
          ("stage_two.losses.share_matching", True, f"{CC}:59-68; MXV maxtron_deeplab/maxtron_cc_model.py:138-145"),
          ("stage_two.losses.alpha", (0.75, 0.25), "MXV maxtron_deeplab/modeling/cc_criterion.py"),
          ("stage_two.losses.smallest_weight", 1e-5, f"{CC}:59-68"),
          ("stage_two.losses.void_counts", False, "MXV maxtron_deeplab/modeling/cc_criterion.py"),
          ("stage_two.input.clips", 12, f"{CC}:110-112"),
          ("stage_two.input.batch_size", 16, f"{CC}:88"),
          ("stage_two.input.samples_per_video", 1, MAPPER),
          ("stage_two.head.num_classes", 124, f"{CC}:17"),
          ("stage_two.head.batch_norm.eps", 1e-3, HEAD),
          ("stage_two.head.batch_norm.momentum", 0.01, HEAD),
          ("stage_two.head.layers", 4, f"{CC}:36-43"),
          ("stage_two.head.attention", "trajectory", f"{CC}:36-43"),
          ("stage_two.head.aspp", True, f"{CC}:36-43"),
          ("stage_two.head.aspp_rates", (1, 2, 3), f"{CC}:36-43"),
          ("stage_two.head.aspp_kernels", (3, 3, 3), f"{CC}:36-43"),
          ("stage_two.head.aspp_norm", "ln", f"{CC}:36-43"),
          ("stage_two.head.attention_dropout", 0.0, f"{CC}:36-43"),
          ("stage_two.head.aspp_dropout", 0.0, f"{CC}:36-43"),
          ("stage_two.head.void_prior", 0.9, f"{HEAD}"),
          ("stage_two.head.mask_norm_scale", 0.1, f"{HEAD}"),
          ("stage_two.head.start", "official", f"{HEAD}:156-161", "D7"),
          ("stage_two.head.train_norms", True, f"{HEAD} (training mode)", "D7"),
          ("stage_two.head.official_compat", True, "MXV maxtron_deeplab/modeling/cc_criterion.py (one softmax over "
                                                   "the clips of all videos of a GPU)", "D25"),
          *rows("cache.copy_paste", {"probability": 1.0, "scale": 0.5, "all_things": True},
                f"{MAPPER}:216-345; MXV maxtron_deeplab/maxtron_cc_model.py:274-301", "D5"),
          ("cache.window_frames", 24, f"{CC}:110-112", "D5"),
          ("stage_two.input.test_view", False, f"{MAPPER} (every clip is augmented)", "D5"),
          ("stage_two.input.sampling", "videos", f"{MAPPER}:443-464"),
          ("stage_two.input.reach", 0, f"{CC}:110-112"),
          ("cache.views", "a fresh one at every step", f"{MAPPER}; MXV maxtron_deeplab/maxtron_cc_model.py:274-301",
           "D5"),
          ("cache.evidence.pixels", "every pixel at stride 4", "MXV maxtron_deeplab/maxtron_cc_model.py:274-301",
           "D5")),
    table("vipseg_video_kmax_*_near_online", ("evaluation.mode", "near_online", f"{WC}:104")),
    table("vipseg_video_kmax_*_offline", ("evaluation.mode", "offline", CC)),
    # The baseline has no released configuration; the paper calls it the same run without within-clip tracking.
    table("vipseg_video_kmax_r50 vipseg_video_kmax_convnext_l",
          (f"{SEGMENTER}.within_clip", None, "arXiv 2311.18537 table 1 (RP)"),
          ("stage_two", None, "arXiv 2311.18537 table 1 (RP)"),
          ("stage_one.parameters", kmax(slow_heads=True, convnextv2=False), "arXiv 2311.18537 table 1 (RP)"),
          ("evaluation.mode", "near_online", "arXiv 2311.18537 table 1 (RP)")),
    table("vipseg_video_kmax_r50", ("start weights", "coco_kmax_r50", "arXiv 2311.18537 table 1 (RP)")),
    table("vipseg_video_kmax_convnext_l",
          ("start weights", "coco_kmax_convnext_l", "arXiv 2311.18537 table 1 (RP)")),
)
