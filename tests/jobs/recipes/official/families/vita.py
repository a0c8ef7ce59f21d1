"""VITA on YouTube-VIS and OVIS: VI, configs/youtubevis_2019, youtubevis_2021 and ovis."""

from __future__ import annotations

from tests.jobs.recipes.official.facts import Table, rows, table
from tests.jobs.recipes.official.families.coco_mask2former import AUGMENT, SEGMENTER
from tests.jobs.recipes.official.parameters import resnet_norms, vita
from tests.jobs.recipes.official.schedules import Drops

R50 = "VI configs/youtubevis_2019/vita_R50_bs8.yaml"
SWIN = "VI configs/youtubevis_2019/vita_SWIN_bs8.yaml"
BASE = "VI configs/youtubevis_2019/Base-YouTubeVIS-VideoInstanceSegmentation.yaml"
COCO_R50 = "VI configs/coco/vita_r50"
COCO_BASE = "M2F configs/coco/instance-segmentation/Base-COCO-InstanceSegmentation.yaml"
MAPPER = "VI vita/data/dataset_mapper.py"
WINDOW = "VI vita/data/augmentation.py"
CRITERION = "VI vita/modeling/vita_criterion.py"
MODEL = "VI vita/vita_model.py"
OPTIMIZER = "VI train_net_vita.py:134-181"

# The rows of tables 1, 2 and 7; the other rows are variants at test time.
JOINT = "youtube_vis_*_vita_r50 youtube_vis_*_vita_swin_l ovis_vita_r50 ovis_vita_swin_l"
FROZEN = "youtube_vis_2019_vita_*_frozen"
COCO = "coco_vita_*"
ALL = f"{JOINT} {FROZEN} {COCO}"
LOW = tuple(range(288, 513, 32))

# Mask2Former's losses of single frames, and the head's over the clip, have the same settings.
_LOSSES = (("class_weight", 2.0, f"{R50}:25"), ("mask_weight", 5.0, f"{R50}:26"), ("dice_weight", 5.0, f"{R50}:27"),
           ("no_object_weight", 0.1, f"{R50}:24"), ("costs.class_weight", 2.0, f"{R50}:25"),
           ("costs.mask_weight", 5.0, f"{R50}:26"), ("costs.dice_weight", 5.0, f"{R50}:27"),
           ("costs.smoothing", 1.0, "M2F mask2former/modeling/matcher.py"),
           ("official_compat", True, "M2F mask2former/modeling/criterion.py (num_masks); VI vita/modeling/"
                                     "vita_criterion.py"))
# The assignment of a frame's queries, by which the similarity loss knows what they show.
_FRAME_COSTS = (("frame_costs.class_weight", 2.0, f"{R50}:25; VI vita/vita_model.py (fg_indices)"),
                ("frame_costs.mask_weight", 5.0, f"{R50}:26"), ("frame_costs.dice_weight", 5.0, f"{R50}:27"),
                ("frame_costs.smoothing", 1.0, "M2F mask2former/modeling/matcher.py"))
_POINTS = (("points.count", 12_544, f"{R50}:38"), ("points.oversample", 3.0, f"{R50}:39"),
           ("points.importance", 0.75, f"{R50}:40"))
_HEAD = (("encoder_layers", 6, "VI vita/config.py:37-42"), ("decoder_layers", 3, "VI vita/config.py:37-42"),
         ("window", 6, f"{R50}:48"), ("num_queries", 100, "VI vita/config.py:37-42"),
         ("shift_in_training", False, "VI vita/modeling/transformer_decoder/vita.py"), ("keep", 1.0, MODEL),
         ("similarity", "all", CRITERION), ("ffn", 2048, f"{R50}:32"), ("dim", 256, f"{R50}:28"))


def _run(data: str, *, drops: Drops, frames: int, reach: int, videos_per_still: float, candidates: int, classes: int,
         file: str) -> tuple[Table, ...]:
    """What differs between the three data sets."""
    rows = f"{data}_vita_r50 {data}_vita_swin_l"
    return (
        table(f"{rows} {data}_vita_*_frozen",
              ("dataset.name", data, f"{file}:52-53"),
              (f"{SEGMENTER}.num_classes", classes, f"{file}:9"),
              ("inference.tracks.candidates", candidates, f"{MODEL}:396-441; {file} (DETECTIONS_PER_IMAGE)")),
        table(rows,
              ("stage_one.rates", drops, f"{file}:55-68"),
              ("stage_one.fit.steps", drops.steps, f"{file}:58"),
              ("stage_one.input.clip_frames", frames, f"{file}:70"),
              ("stage_one.input.reach", reach, f"{file}:71; {MAPPER}:236-250"),
              ("stage_one.joint.head.num_classes", classes, f"{file}:9"),
              ("stage_one.stills.share", 1 / (1 + videos_per_still), f"{file}:51")))

_YTVIS_2019 = Drops(lr=5e-5, steps=140_000, milestones=(75_000,), warmup=10, factor=1.0)

TABLES: tuple[Table, ...] = (
    table(ALL,
          ("stage_one.linking", None, R50),
          ("inference.head", None, MODEL),
          ("inference.parts", None, MODEL),
          (f"{SEGMENTER}.query_decoder.positions", "frame", f"{R50}:21"),
          (f"{SEGMENTER}.query_decoder.layers", 9, f"{R50}:37"),
          (f"{SEGMENTER}.pixel_decoder.layers", 6, f"{R50}:19"),
          (f"{SEGMENTER}.pixel_decoder.dropout", 0.0, f"{R50}:31"),
          (f"{SEGMENTER}.pixel_mean", (123.675, 116.28, 103.53), f"{BASE}:6"),
          (f"{SEGMENTER}.pixel_std", (58.395, 57.12, 57.375), f"{BASE}:7"),
          ("inference.results", ("tracks",), f"{R50}:43"),
          ("inference.tracks.scored", "video", f"{MODEL}:396-441"),
          *rows("inference.resize", {"long_side": 1333, "pad_to": 32, "interpolation": "pillow"},
                "D2 detectron2/config/defaults.py (MAX_SIZE_TEST); VI vita/vita_model.py (size_divisibility)", "D18"),
          ("inference.precision", "fp16", "VI train_net_vita.py (autocast in test)", "D19"),
          ("evaluation.mode", "offline", MODEL)),
    table(f"{JOINT} {FROZEN}",
          ("evaluation.split", "valid", f"{R50}:53")),
    table(f"{JOINT} {COCO}",
          *((f"stage_one.losses.{name}", value, source) for name, value, source in (*_LOSSES, *_POINTS)),
          *((f"stage_one.joint.losses.{name}", value, source) for name, value, source in (*_LOSSES,
                                                                                                  *_FRAME_COSTS)),
          ("stage_one.joint.losses.similarity_weight", 0.5, f"{R50}:49"),
          *((f"stage_one.joint.head.{name}", value, source) for name, value, source in _HEAD),
          ("stage_one.joint.layers", 3, "VI vita/config.py:47; VI vita/vita_model.py:120-193"),
          ("stage_one.optimizer.betas", (0.9, 0.999), "torch optim.AdamW; VI train_net_vita.py"),
          ("stage_one.optimizer.clip_norm", 0.01, f"{R50}:64-67"),
          ("stage_one.fit.precision", "fp16", f"{BASE}:35-36; {COCO_BASE}:35", "D19"),
          ("stage_one.fit.accumulate", 1, R50),
          ("stage_one.train", True, R50),
          ("stage_two", None, "VI train_net_vita.py"),
          ("stage_one.input.samples_per_video", 1, MAPPER),
          ("stage_one.input.copy_paste", None, f"{R50}:77"),
          ("stage_one.input.official_compat", False, MAPPER),
          ("stage_one.input.sampling", "videos", MAPPER),
          ("stage_one.input.drop_empty", True, f"{R50}:101 (FILTER_EMPTY_ANNOTATIONS); {COCO_BASE}:45"),
          ("stage_one.input.frame_stride", 1, f"{MAPPER}:236-250"),
          ("stage_one.input.refuse", None, MAPPER),
          ("stage_one.input.jitter_stills", False, f"{WINDOW}:219-246"),
          (f"{AUGMENT}.flip", 0.5, f"{R50}:76"),
          (f"{AUGMENT}.reverse", 0.0, f"{R50}:72"),
          (f"{AUGMENT}.color", False, f"{R50}:77"),
          (f"{AUGMENT}.color_per_frame", False, f"{R50}:77 (no colours)"),
          (f"{AUGMENT}.interpolation", "pillow", "D2 detectron2/data/transforms/transform.py (ResizeTransform)")),
    table(COCO,
          ("dataset.name", "coco_instance", f"{COCO_BASE}:17-18"),
          (f"{SEGMENTER}.num_classes", 80, COCO_R50),
          ("start weights", "ImageNet", f"{COCO_BASE}:5"),
          ("start weights of the head", "", COCO_R50),
          ("stage_one.joint.head.num_classes", 80, COCO_R50),
          ("stage_one.input.clip_frames", 1, f"{COCO_R50} (T = 1); arXiv 2206.04403 appendix A.1"),
          ("stage_one.input.reach", 0, COCO_R50),
          ("stage_one.input.batch_size", 16, f"{COCO_BASE}:20"),
          ("stage_one.input.pseudo_video", None, COCO_R50),
          ("stage_one.stills", None, COCO_R50),
          (f"{AUGMENT}.size", (1024, 1024), f"{COCO_BASE}:37"),
          (f"{AUGMENT}.short_side", (), f"{COCO_BASE}:37"),
          (f"{AUGMENT}.scale", (0.1, 2.0), f"{COCO_BASE}:38-39"),
          (f"{AUGMENT}.crop", True, f"{COCO_BASE}:41 (coco_instance_lsj)"),
          (f"{AUGMENT}.pad_to", None, f"{COCO_BASE}:41 (coco_instance_lsj)"),
          (f"{AUGMENT}.long_side", None, f"{COCO_BASE}:37"),
          ("inference.resize.short_side", 800, "D2 detectron2/config/defaults.py (MIN_SIZE_TEST)"),
          ("inference.tracks.candidates", 100, "D2 detectron2/config/defaults.py (DETECTIONS_PER_IMAGE)")),
    *(table(f"coco_vita_{backbone}", ("stage_one.rates", drops, source), ("stage_one.fit.steps", drops.steps, source),
            (f"{SEGMENTER}.backbone.name", network, source))
      for backbone, network, drops, source in (
          ("r50", "resnet50.tv_in1k", Drops(lr=1e-4, steps=368_750, milestones=(327_778, 355_092), warmup=10,
                                            factor=1.0), f"{COCO_R50}; {COCO_BASE}:21-26"),
          ("swin_l", "swin_large_patch4_window12_384.ms_in22k",
           Drops(lr=1e-4, steps=737_500, milestones=(655_556, 710_184), warmup=10, factor=1.0),
           "VI configs/coco/vita_swin_large (100 epochs)"))),
    table(JOINT,
          ("stage_one.input.batch_size", 8, f"{R50}:55"),
          (f"{AUGMENT}.short_side", LOW, f"{R50}:78"),
          (f"{AUGMENT}.long_side", 768, f"{R50}:79", "D3"),
          (f"{AUGMENT}.size", None, f"{WINDOW}:472-480 (only the window crops)", "D3"),
          (f"{AUGMENT}.pad_to", 32, f"{R50}:36", "D14"),
          (f"{AUGMENT}.scale", (1.0, 1.0), f"{R50}:78"),
          ("stage_one.stills.dataset.name", "coco_instance", f"{R50}:52"),
          ("stage_one.input.pseudo_video.short_side", (400, 500, 600), f"{WINDOW}:580"),
          ("stage_one.input.pseudo_video.crop", (384, 600), f"{R50}:82-85"),
          ("stage_one.input.pseudo_video.angle", 15.0, f"{WINDOW}:84-85, 558-563"),
          ("stage_one.input.pseudo_video.of_videos", 0.5, f"{WINDOW}:472-480"),
          ("stage_one.input.pseudo_video.of_stills", 0.5, f"{WINDOW}:31, 580", "D11"),
          ("stage_one.input.pseudo_video.motion", "straight", f"{WINDOW}:219-246, 472-480", "D11")),
    table("*_vita_r50 youtube_vis_2019_vita_r50_frozen",
          (f"{SEGMENTER}.backbone.drop_path", 0.0, f"{BASE}:2-16"),
          (f"{SEGMENTER}.backbone.batch_norm.eps", 1e-5, "D2 detectron2/layers/batch_norm.py (FrozenBatchNorm2d)"),
          (f"{SEGMENTER}.backbone.frozen_statistics", True, "D2 detectron2/config/defaults.py (RESNETS.NORM FrozenBN)"),
          (f"{SEGMENTER}.backbone.output_norms", False, f"{BASE}:2-16"),
          (f"{SEGMENTER}.query_decoder.num_queries", 100, f"{R50}:29")),
    table("*_vita_r50 youtube_vis_2019_vita_r50_frozen !coco_*",
          (f"{SEGMENTER}.backbone.name", "resnet50", f"{BASE}:2-16"),
          (f"{SEGMENTER}.backbone.pretrained", False, f"{R50}:3"),
          ("start weights", "coco_vita_r50", f"{R50}:3; VI README.md (COCO pretrained weights)", "D1"),
          ("start weights of the head", "coco_vita_r50", f"{R50}:3; VI README.md (COCO pretrained weights)", "D1"),
          ("inference.resize.short_side", 360, f"{R50}:80", "D18")),
    table("*_vita_swin_l youtube_vis_2019_vita_swin_l_frozen",
          (f"{SEGMENTER}.backbone.drop_path", 0.3, f"{SWIN}:12"),
          (f"{SEGMENTER}.backbone.output_norms", True, "M2F mask2former/modeling/backbone/swin.py"),
          (f"{SEGMENTER}.query_decoder.num_queries", 200, f"{SWIN}:42")),
    table("*_vita_swin_l youtube_vis_2019_vita_swin_l_frozen !coco_*",
          (f"{SEGMENTER}.backbone.name", "swin_large_patch4_window12_384", f"{SWIN}:6-14"),
          (f"{SEGMENTER}.backbone.pretrained", False, f"{SWIN}:3"),
          ("start weights", "coco_vita_swin_l", f"{SWIN}:3; VI README.md (COCO pretrained weights)", "D1"),
          ("start weights of the head", "coco_vita_swin_l", f"{SWIN}:3; VI README.md (COCO pretrained weights)", "D1"),
          ("inference.resize.short_side", 448, f"{SWIN}:93", "D18")),
    table("*_vita_r50", ("frozen parts", "no gradients, in evaluation mode", "D2 detectron2/layers/batch_norm.py "
                         "(FrozenBatchNorm2d has no parameters)", "D24"),
          ("stage_one.parameters", vita(frozen=resnet_norms), OPTIMIZER),
          ("stage_one.joint.head.frame_queries", 100, f"{R50}:29")),
    table("*_vita_swin_l", ("stage_one.parameters", vita(), OPTIMIZER),
          ("stage_one.joint.head.frame_queries", 200, f"{SWIN}:42")),
    table(FROZEN,
          ("stage_two.rates", _YTVIS_2019, f"{R50}:55-68"),
          ("stage_two.fit.steps", 140_000, f"{R50}:58"),
          ("stage_two.head.num_classes", 40, f"{R50}:9"),
          ("stage_two.input.clips", 5, f"{R50}:70"),
          ("stage_one.train", False, "VI vita/config.py (FREEZE_DETECTOR)"),
          ("stage_one.joint", None, "VI vita/config.py (FREEZE_DETECTOR)"),
          ("stills in stage two", 0.75, f"{R50}:51", "D5"),
          ("cache.views", "a fresh one at every step", MAPPER, "D5"),
          *((f"stage_two.losses.{name}", value, source, "D12") for name, value, source in _POINTS),
          ("cache.evidence.pixels", "every pixel at stride 4", f"{MODEL}:257-299", "D12"),
          ("stage_two.input.reach", 20, f"{R50}:71", "D5"),
          ("stage_two.input.test_view", False, f"{MAPPER} (every clip is augmented)", "D5"),
          ("stage_two.input.sampling", "videos", MAPPER),
          ("cache.window_frames", 0, f"{MAPPER}:236-250"),
          ("cache.copy_paste", None, f"{R50}:77"),
          ("detector layers in stage two", 3, "VI vita/config.py:47", "D5"),
          *((f"stage_two.losses.{name}", value, source) for name, value, source in (*_LOSSES, *_FRAME_COSTS)),
          ("stage_two.losses.similarity_weight", 0.5, f"{R50}:49"),
          *((f"stage_two.head.{name}", value, source) for name, value, source in _HEAD),
          ("stage_two.parameters", vita(), OPTIMIZER),
          ("stage_two.optimizer.betas", (0.9, 0.999), "torch optim.AdamW; VI train_net_vita.py"),
          ("stage_two.optimizer.clip_norm", 0.01, f"{R50}:64-67"),
          ("stage_two.fit.precision", "fp16", f"{BASE}:35-36", "D19"),
          ("stage_two.fit.accumulate", 1, R50),
          ("stage_two.input.batch_size", 8, f"{R50}:55"),
          ("stage_two.input.samples_per_video", 1, MAPPER),
          ("stage_two.input.reverse", 0.0, f"{R50}:72")),
    table("youtube_vis_2019_vita_r50_frozen", ("stage_two.head.frame_queries", 100, f"{R50}:29")),
    table("youtube_vis_2019_vita_swin_l_frozen", ("stage_two.head.frame_queries", 200, f"{SWIN}:42")),
    *_run("youtube_vis_2019", drops=_YTVIS_2019,
          frames=5, reach=20, videos_per_still=0.75, candidates=10, classes=40, file=R50),
    *_run("youtube_vis_2021", drops=Drops(lr=5e-5, steps=187_500, milestones=(100_000,), warmup=10, factor=1.0),
          frames=6, reach=8, videos_per_still=0.8, candidates=10, classes=40,
          file="VI configs/youtubevis_2021/vita_R50_bs8.yaml"),
    *_run("ovis", drops=Drops(lr=5e-5, steps=150_000, milestones=(50_000, 125_000), warmup=10, factor=1.0),
          frames=6, reach=8, videos_per_still=0.25, candidates=20, classes=25,
          file="VI configs/ovis/vita_R50_bs8.yaml"),
)
