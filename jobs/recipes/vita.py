"""VITA, YouTube-VIS and OVIS: the official settings of the published rows (arXiv 2206.04403, tables 1 to 3, 5 to 7).

Source: sukjunhwang/VITA, configs, which differ from the paper in depths, iterations and one weight. Training has two
steps (appendix A.1): `coco_vita_` trains detector and head together on single images of COCO, and every run on videos
starts both from there, or from a converted checkpoint (`vita_r50_coco.pth`) that `stage_one.start_from` and
`stage_one.joint.start_from` name. The rows of classes start at random. A released VITA (jobs.convert_checkpoint) needs
no training at all. In the main setting detector and head learn together in stage one, and there is no stage two.
`_frozen` keeps the detector as COCO left it and trains the head, which starts from COCO too, from the query cache.
Clips made of COCO's stills, in the classes of the videos, train beside them; make_shards reads data/coco too.
In training only windows crop, and the long side is at most 768 pixels; clips have sizes of their own. As in the code,
half the stills and videos show a window that moves; the paper's windows are `stage_one.input.pseudo_video.of_stills=1`
with `motion=independent`. Stills and videos share a batch, as they do on eight official GPUs of one clip each.
The labels of `valid` are not public: `jobs.evaluate` writes the results.zip that the evaluation servers score.
Price: 8 clips a step on 8 GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from jobs.recipes import coco_mask2former
from jobs.recipes.coco_mask2former import BACKBONES, CACHE, CLUSTER, FROZEN_NORMS, NO_DECAY, RESNETS, TITLES
from jobs.recipes.schema import EvaluationConfig, JointConfig, Recipe, StageOneConfig, StageTwoConfig, StillsConfig
from jobs.recipes.youtube_vis import LOW, VIDEOS
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.association.track_links import PartsConfig
from model.cross_clip.vita import VitaHeadConfig, VitaTestConfig
from model.inference import InferenceConfig, ResizeConfig
from model.losses.binary_masks import MatchingCosts
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.points import PointConfig
from model.losses.vita import VitaLossConfig
from model.postprocess.instances import TrackConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.mask2former import Mask2FormerConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig, DatasetName
from pipeline.query_cache import QueryInputConfig
from pipeline.training_input import InputConfig, PseudoVideoConfig

BATCH = 8
LONG_SIDE = 768                                              # at most, in training
TEST_SIDES = {"r50": 360, "r101": 360, "swin_l": 448}        # short sides; detectron2 caps the long side at 1333
QUERIES = {"r50": 100, "r101": 100, "swin_l": 200}           # of a frame


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What the released files say of one data set, and the published scores."""

    steps: int
    milestones: tuple[int, ...]     # where the rate drops
    clip_frames: int
    reach: int                      # of its frames, around one of them
    videos_per_still: float         # among the clips of training
    candidates: int = 10            # tracks of a video
    scores: dict[str, float]        # AP of each backbone


SCHEDULES: dict[DatasetName, Schedule] = {
    "youtube_vis_2019": Schedule(steps=140_000, milestones=(75_000,), clip_frames=5, reach=20, videos_per_still=0.75,
                                 scores={"r50": 49.8, "r101": 51.9, "swin_l": 63.0}),
    "youtube_vis_2021": Schedule(steps=187_500, milestones=(100_000,), clip_frames=6, reach=8, videos_per_still=0.8,
                                 scores={"r50": 45.7, "swin_l": 57.5}),
    "ovis": Schedule(steps=150_000, milestones=(50_000, 125_000), clip_frames=6, reach=8,
                     videos_per_still=0.25, candidates=20, scores={"r50": 19.6, "swin_l": 27.7}),
}
FROZEN = {"r50": 40.9, "r101": 43.2, "swin_l": 53.4}         # AP on YouTube-VIS 2019, table 7
WINDOWS = {3: 49.4, 12: 50.0, 0: 50.1}                       # AP on YouTube-VIS 2019 with R50, table 3; 0: all frames
PARTS: dict[tuple[int, Literal["greedy", "hungarian"]], float] = {      # AP on OVIS with R50, table 5, by frames
    (36, "greedy"): 18.8, (36, "hungarian"): 18.4, (48, "greedy"): 18.8, (48, "hungarian"): 19.1}
KEPT = {0.75: 49.7, 0.5: 48.9, 0.25: 48.1}                   # the same, of the shares of frame queries, table 6


def coco(backbone: str) -> Recipe:
    """Pre-training on single images of COCO, detector and head together. No score is published.

    Images, schedule, rates and queries (200 with Swin-L) are those of Mask2Former (`coco_mask2former.py`). Scored
    offline, an image is a video of one frame. Images are scaled as detectron2 does, against aliasing.
    """
    base = coco_mask2former.mask2former("instance", backbone)
    one = base.stage_one
    segmenter = Mask2FormerConfig(num_classes=one.segmenter.num_classes, backbone=one.segmenter.backbone,
                                  query_decoder=one.segmenter.query_decoder)  # type: ignore[arg-type]
    head = VitaHeadConfig(num_classes=segmenter.num_classes, frame_queries=QUERIES[backbone])
    return replace(
        base, name=f"coco_vita_{backbone}",
        about=f"COCO val, VITA's pre-training, {TITLES[backbone]}, instance labels; no published score",
        stage_one=replace(one, segmenter=segmenter, joint=JointConfig(head=head),
                          input=replace(one.input, augment=replace(one.input.augment, interpolation="halving")),
                          fit=replace(one.fit, precision="fp16")),
        inference=replace(base.inference, precision="fp16", tracks=TrackConfig(candidates=100, scored="video"),
                          resize=replace(base.inference.resize, interpolation="pillow")),
        evaluation=EvaluationConfig(mode="offline"), cluster=replace(CLUSTER, workers=8, actors=8))


def vita(data: DatasetName, backbone: str) -> Recipe:
    """VITA, detector and head trained together. Expect 49.8 AP on YouTube-VIS 2019 with R50."""
    schedule = SCHEDULES[data]
    videos = VIDEOS[data]
    optimizer = OptimizerConfig(lr=5e-5, weight_decay=0.05, warmup_steps=10, warmup_factor=1.0, schedule="steps",
                                milestones=schedule.milestones, clip_norm=0.01, multipliers=(("backbone.", 0.1),),
                                no_decay=NO_DECAY, frozen=FROZEN_NORMS if backbone in RESNETS else ())
    return Recipe(
        name=f"{data}_vita_{backbone}", about=_about(data, backbone, "VITA", schedule.scores[backbone]),
        dataset=DatasetConfig(name=data, root=videos.root),
        stage_one=StageOneConfig(
            segmenter=Mask2FormerConfig(
                num_classes=videos.classes, backbone=BACKBONES[backbone],
                query_decoder=Mask2FormerDecoderConfig(num_queries=QUERIES[backbone], positions="frame")),
            losses=Mask2FormerLossConfig(),
            joint=JointConfig(head=VitaHeadConfig(num_classes=videos.classes, frame_queries=QUERIES[backbone]),
                              start_from=f"runs/coco_vita_{backbone}/stage_two/model"),
            start_from=f"runs/coco_vita_{backbone}/stage_one/model",
            stills=StillsConfig(dataset=DatasetConfig(name="coco_instance", root="data/coco", classes=data),
                                share=1 / (1 + schedule.videos_per_still)),
            input=InputConfig(
                clip_frames=schedule.clip_frames, reach=schedule.reach, batch_size=BATCH, copy_paste=None,
                pseudo_video=PseudoVideoConfig(of_stills=0.5, of_videos=0.5, motion="straight"),
                augment=AugmentConfig(
                    size=None, short_side=LOW, long_side=LONG_SIDE, scale=(1.0, 1.0), pad_to=32, reverse=0.0,
                    color=False)),
            optimizer=optimizer, fit=FitConfig(steps=schedule.steps, precision="fp16")),
        inference=InferenceConfig(results=("tracks",), precision="fp16",
                                  resize=ResizeConfig(short_side=TEST_SIDES[backbone], long_side=1333),
                                  tracks=TrackConfig(candidates=schedule.candidates, scored="video")),
        evaluation=EvaluationConfig(mode="offline", split="valid"), cluster=replace(CLUSTER, workers=8, actors=8))


def frozen(data: DatasetName, backbone: str) -> Recipe:
    """The detector stays as COCO left it. Expect 40.9 AP on YouTube-VIS 2019 with R50.

    Its class rows are those of the videos and random, as in the released code, so masks alone match frame queries.
    The released run also trains on stills and on moving windows of videos, and its head reads the last three layers of
    the detector; the cache holds whole frames of videos and the last layer. (Two more would make it a third larger, and
    a training step three times as long.)
    """
    base = vita(data, backbone)
    one = base.stage_one
    return replace(
        base, name=f"{base.name}_frozen", about=_about(data, backbone, "VITA on a frozen detector", FROZEN[backbone]),
        stage_one=replace(one, joint=None, train=False, stills=None, input=replace(one.input, clip_frames=1)),
        cache=CACHE,
        stage_two=StageTwoConfig(
            head=one.joint.head, start_from=one.joint.start_from,
            losses=VitaLossConfig(frame_costs=MatchingCosts(class_weight=0.0), points=PointConfig()),
            input=QueryInputConfig(clips=one.input.clip_frames, reach=one.input.reach, batch_size=BATCH, reverse=0.0,
                                   test_view=False),
            optimizer=replace(one.optimizer, multipliers=(), frozen=()), fit=one.fit))


def window(frames: int) -> Recipe:
    """Other windows of the object encoder at test time, 0: all frames, in the run's folder. Expect 50.1 with all."""
    base = vita("youtube_vis_2019", "r50")
    length = f"{frames} frames" if frames else "all frames"
    return replace(base, name=f"{base.name}_window_{frames or 'all'}", folder=f"runs/{base.name}",
                   inference=replace(base.inference, head=VitaTestConfig(window=frames)),
                   about=_about("youtube_vis_2019", "r50", f"VITA with windows of {length}", WINDOWS[frames]))


def pruned(share: float) -> Recipe:
    """Fewer frame queries are read at test time, in the run's folder. Expect 48.9 AP with half of them."""
    base = vita("youtube_vis_2019", "r50")
    return replace(base, name=f"{base.name}_keep_{share:.2f}".replace(".", "_"), folder=f"runs/{base.name}",
                   inference=replace(base.inference, head=VitaTestConfig(keep=share)),
                   about=_about("youtube_vis_2019", "r50", f"VITA that reads {share:g} of the frame queries",
                                KEPT[share]))


def in_parts(frames: int, pairs: Literal["greedy", "hungarian"]) -> Recipe:
    """OVIS in parts of so many frames, linked by the IoU of masks, in the run's folder. Expect 18.4 to 19.1 AP.

    Neighbouring parts share a frame; the paper says nothing about it.
    """
    base = vita("ovis", "r50")
    return replace(base, name=f"{base.name}_parts_{frames}_{pairs}", folder=f"runs/{base.name}",
                   inference=replace(base.inference, parts=PartsConfig(clips=frames, pairs=pairs)),
                   about=_about("ovis", "r50", f"VITA in parts of {frames} frames, {pairs} links",
                                PARTS[frames, pairs]))


def _about(data: DatasetName, backbone: str, system: str, score: float) -> str:
    return f"{VIDEOS[data].title} valid, {system}, {TITLES[backbone]}; expect {score} AP offline"


RECIPES: dict[str, Callable[[], Recipe]] = {
    **{f"coco_vita_{backbone}": partial(coco, backbone) for backbone in QUERIES},
    **{f"{data}_vita_{backbone}": partial(vita, data, backbone)
       for data, schedule in SCHEDULES.items() for backbone in schedule.scores},
    **{f"youtube_vis_2019_vita_{backbone}_frozen": partial(frozen, "youtube_vis_2019", backbone)
       for backbone in FROZEN},
    **{f"youtube_vis_2019_vita_r50_window_{frames or 'all'}": partial(window, frames) for frames in WINDOWS},
    **{f"ovis_vita_r50_parts_{frames}_{pairs}": partial(in_parts, frames, pairs) for frames, pairs in PARTS},
    **{f"youtube_vis_2019_vita_r50_keep_{share:.2f}".replace(".", "_"): partial(pruned, share) for share in KEPT},
}
