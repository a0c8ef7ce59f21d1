"""Video-kMaX itself: VK, configs/coco/video-panoptic-segmentation and configs/VIPSeg."""

from __future__ import annotations

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.families.coco_kmax import AUGMENT, PANOPTIC, SEGMENTER, SHARED
from tests.jobs.recipes.official.parameters import kmax
from tests.jobs.recipes.official.schedules import Poly

COCO = "VK configs/coco/video-panoptic-segmentation/kmax_r50.yaml"
COCO_LARGE = "VK configs/coco/video-panoptic-segmentation/kmax_convnext_large.yaml"
BASE = "VK configs/VIPSeg/r50_online_lamb/video_kmax_r50.yaml"
NEAR = "VK configs/VIPSeg/video_kmax_r50_hi_lamb_near.yaml"
NEAR_LARGE = "VK configs/VIPSeg/video_kmax_convnext_large_hi_lamb_near.yaml"
ONLINE = "VK configs/VIPSeg/video_kmax_r50_hi_lamb_online.yaml"
ONLINE_LARGE = "VK configs/VIPSeg/video_kmax_convnext_large_hi_lamb_online.yaml"
CONFIG = "VK kmax_deeplab/config.py"
MAPPER = "VK kmax_deeplab/data/dataset_mappers/vip_seg_panoptic_dataset_mapper.py"
COCO_MAPPER = "VK kmax_deeplab/data/dataset_mappers/coco_video_panoptic_dataset_mapper.py"
LAMB = "VK kmax_deeplab/utils/associater/lamb_module.py"
NEW_CONFIG = "VK video_kmax_deeplab/config.py"
NEW_MODEL = "VK video_kmax_deeplab/video_kmax_model.py"
MODEL = "VK kmax_deeplab/video_kmax_model.py"

PSEUDO = "coco_video_kmax_*"
VIPSEG = "vipseg_original_video_kmax_r50 vipseg_original_video_kmax_convnext_l vipseg_original_video_kmax_*_online"


def _poly(recipes: str, lr: float, steps: int, source: str) -> Table:
    return table(recipes, ("stage_one.rates", Poly(lr=lr, steps=steps, warmup=5000), source),
                 ("stage_one.fit.steps", steps, source))


TABLES: tuple[Table, ...] = (
    table(f"{PSEUDO} {VIPSEG}", *SHARED, *PANOPTIC,
          ("stage_two", None, BASE),
          ("stage_one.parameters", kmax(slow_heads=False, convnextv2=False), "VK train_net.py (build_optimizer)"),
          (f"{SEGMENTER}.within_clip", None, BASE),
          ("stage_one.losses.dice_weight", 3.0, f"{BASE} (DICE_WEIGHT); {COCO} (DICE_WEIGHT)"),
          ("stage_one.losses.mask_weight", 0.3, f"{BASE} (MASK_WEIGHT); {COCO} (MASK_WEIGHT)"),
          ("stage_one.losses.pixel_temperature", 1.5, f"{CONFIG} (PIXEL_INSDIS_TEMPERATURE)"),
          ("stage_one.losses.semantic_temperature", 2.0, f"{CONFIG} (AUX_SEMANTIC_TEMPERATURE)"),
          ("stage_one.input.copy_paste.probability", 1.0, f"{MAPPER} (call_copypaste); {COCO_MAPPER} (call_copypaste)"),
          ("stage_one.input.refuse.empty", "first", f"{MAPPER} (__call__); {COCO_MAPPER} (__call__)"),
          ("stage_one.input.refuse.labelled", 0, f"{MAPPER} (__call__); {COCO_MAPPER} (__call__)"),
          ("stage_one.input.copy_paste.reverse", None, MAPPER),
          ("stage_one.input.copy_paste.scale", 0.5, f"{MAPPER} (scale_ratio); {COCO_MAPPER} (scale_ratio)"),
          (f"{AUGMENT}.color_per_frame", False, f"{MAPPER} (the frames of a clip are coloured as one image); "
                                                f"{COCO_MAPPER} (the still is coloured)"),
          ("inference.enlarge", True, f"{BASE} (MIN_SIZE_TEST); {COCO} (MIN_SIZE_TEST)"),
          ("inference.precision", "fp32", "VK train_net.py (no autocast in test)"),
          # Every pixel goes to the best query of those whose class score exceeds OBJECT_MASK_THRESHOLD.
          ("inference.panoptic.sure_first", True, f"{NEW_CONFIG} (POST_PROCESSING_SEG pixel_wise)"),
          ("inference.panoptic.pixel", 0.5, f"{NEW_MODEL} (panoptic_inference_pixel: the largest share)")),
    table(PSEUDO,
          ("dataset.name", "coco_panoptic", f"{COCO} (DATASETS)"),
          ("start weights", "ImageNet", f"{COCO} (WEIGHTS)"),
          (f"{SEGMENTER}.num_classes", 133, f"{COCO} (NUM_CLASSES)"),
          (f"{SEGMENTER}.semantic_head.dropout", 0.1, "KD kmax_deeplab/modeling/transformer_decoder/"
                                                      "kmax_transformer_decoder.py (ASPP)"),
          ("stage_one.losses.class_weight", 3.0, f"{COCO} (CLASS_WEIGHT)"),
          ("stage_one.losses.semantic_weight", 1.0, f"{COCO} (AUX_SEMANTIC_WEIGHT)"),
          ("stage_one.input.clip_frames", 1, f"{COCO} (SAMPLING_FRAME_NUM)"),
          ("stage_one.input.reach", 0, COCO_MAPPER),
          ("stage_one.input.official_compat", False, COCO_MAPPER),
          ("inference.panoptic.official_compat", False, MODEL),
          ("stage_one.input.jitter_stills", True, f"{COCO_MAPPER} (read_dataset_dict)"),
          ("stage_one.input.copy_paste.all_things", True, f"{COCO_MAPPER} (call_copypaste)"),
          (f"{AUGMENT}.size", (1281, 1281), f"{COCO} (IMAGE_SIZE)"),
          (f"{AUGMENT}.scale", (0.2, 2.0), f"{COCO} (MIN_SCALE, MAX_SCALE)"),
          (f"{AUGMENT}.flip", 0.0, f"{COCO_MAPPER} (RandomFlip is switched off)"),
          *rows("inference.panoptic", {"thing": 0.4, "stuff": 0.4}, f"{COCO} (OBJECT_MASK_THRESHOLD)"),
          ("inference.clip_frames", 1, f"{COCO} (TEST_SAMPLING_FRAME_NUM)")),
    _poly("coco_video_kmax_r50", 1e-4, 150_000, f"{COCO} (SOLVER)"),
    _poly("coco_video_kmax_convnext_l", 1e-4, 300_000, f"{COCO_LARGE} (SOLVER); {COCO} (SOLVER)"),
    table("coco_video_kmax_r50",
          (f"{SEGMENTER}.backbone.name", "resnet50.tv_in1k", f"{COCO} (WEIGHTS)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{COCO} (BACKBONE)"),
          ("stage_one.fit.precision", "fp32", f"{COCO} (AMP)"),
          ("stage_one.input.batch_size", 64, f"{COCO} (IMS_PER_BATCH)")),
    table("coco_video_kmax_convnext_l",
          (f"{SEGMENTER}.backbone.name", "convnext_large.fb_in22k_ft_in1k_384", f"{COCO_LARGE} (WEIGHTS)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.6, f"{COCO_LARGE} (DROP_PATH_RATE)"),
          ("stage_one.fit.precision", "fp16", f"{COCO_LARGE} (AMP)"),
          ("stage_one.input.batch_size", 8, f"{COCO_LARGE} (IMS_PER_BATCH)")),
    table(VIPSEG,
          ("dataset.name", "vipseg", f"{BASE} (DATASETS)"),
          (f"{SEGMENTER}.num_classes", 124, f"{BASE} (NUM_CLASSES)"),
          ("stage_one.losses.class_weight", 1.0, f"{BASE} (CLASS_WEIGHT)"),
          ("stage_one.losses.semantic_weight", 0.0, f"{BASE} (AUX_SEMANTIC_WEIGHT)"),
          ("stage_one.fit.precision", "fp32", f"{BASE} (AMP)"),
          (f"{SEGMENTER}.semantic_head", None, f"{BASE} (AUX_SEMANTIC_WEIGHT 0: nothing trains it)"),
          ("stage_one.input.jitter_stills", False, f"{MAPPER} (videos)"),
          ("stage_one.input.official_compat", True, f"{MAPPER} (call_copypaste)"),
          ("inference.panoptic.official_compat", True, MODEL),
          ("stage_one.input.batch_size", 8, f"{BASE} (IMS_PER_BATCH)"),
          ("stage_one.input.copy_paste.all_things", False, f"{MAPPER} (call_copypaste)"),
          (f"{AUGMENT}.size", (897, 1601), f"{BASE} (IMAGE_SIZE)"),
          (f"{AUGMENT}.scale", (0.5, 2.0), f"{BASE} (MIN_SCALE, MAX_SCALE)"),
          (f"{AUGMENT}.flip", 0.5, f"{MAPPER} (RandomFlip)"),
          ("inference.last_clip", "repeat", MODEL),
          ("inference.association.kind", "memory_buffer", f"{CONFIG} (MEMORY_NAME)"),
          ("inference.association.stitch", True, f"{NEAR} (USE_CLIP_STITCHING)"),
          ("inference.association.location", True, LAMB),
          ("inference.association.patience", 10, f"{NEAR} (LAMB_BUFFER_SIZE)"),
          ("inference.association.temperature", 1.0, LAMB),
          ("inference.association.update", 0.2, LAMB),
          ("inference.association.official_compat", True, LAMB),
          ("evaluation.mode", "near_online", NEAR),
          ("evaluation.split", "val", f"{BASE} (DATASETS)")),
    table("vipseg_original_video_kmax_r50 vipseg_original_video_kmax_convnext_l",
          ("stage_one.input.clip_frames", 2, f"{NEAR} (SAMPLING_FRAME_NUM)"),
          ("stage_one.input.reach", 5, f"{CONFIG} (SAMPLING_FRAME_RANGE)"),
          ("inference.clip_frames", 2, f"{NEAR} (TEST_SAMPLING_FRAME_NUM)"),
          *rows("inference.panoptic", {"thing": 0.3, "stuff": 0.3}, f"{NEAR} (OBJECT_MASK_THRESHOLD)"),
          ("inference.association.overlap", 1, MODEL),
          ("inference.association.accept", 0.7, f"{NEAR} (LAMB_CONF_THRES)")),
    table("vipseg_original_video_kmax_*_online",
          ("stage_one.input.clip_frames", 1, f"{ONLINE} (SAMPLING_FRAME_NUM)"),
          ("stage_one.input.reach", 0, f"{ONLINE} (SAMPLING_FRAME_NUM)"),
          ("inference.clip_frames", 1, f"{ONLINE} (TEST_SAMPLING_FRAME_NUM)"),
          *rows("inference.panoptic", {"thing": 0.4, "stuff": 0.4}, f"{ONLINE} (OBJECT_MASK_THRESHOLD)"),
          ("inference.association.overlap", 0, MODEL),
          ("inference.association.accept", 0.5, f"{ONLINE} (LAMB_CONF_THRES)")),
    _poly("vipseg_original_video_kmax_r50", 3e-4, 80_000, f"{NEAR} (MAX_ITER); {BASE} (SOLVER)"),
    _poly("vipseg_original_video_kmax_convnext_l", 3e-4, 30_000, f"{NEAR_LARGE} (MAX_ITER); {BASE} (SOLVER)"),
    _poly("vipseg_original_video_kmax_r50_online", 3e-4, 60_000, f"{ONLINE} (MAX_ITER); {BASE} (SOLVER)"),
    _poly("vipseg_original_video_kmax_convnext_l_online", 3e-4, 40_000, f"{ONLINE_LARGE} (MAX_ITER); {BASE} (SOLVER)"),
    table("vipseg_original_video_kmax_r50 vipseg_original_video_kmax_r50_online",
          (f"{SEGMENTER}.backbone.name", "resnet50", f"{BASE} (DEPTH)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{BASE} (BACKBONE)")),
    table("vipseg_original_video_kmax_convnext_l vipseg_original_video_kmax_convnext_l_online",
          (f"{SEGMENTER}.backbone.name", "convnext_large", f"{NEAR_LARGE} (CONVNEXT)"),
          (f"{SEGMENTER}.backbone.drop_path", 0.4, f"{NEAR_LARGE} (DROP_PATH_RATE)")),
    *(table(f"vipseg_original_video_kmax_{backbone}",
            ("start weights", f"coco_video_kmax_{backbone}", f"{file} (WEIGHTS)"))
      for backbone, file in (("r50", NEAR), ("convnext_l", NEAR_LARGE))),
    *(table(f"vipseg_original_video_kmax_{backbone}_online",
            ("start weights", f"coco_kmax_{backbone}", f"{file} (WEIGHTS)"))
      for backbone, file in (("r50", ONLINE), ("convnext_l", ONLINE_LARGE))),
)
