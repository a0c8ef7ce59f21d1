"""Tube-Link, and MaXTron on it, on YouTube-VIS and OVIS: TL and MXT, configs/video."""

from __future__ import annotations

from dataclasses import dataclass

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.families.coco_mask2former import AUGMENT, LOSSES, NETWORK, OPENCV, SEGMENTER
from tests.jobs.recipes.official.parameters import aspp_norm, inside, mmdet
from tests.jobs.recipes.official.schedules import Drops

BASE = "TL configs/video/_base_"
YTVIS = f"{BASE}/datasets/yvis_2021.py"
OVIS = "TL configs/video/ovis/ovis_r50_tb_link_2_5k_5k_10k.py"
OVIS_DATA = f"{BASE}/datasets/ovis.py"
MODEL = f"{BASE}/models/mask2former_tube_r50.py"
ITERATIONS = f"{BASE}/schedules/mask2former_schedules_iter.py"
SWIN_ITERATIONS = f"{BASE}/schedules/mask2former_swin_schedules_iter.py"
TEST = "TL models/video/tube_link_vis/mask2former_vis_tube.py"
NEAR = "MXT configs/video/*_maxtron_wc_*"
CROSS = "MXT configs/video/*_maxtron_cc_*"
CC_HEAD = "MXT models/video/tube_link_vis/mask2former_video_cc_head.py"
CROPS = "TL datasets/pipelines/transforms.py:243-247, 284-292 (allow_negative_crop)"
MMCV = "mmcv mmcv/runner/optimizer/default_constructor.py"

ALL = "youtube_vis_*_tube_link_* ovis_tube_link_*"
TUBE_LINK = f"{ALL} !*_near_online !*_offline"
MAXTRON = "youtube_vis_*_tube_link_*_near_online youtube_vis_*_tube_link_*_offline " \
          "ovis_tube_link_*_near_online ovis_tube_link_*_offline"
YOUTUBE = "youtube_vis_*_tube_link_*"
R50 = "youtube_vis_*_tube_link_r50* ovis_tube_link_r50*"
SWIN_L = "youtube_vis_*_tube_link_swin_l* ovis_tube_link_swin_l*"

_LONG = Drops(lr=1e-4, steps=15_000, milestones=(5000, 10_000), warmup=500)
_SHORT = Drops(lr=1e-4, steps=10_000, milestones=(2500, 5000), warmup=500)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Frames and clips of one released MaXTron file."""

    recipe: str         # without its suffix
    trained: int        # frames of a near-online training clip
    cross: int          # frames of a clip of the offline run
    clips: int          # of a training window of the offline run
    layers: int


CLIPS = (
    Clips(recipe="youtube_vis_2021_tube_link_r50", trained=5, cross=3, clips=3, layers=4),
    Clips(recipe="youtube_vis_2021_tube_link_swin_l", trained=6, cross=6, clips=4, layers=4),
    Clips(recipe="youtube_vis_2022_tube_link_r50", trained=4, cross=4, clips=4, layers=4),
    Clips(recipe="youtube_vis_2022_tube_link_swin_l", trained=6, cross=6, clips=6, layers=4),
    Clips(recipe="ovis_tube_link_r50", trained=4, cross=4, clips=6, layers=6),
    Clips(recipe="ovis_tube_link_swin_l", trained=4, cross=4, clips=4, layers=4),
)


def _box(short: int, long: int, source: str) -> list[tuple]:
    """A test frame fills a box, which turns with it."""
    return rows("inference.resize", {"short_side": short, "long_side": long, "pad_to": 32, "interpolation": "opencv"},
                f"{source}; {OPENCV}", "D18")


def _schedule(recipes: str, drops: Drops, source: str) -> Table:
    return table(recipes, ("stage_one.rates", drops, source), ("stage_one.fit.steps", drops.steps, source))


TABLES: tuple[Table, ...] = (
    table(ALL, *LOSSES, *NETWORK,
          (f"{SEGMENTER}.query_decoder.positions", "clip", f"{MODEL}:61-62"),
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{MODEL}:25"),
          (f"{SEGMENTER}.linking", None, MODEL),
          (f"{SEGMENTER}.backbone.pretrained", False, f"{MODEL}:16"),
          ("stage_one.linking", None, MODEL),
          ("stage_one.fit.precision", "fp32", f"{ITERATIONS} (no fp16 setting)"),
          ("stage_one.input.batch_size", 16, "TL docs/TRAIN_EVALUATION_MODELS.md:48 (16 GPUs x 1)"),
          ("stage_one.input.reach", 0, f"{YTVIS}:55-60"),
          ("stage_one.input.copy_paste", None, f"{YTVIS}:7-32"),
          ("stage_one.input.sampling", "windows", "TL datasets/datasets/youtube_vis_dataset.py (a sample is a key "
                                                  "frame with a full window)", "D8"),
          ("stage_one.input.samples_per_video", 1, "TL datasets/datasets/youtube_vis_dataset.py", "D8"),
          ("stage_one.input.frame_stride", 1, f"{YTVIS}:55-60"),
          ("stage_one.input.refuse.labelled", None, YTVIS),
          (f"{AUGMENT}.scale", (1.0, 1.0), f"{YTVIS}:14-20"),
          (f"{AUGMENT}.flip", 0.5, f"{YTVIS}:21"),
          (f"{AUGMENT}.reverse", 0.0, YTVIS),
          (f"{AUGMENT}.color", False, f"{YTVIS}:7-32"),
          (f"{AUGMENT}.pad_to", 32, f"{YTVIS}:23", "D14"),
          (f"{AUGMENT}.interpolation", "opencv", OPENCV, "D18"),
          (f"{AUGMENT}.long_side", None, f"{YTVIS}:18"),
          ("inference.results", ("tracks",), f"{MODEL}:133"),
          ("inference.last_clip", "shorten", f"{TEST}:15-45"),
          ("inference.tracks.candidates", 100, f"{MODEL}:135"),
          ("inference.tracks.per_frame", 30, "TL datasets/datasets/youtube_vis_dataset.py:152"),
          ("inference.tracks.scored", "frames", f"{TEST}:284-288"),
          ("inference.association.kind", "hungarian", f"{TEST}:240-257"),
          ("evaluation.split", "valid", f"{YTVIS}:73"),
          ("stage_one.losses.frames", "stacked", "TL models/video/tube_link_vis/mask2former_video_head.py")),
    table(f"{YOUTUBE}",
          (f"{AUGMENT}.size", None, f"{YTVIS}:14-23 (no crop)", "D3"),
          ("stage_one.input.refuse.empty", "first",
           f"{YTVIS}:27 (reject_empty); mmdet mmdet/datasets/coco.py (_filter_imgs)", "D8"),
          (f"{AUGMENT}.short_side", tuple(range(288, 513, 32)), f"{YTVIS}:18")),
    table("ovis_tube_link_*",
          (f"{AUGMENT}.crop", True, f"{OVIS}:40"),
          (f"{AUGMENT}.size", (384, 640), f"{OVIS}:19"),
          (f"{AUGMENT}.short_side", tuple(range(480, 801, 32)), f"{OVIS}:36"),
          (f"{SEGMENTER}.num_classes", 25, f"{BASE}/models/mask2former_tube_r50_ovis.py:1"),
          ("dataset.name", "ovis", f"{OVIS_DATA}:46"),
          ("stage_one.input.refuse.empty", "any", CROPS, "D9")),
    *(table(f"youtube_vis_{year}_tube_link_*", ("dataset.name", f"youtube_vis_{year}",
                                      f"{BASE}/datasets/yvis_{min(int(year), 2021)}.py:46"))
      for year in ("2019", "2021", "2022")),
    table("youtube_vis_*_tube_link_*", (f"{SEGMENTER}.num_classes", 40, f"{MODEL}:1")),
    table(R50,
          ("start weights", "coco_mask2former_instance_r50", "TL configs/video/ytvis21/"
                                                             "ytvis21_r50_tb_link_5k_10k_15k.py:14"),
          (f"{SEGMENTER}.backbone.name", "resnet50", f"{MODEL}:7-9"),
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{MODEL}:7-16"),
          (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-5, "torch nn.BatchNorm2d"),
          (f"{SEGMENTER}.backbone.frozen_statistics", True, f"{MODEL}:13-14"),
          (f"{SEGMENTER}.backbone.output_norms", False, f"{MODEL}:7-16"),
          ("stage_one.parameters", mmdet(trajectory_key=True),
           f"{ITERATIONS}:8-18; MXT configs/video/ytvis21/ytvis21_r50_maxtron_wc.py:139-140; {MMCV}", "D22")),
    table(SWIN_L,
          (f"{SEGMENTER}.backbone.name", "swin_large_patch4_window12_384", "TL configs/video/ytvis21/"
           "ytvis21_swin_l_tb_link_2_5k_5k_10k.py:12-17"),
          (f"{SEGMENTER}.backbone.drop_path", 0.3, "TL configs/video/ytvis21/ytvis21_swin_l_tb_link_2_5k_5k_10k.py:25"),
          (f"{SEGMENTER}.backbone.output_norms", True, "mmdet mmdet/models/backbones/swin.py (out_indices)"),
          ("stage_one.parameters", mmdet(swin_keys=True, slow_embeddings=True), f"{SWIN_ITERATIONS}:2-35; {MMCV}",
           "D22")),
    table(f"{SWIN_L} !*_near_online !*_offline !ovis_* !*_2022_*",
          ("start weights", "coco_mask2former_instance_swin_l", "TL configs/video/ytvis19/"
           "ytvis19_swin_l_tb_link_2_5k_5k_10k.py:38", "D6")),
    table(f"{SWIN_L} !youtube_vis_2019_tube_link_swin_l !youtube_vis_2021_tube_link_swin_l "
          "!youtube_vis_2022_tube_link_swin_l",
          ("start weights", "coco_mask2former_panoptic_swin_l", "MXT configs/video/ytvis21/"
           "ytvis21_swin_l_maxtron_wc.py:141; MXT configs/video/ovis/ovis_swin_l_maxtron_wc.py:172")),
    # Tube-Link's own rows
    table(TUBE_LINK,
          (f"{SEGMENTER}.within_clip", None, MODEL),
          ("stage_two", None, MODEL),
          ("inference.clip_frames", 4, f"{TEST}:63"),
          ("evaluation.mode", "near_online", TEST)),
    table(f"{TUBE_LINK} !ovis_*",
          ("stage_one.input.clip_frames", 5, f"{YTVIS}:56"),
          *_box(480, 854, f"{YTVIS}:36")),
    table("ovis_tube_link_r50 ovis_tube_link_swin_l",
          ("stage_one.input.clip_frames", 4, f"{OVIS}:59"),
          *_box(360, 640, f"{OVIS_DATA}:36")),
    _schedule("youtube_vis_*_tube_link_r50*", _LONG,
              f"TL configs/video/ytvis21/ytvis21_r50_tb_link_5k_10k_15k.py:20-32; {ITERATIONS}:3-29"),
    _schedule("youtube_vis_*_tube_link_swin_l*", _SHORT, "TL configs/video/ytvis21/"
              f"ytvis21_swin_l_tb_link_2_5k_5k_10k.py:43-55; {SWIN_ITERATIONS}"),
    _schedule("ovis_tube_link_r50 ovis_tube_link_swin_l", _SHORT, f"{OVIS}:69-80"),
    # MaXTron
    _schedule("ovis_tube_link_*_near_online ovis_tube_link_*_offline", _LONG, f"{NEAR} (step, max_iters)"),
    table(MAXTRON,
          *_box(360, 640, "MXT configs/video/_base_/datasets/yvis_2021.py:36"),
          *((f"{SEGMENTER}.within_clip.{name}", value, "MXT mmdet/models/plugins/msdeformattn_pixel_decoder.py:"
                                                       "484-486, 736-737")
            for name, value in (("layers", 1), ("ffn", 1024), ("strides", (16, 32)), ("scale", 1e-6), ("dropout", 0.0),
                                ("residual_dropout", 0.1))),
          ("stage_two.rates", Drops(lr=1e-4, steps=10_000, milestones=(2500, 7500), warmup=500),
           f"{CROSS} (step, max_iters)"),
          ("stage_two.fit.steps", 10_000, f"{CROSS} (max_iters)"),
          ("stage_two.fit.precision", "fp32", f"{CROSS} (no fp16 setting)"),
          ("stage_two.fit.accumulate", 1, CROSS),
          ("stage_two.parameters", mmdet(own_norm=aspp_norm, frozen=inside("predictor.norm.")),
           f"{CC_HEAD}:30-38, 365-394; {MMCV}", "D22"),
          ("stage_two.optimizer.betas", (0.9, 0.999), f"{ITERATIONS}:7"),
          ("stage_two.optimizer.clip_norm", 0.01, f"{ITERATIONS}:19"),
          ("stage_two.input.batch_size", 16, "MXT docs/TRAIN_EVALUATION_MODELS.md:13-34 (16 GPUs x 1)"),
          ("stage_two.input.reverse", 0.0, CROSS),
          ("stage_two.input.samples_per_video", 1, CROSS),
          ("stage_two.losses.official_compat", False, CC_HEAD),
          ("stage_two.input.sampling", "windows", "MXT datasets/datasets/youtube_vis_dataset.py (ref_img_sampling: "
                                                  "shorter videos are never drawn)", "D12"),
          ("stage_two.input.test_view", False, f"{YTVIS}:7-32 (every clip is augmented)", "D5"),
          ("stage_two.input.reach", 0, f"{YTVIS}:55-60"),
          ("cache.copy_paste", None, f"{YTVIS}:7-32"),
          ("stage_two.head.attention", "trajectory", CC_HEAD),
          ("stage_two.head.aspp", True, CC_HEAD),
          ("stage_two.head.aspp_rates", (1, 2, 3), CC_HEAD),
          ("stage_two.head.aspp_kernels", (3, 3, 3), CC_HEAD),
          ("stage_two.head.aspp_norm", "ln", f"{CC_HEAD}:30-38"),
          ("stage_two.head.attention_dropout", 0.1, f"{CROSS} (trajectory_drop_out)"),
          ("stage_two.head.aspp_dropout", 0.1, f"{CROSS} (drop_path_prob)"),
          ("stage_two.head.train_copied_norm", False, f"{CC_HEAD}:365-394"),
          ("stage_two.head.start", "official", f"{CC_HEAD} (a norm after each residual)", "D7"),
          ("stage_two.losses.class_weight", 2.0, f"{MODEL}:89-94"),
          ("stage_two.losses.mask_weight", 5.0, f"{MODEL}:95-99"),
          ("stage_two.losses.dice_weight", 5.0, f"{MODEL}:100-106"),
          ("stage_two.losses.no_object_weight", 0.1, f"{MODEL}:94"),
          ("stage_two.losses.costs.class_weight", 2.0, f"{MODEL}:120-126"),
          ("stage_two.losses.costs.mask_weight", 5.0, f"{MODEL}:120-126"),
          ("stage_two.losses.costs.dice_weight", 5.0, f"{MODEL}:120-126"),
          ("stage_two.losses.costs.smoothing", 1.0, f"{MODEL}:120-126"),
          ("stage_two.losses.points.count", 12_544, f"{MODEL}:117-119", "D12"),
          ("stage_two.losses.points.oversample", 3.0, f"{MODEL}:117-119", "D12"),
          ("stage_two.losses.points.importance", 0.75, f"{MODEL}:117-119", "D12"),
          ("cache.views", "a fresh one at every step", "MXT configs/video/_base_/datasets/yvis_2021.py:7-30", "D5"),
          ("cache.evidence.pixels", "every pixel at stride 4", CC_HEAD, "D12")),
    *(table(f"{clips.recipe}_near_online {clips.recipe}_offline",
            ("stage_one.input.clip_frames", clips.trained, f"{NEAR} (train_num_frames)"),
            ("stage_two.head.num_classes", 25 if clips.recipe.startswith("ovis") else 40,
             f"{CROSS} (num_things_classes)"),
            ("stage_two.input.clips", clips.clips, f"{CROSS} (train_num_clips)"),
            ("stage_two.head.layers", clips.layers, f"{CROSS} (num_cc_layers)")) for clips in CLIPS),
    *(table(f"{clips.recipe}_near_online",
            ("cache.window_frames", clips.clips * clips.trained, f"{CROSS} (train_num_clips)", "D5"),
            ("inference.clip_frames", clips.trained, "MXT models/video/tube_link_vis/mask2former_vis_tube.py:97"),
            ("evaluation.mode", "near_online", NEAR)) for clips in CLIPS),
    *(table(f"{clips.recipe}_offline",
            ("cache.window_frames", clips.clips * clips.cross, f"{CROSS} (train_num_clips)", "D5"),
            ("inference.clip_frames", clips.cross, f"{CROSS} (train_num_frames)"),
            ("evaluation.mode", "offline", CROSS)) for clips in CLIPS),
)
