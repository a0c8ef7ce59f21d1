"""kMaX-DeepLab on COCO, plain and with deformable layers: KD and MXV, configs/coco/panoptic_segmentation."""

from __future__ import annotations

from tests.jobs.recipes.official.facts import Table, table
from tests.jobs.recipes.official.parameters import kmax
from tests.jobs.recipes.official.schedules import Poly

R50 = "KD configs/coco/panoptic_segmentation/kmax_r50.yaml"
MAPPER = "KD kmax_deeplab/data/dataset_mappers/panoptic_kmaxdeeplab_dataset_mapper.py"
DECODER = "KD kmax_deeplab/modeling/transformer_decoder/kmax_transformer_decoder.py"
OPTIMIZER = "stage_one.optimizer"
AUGMENT = "stage_one.input.augment"
SEGMENTER = "stage_one.segmenter"

# Parts of a run that only other families have.
NOTHING_ELSE = (
    *((f"stage_one.{part}", None, f"{R50} (nothing of the kind)")
      for part in ("linking", "input.pseudo_video", "stills", "joint")),
    ("stage_one.train", True, f"{R50}:6"),
    ("stage_one.input.drop_empty", False, f"{R50}:89 (panoptic labels)"),
    ("stage_one.input.sampling", "videos", MAPPER),
    ("stage_one.input.frame_stride", 1, MAPPER),
    ("inference.head", None, f"{R50} (nothing of the kind)"),
)

# Losses, and parts of the network, that all of kMaX's descendants share.
SHARED = (
    ("stage_one.losses.pixel_weight", 1.0, f"{R50}:34"),
    ("stage_one.losses.pixel_samples", 4096, "KD kmax_deeplab/config.py:39-51"),
    ("stage_one.losses.semantic_samples", 4096, "KD kmax_deeplab/config.py:39-51"),
    ("stage_one.losses.similarity_temperature", 0.3, "KD kmax_deeplab/modeling/criterion.py"),
    ("stage_one.losses.alpha", (0.75, 0.25), "KD kmax_deeplab/modeling/criterion.py"),
    ("stage_one.losses.smallest_weight", 1e-5, f"{R50}:30"),
    ("stage_one.losses.share_matching", True, f"{R50}:28"),
    ("stage_one.losses.void_counts", False, "KD kmax_deeplab/modeling/criterion.py"),
    ("stage_one.losses.normalise_overlaps", False, "KD kmax_deeplab/modeling/criterion.py"),
    ("stage_one.losses.official_compat", False, "KD kmax_deeplab/modeling/criterion.py"),
    (f"{SEGMENTER}.backbone.frozen_statistics", False, f"{R50}:4-15"),
    (f"{SEGMENTER}.backbone.output_norms", False, "KD kmax_deeplab/modeling/backbone/convnext.py"),
    (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-3, f"{R50}:5; KD kmax_deeplab/modeling/pixel_decoder/"
                                                   "kmax_pixel_decoder.py:36"),
    (f"{SEGMENTER}.backbone.batch_norm.momentum", 0.01, f"{R50}:5"),
    (f"{SEGMENTER}.batch_norm.eps", 1e-3, "KD kmax_deeplab/modeling/pixel_decoder/kmax_pixel_decoder.py:36"),
    (f"{SEGMENTER}.batch_norm.momentum", 0.01, "KD kmax_deeplab/modeling/pixel_decoder/kmax_pixel_decoder.py:36"),
    (f"{SEGMENTER}.query_decoder.num_queries", 128, f"{R50}:47"),
    (f"{SEGMENTER}.query_decoder.layers", (2, 2, 2), f"{R50}:46"),
    (f"{SEGMENTER}.query_decoder.drop_path", 0.2, f"{R50}:49"),
    (f"{SEGMENTER}.query_decoder.void_prior", 0.9, DECODER),
    (f"{SEGMENTER}.query_decoder.mask_norm_scale", 0.1, DECODER),
    (f"{SEGMENTER}.query_decoder.residual_norm_scale", 0.0, DECODER),
    (f"{SEGMENTER}.pixel_mean", 127.5, f"{R50}:7"),
    (f"{SEGMENTER}.pixel_std", 127.5, f"{R50}:8"),
    (f"{OPTIMIZER}.betas", (0.9, 0.999), "torch optim.AdamW; KD train_net.py:236-238"),
    (f"{OPTIMIZER}.clip_norm", None, f"{R50}:75"),
    (f"{AUGMENT}.short_side", (), f"{MAPPER}:35-42"),
    (f"{AUGMENT}.crop", True, f"{MAPPER}:35-42"),
    (f"{AUGMENT}.pad_to", None, f"{MAPPER} (padded to the crop)"),
    (f"{AUGMENT}.long_side", None, f"{MAPPER}:35-42"),
    (f"{AUGMENT}.interpolation", "pillow", "D2 detectron2/data/transforms/transform.py (ResizeTransform)"),
    ("inference.resize", None, f"{R50}:84-85 (a fixed input)"),
    (f"{AUGMENT}.reverse", 0.0, MAPPER),
    (f"{AUGMENT}.color", True, f"{MAPPER}:35-42"),
    ("stage_one.input.samples_per_video", 1, MAPPER),
    ("stage_one.fit.accumulate", 1, R50),
    *NOTHING_ELSE,
)

PANOPTIC = (
    ("inference.results", ("panoptic",), f"{R50}:54"),
    ("inference.panoptic.kind", "mask_wise", "KD kmax_deeplab/kmax_model.py"),
    ("inference.panoptic.overlap", 0.8, f"{R50}:60"),
    ("inference.panoptic.class_power", 1.0, f"{R50}:58"),
    ("inference.panoptic.mask_power", 1.0, f"{R50}:59"),
)

TABLES: tuple[Table, ...] = (
    table("coco_kmax_*", *SHARED, *PANOPTIC,
          ("stage_two", None, R50),
          ("dataset.name", "coco_panoptic", f"{R50}:63"),
          ("stage_one.input.official_compat", False, f"{MAPPER} (an image has no windows)"),
          ("inference.panoptic.official_compat", False, "KD kmax_deeplab/kmax_model.py"),
          ("start weights", "ImageNet", f"{R50}:6"),
          (f"{SEGMENTER}.num_classes", 133, f"{R50}:23"),
          (f"{SEGMENTER}.semantic_head.dropout", 0.1, "KD kmax_deeplab/modeling/transformer_decoder/"
                                                      "kmax_transformer_decoder.py (ASPP)"),
          ("stage_one.losses.class_weight", 3.0, f"{R50}:31"),
          ("stage_one.losses.dice_weight", 3.0, f"{R50}:32"),
          ("stage_one.losses.mask_weight", 0.3, f"{R50}:33"),
          ("stage_one.losses.semantic_weight", 1.0, f"{R50}:35"),
          ("stage_one.losses.pixel_temperature", 1.5, "KD kmax_deeplab/config.py:39-51"),
          ("stage_one.losses.semantic_temperature", 2.0, "KD kmax_deeplab/config.py:39-51"),
          ("stage_one.rates", Poly(lr=5e-4, steps=150_000, warmup=5000), f"{R50}:67-73; KD train_net_utils.py:34-79"),
          ("stage_one.fit.steps", 150_000, f"{R50}:69"),
          ("stage_one.fit.precision", "fp16", f"{R50}:77"),
          ("stage_one.input.batch_size", 64, f"{R50}:66"),
          ("stage_one.input.clip_frames", 1, MAPPER),
          ("stage_one.input.reach", 0, MAPPER),
          (f"{AUGMENT}.flip", 0.5, f"{MAPPER}:35-42"),
          (f"{AUGMENT}.size", (1281, 1281), f"{R50}:79"),
          (f"{AUGMENT}.scale", (0.2, 2.0), f"{R50}:80-81"),
          ("stage_one.input.copy_paste.probability", 1.0, f"{MAPPER}:231-285"),
          ("stage_one.input.copy_paste.scale", 0.5, f"{MAPPER}:231-285"),
          ("stage_one.input.copy_paste.all_things", True, f"{MAPPER}:231-285"),
          ("stage_one.input.copy_paste.reverse", None, f"{MAPPER} (an image is one frame)"),
          ("stage_one.input.jitter_stills", False, f"{MAPPER} (an image is one frame)"),
          (f"{AUGMENT}.color_per_frame", False, f"{MAPPER} (an image is one frame)"),
          ("stage_one.input.refuse.labelled", 4096, f"{MAPPER}:386-396", "D21"),
          ("stage_one.input.refuse.empty", "", f"{MAPPER}:386-396"),
          ("inference.precision", "fp32", "KD train_net.py (no autocast in test)"),
          ("inference.panoptic.sure_first", False, "KD kmax_deeplab/kmax_model.py"),
          ("inference.panoptic.thing", 0.7, f"{R50}:56"),
          ("inference.panoptic.stuff", 0.5, f"{R50}:57"),
          ("inference.panoptic.pixel", 0.4, f"{R50}:55"),
          ("inference.enlarge", True, f"{R50}:84-85")),
    table("coco_kmax_* !*v2_l",
          ("stage_one.parameters", kmax(slow_heads=False, convnextv2=False), "KD train_net.py:160-210")),
    table("coco_kmax_*v2_l",
          ("stage_one.parameters", kmax(slow_heads=False, convnextv2=True), "MXV train_net.py:53, 67, 83-109", "D22"),
          (f"{SEGMENTER}.backbone.name", "convnextv2_large.fcmae_ft_in22k_in1k_384",
           "MXV configs/coco/panoptic_segmentation/kmax_wc_convnextv2_large.yaml (WEIGHTS)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.6, "MXV configs/coco/panoptic_segmentation/"
                                                   "kmax_wc_convnextv2_large.yaml:12")),
    table("coco_kmax_r50 coco_kmax_msda_r50",
          (f"{SEGMENTER}.backbone.name", "resnet50.tv_in1k", f"{R50}:6"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, R50)),
    table("coco_kmax_convnext_l coco_kmax_msda_convnext_l",
          (f"{SEGMENTER}.backbone.name", "convnext_large.fb_in22k_ft_in1k_384",
           "MXV configs/coco/panoptic_segmentation/kmax_convnext_large.yaml (WEIGHTS)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.6, "MXV configs/coco/panoptic_segmentation/"
                                                   "kmax_convnext_large.yaml:12")),
    table("coco_kmax_* !coco_kmax_msda_*", (f"{SEGMENTER}.within_clip", None, R50)),
    table("coco_kmax_msda_*",
          *((f"{SEGMENTER}.within_clip.{name}", value,
             "MXV configs/coco/panoptic_segmentation/kmax_wc_r50.yaml:4-7; MXV maxtron_deeplab/config.py:54-62")
            for name, value in (("attention", None), ("blocks", 2), ("spatial_layers_per_block", 1), ("dim", 256),
                                ("ffn", 1024), ("strides", (8, 16, 32)), ("dropout", 0.0)))),
)
