"""Tube-Link and MaXTron on it, YouTube-VIS and OVIS: the official settings of every published row.

Sources: lxtGH/Tube-Link, configs/video (arXiv 2303.12782, tables 4, 14 and 15) and TACJu/MaXTron, its half on Tube-Link
(arXiv 2311.18537 v1, table 2). A run starts from a COCO run (`coco_mask2former.py`), or from a converted checkpoint
that `stage_one.start_from` names: an instance model, but with Swin-L a panoptic one for MaXTron, and for Tube-Link on
OVIS, which MaXTron's authors reproduced. Swin-L's 200 queries of COCO do not fit and 100 random ones learn instead, as
in the released code. The offline rows go on where the near-online rows end and share their folder.
The labels of `valid` are not public: `jobs.evaluate` writes the results.zip that the evaluation servers score.
On YouTube-VIS training never crops: clips have sizes of their own, as where each GPU takes one. OVIS crops to 384x640.
Whole frames are tested in a box of 854x480 (Tube-Link on YouTube-VIS) or 640x360, which turns with upright videos.
Price: 16 clips a step on 16 GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobs.recipes.coco_mask2former import BACKBONES, BATCH, CACHE, CLUSTER, TITLES, optimizer, schedule_decay
from jobs.recipes.schema import EvaluationConfig, PredictConfig, Recipe, StageOneConfig, StageTwoConfig
from jobs.training.loop import FitConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.inference import InferenceConfig, ResizeConfig
from model.losses.cross_clip import MaskCrossClipLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.points import PointConfig
from model.pixel_decoders.mask2former import DeformableTrajectoryConfig
from model.segmenters.tube_link import TubeLinkConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig, DatasetName
from pipeline.query_cache import QueryInputConfig
from pipeline.training_input import InputConfig, RefusalConfig

# Test sizes: the frame fills a box, by OpenCV without anti-aliasing.
SMALL = ResizeConfig(short_side=360, long_side=640, interpolation="opencv")
LARGE = ResizeConfig(short_side=480, long_side=854, interpolation="opencv")
LOW = tuple(range(288, 513, 32))            # short sides in training
HIGH = tuple(range(480, 801, 32))
TEST_FRAMES = 4                             # of Tube-Link's clips, however many it is trained on

INSTANCE = "coco_mask2former_instance"      # COCO runs, without the backbone
PANOPTIC = "coco_mask2former_panoptic"

# Steps, and where the rate drops.
LONG = (15_000, (5000, 10_000))
SHORT = (10_000, (2500, 5000))

# Swin's schedule slows the learned embeddings of queries and levels down with the backbone.
SLOW_EMBEDDINGS = tuple((name, 0.1) for name in ("initial_queries", "query_positions", "query_decoder.level_embedding"))

# Decay of norms. MaXTron's files for R50 give the trajectory layers a key of their own, which hides the rule for
# their norms. The norm inside temporal ASPP is of a class that mmcv does not count among the norms.
TRAJECTORIES_DECAY = (("pixel_decoder.trajectories.", True),)
HEAD_DECAY = ((".aspp.join.norm", True),)


@dataclass(frozen=True, kw_only=True)
class Videos:
    """What is the same for all models on a data set."""

    title: str
    root: str
    classes: int
    resize: ResizeConfig = LARGE    # at test time, of Tube-Link; MaXTron's is SMALL everywhere
    crop: tuple[int, int] | None = None         # in training
    short_side: tuple[int, ...] = LOW
    clip_frames: int                # Tube-Link is trained on
    score: str = "AP"


VIDEOS: dict[DatasetName, Videos] = {
    "youtube_vis_2019": Videos(title="YouTube-VIS 2019", root="data/ytvis_2019", classes=40, clip_frames=5),
    "youtube_vis_2021": Videos(title="YouTube-VIS 2021", root="data/ytvis_2021", classes=40, clip_frames=5),
    "youtube_vis_2022": Videos(title="YouTube-VIS 2022", root="data/ytvis_2022", classes=40, clip_frames=5,
                               score="AP of the long videos"),
    "ovis": Videos(title="OVIS", root="data/ovis", classes=25, resize=SMALL, crop=(384, 640), short_side=HIGH,
                   clip_frames=4),
}


@dataclass(frozen=True, kw_only=True)
class MaXTron:
    """What the released files say of MaXTron on one data set with one backbone."""

    clip_frames: int                        # of stage one
    clips: int                              # of a training window of stage two
    offline_frames: int | None = None       # of each of those clips; None: as stage one
    layers: int = 4                         # of the cross-clip head
    start: str = INSTANCE                   # the COCO run
    scores: tuple[float, float]             # near-online, offline


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set with one backbone."""

    score: float                            # Tube-Link's own
    start: str = INSTANCE                   # Tube-Link's COCO run
    note: str = ""
    maxtron: MaXTron | None = None          # None: not published


# The released offline file of YouTube-VIS 2021 with R50 reads clips of three frames, and starts from a near-online run
# on three frames that is not released; here it goes on from the released one, on five.
ROWS: dict[tuple[DatasetName, str], Row] = {
    ("youtube_vis_2019", "r50"): Row(score=52.8),
    ("youtube_vis_2019", "swin_l"): Row(score=64.6),
    ("youtube_vis_2021", "r50"): Row(score=47.9, note=", reproduced 47.8", maxtron=MaXTron(
        clip_frames=5, clips=3, offline_frames=3, scores=(48.4, 48.5))),
    ("youtube_vis_2021", "swin_l"): Row(score=58.4, note=", reproduced 58.2", maxtron=MaXTron(
        clip_frames=6, clips=4, start=PANOPTIC, scores=(58.8, 59.1))),
    ("youtube_vis_2022", "r50"): Row(score=31.1, note=", reproduced 32.1", maxtron=MaXTron(
        clip_frames=4, clips=4, scores=(36.5, 37.0))),
    ("youtube_vis_2022", "swin_l"): Row(score=34.2, maxtron=MaXTron(
        clip_frames=6, clips=6, start=PANOPTIC, scores=(35.9, 38.9))),
    ("ovis", "r50"): Row(score=29.5, note=", reproduced 25.4, released weights 26.7", maxtron=MaXTron(
        clip_frames=4, clips=6, layers=6, scores=(27.6, 28.3))),
    ("ovis", "swin_l"): Row(score=33.3, start=PANOPTIC, note=" as reproduced for MaXTron", maxtron=MaXTron(
        clip_frames=4, clips=4, start=PANOPTIC, scores=(39.1, 39.8))),
}


def stage_two(num_classes: int, *, layers: int, clips: int) -> StageTwoConfig:
    """MaXTron's cross-clip head on Tube-Link. layers: of the head; clips: of a training window.

    The released code draws 12,544 points anew for each mask and layer. They are spread over the stored pixels here as
    they fall on average, so what is missing is the chance of the draw and the pixels that are not stored.
    """
    return StageTwoConfig(
        head=TubeLinkHeadConfig(num_classes=num_classes, layers=layers, start="official"),
        losses=MaskCrossClipLossConfig(points=PointConfig()),
        input=QueryInputConfig(clips=clips, batch_size=BATCH, reverse=0.0, sampling="windows", test_view=False),
        optimizer=replace(optimizer(2500, 7500, decay=HEAD_DECAY), multipliers=()), fit=FitConfig(steps=10_000))


def tube_link(data: DatasetName, backbone: str) -> Recipe:
    """Tube-Link. Expect 47.9 AP on YouTube-VIS 2021 with R50. Starts from a COCO run of the same backbone."""
    videos = VIDEOS[data]
    row = ROWS[data, backbone]
    steps, milestones = LONG if backbone == "r50" and data != "ovis" else SHORT
    return Recipe(
        name=f"{data}_tube_link_{backbone}", about=_about("Tube-Link", data, backbone, row.score, "near-online"),
        dataset=DatasetConfig(name=data, root=videos.root),
        stage_one=StageOneConfig(
            segmenter=TubeLinkConfig(num_classes=videos.classes, backbone=BACKBONES[backbone]),
            losses=Mask2FormerLossConfig(), start_from=f"runs/{row.start}_{backbone}/stage_one/model",
            input=InputConfig(clip_frames=videos.clip_frames, sampling="windows", batch_size=BATCH, copy_paste=None,
                              refuse=RefusalConfig(empty="any" if data == "ovis" else "first"),
                              augment=AugmentConfig(size=videos.crop, short_side=videos.short_side, scale=(1.0, 1.0),
                                                    pad_to=32, reverse=0.0, color=False, interpolation="opencv")),
            optimizer=optimizer(*milestones, first=() if backbone == "r50" else SLOW_EMBEDDINGS,
                                decay=schedule_decay(backbone)),
            fit=FitConfig(steps=steps)),
        inference=InferenceConfig(results=("tracks",), clip_frames=TEST_FRAMES, last_clip="shorten",
                                  resize=videos.resize),
        evaluation=EvaluationConfig(split="valid"), cluster=CLUSTER)


def near_online(data: DatasetName, backbone: str) -> Recipe:
    """MaXTron's within-clip tracking inside. Expect 48.4 AP on YouTube-VIS 2021 with R50.

    Clips at test time are as long as in training. The released weights were trained without the residual dropout that
    the released files ask for, if their names are right.
    """
    videos = VIDEOS[data]
    row = ROWS[data, backbone].maxtron
    base = tube_link(data, backbone)
    one = base.stage_one
    steps, milestones = LONG if data == "ovis" else (one.fit.steps, one.optimizer.milestones)
    decay = (*(TRAJECTORIES_DECAY if backbone == "r50" else ()), *one.optimizer.decay)
    return replace(
        base, name=f"{base.name}_near_online", about=_about("MaXTron", data, backbone, row.scores[0], "near-online"),
        stage_one=replace(
            one, segmenter=replace(one.segmenter, within_clip=DeformableTrajectoryConfig()),  # type: ignore[arg-type]
            start_from=f"runs/{row.start}_{backbone}/stage_one/model",
            input=replace(one.input, clip_frames=row.clip_frames),
            optimizer=replace(one.optimizer, milestones=milestones, decay=decay), fit=replace(one.fit, steps=steps)),
        cache=replace(CACHE, window_frames=row.clips * row.clip_frames),
        stage_two=stage_two(videos.classes, layers=row.layers, clips=row.clips),
        inference=replace(base.inference, clip_frames=None, resize=SMALL), predict=PredictConfig(mode="near_online"))


def offline(data: DatasetName, backbone: str) -> Recipe:
    """With the cross-clip head on top, in the near-online run's folder. Expect 48.5 AP on YouTube-VIS 2021 with R50.

    The head starts as in the released code, far below the near-online result; see `near_online_start`.
    """
    row = ROWS[data, backbone].maxtron
    base = near_online(data, backbone)
    return replace(
        base, name=f"{data}_tube_link_{backbone}_offline", folder=f"runs/{base.name}",
        about=_about("MaXTron", data, backbone, row.scores[1], "offline"),
        inference=replace(base.inference, clip_frames=row.offline_frames),
        cache=replace(base.cache, window_frames=row.clips * (row.offline_frames or row.clip_frames)),
        evaluation=replace(base.evaluation, mode="offline"),
        predict=PredictConfig(mode="offline"))


def near_online_start(data: DatasetName, backbone: str) -> Recipe:
    """The offline run with a head that starts at the near-online result and can only improve on it. No published score.

    It trains in a folder of its own, on shards, stage one and cache of the near-online run.
    """
    base = offline(data, backbone)
    two = base.stage_two
    return replace(base, name=f"{base.name}_near_online_start", folder="", stage_one_from=base.folder,
                   stage_two=replace(two, head=replace(two.head, start="near_online")),
                   about=f"{VIDEOS[data].title} valid, MaXTron, {TITLES[backbone]}, a head that starts at the "
                         "near-online result; no published score")


def _about(system: str, data: DatasetName, backbone: str, score: float, mode: str) -> str:
    note = ROWS[data, backbone].note if system == "Tube-Link" else ""
    return f"{VIDEOS[data].title} valid, {system}, {TITLES[backbone]}; expect {score} {VIDEOS[data].score} {mode}{note}"


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{data}_tube_link_{backbone}{suffix}": partial(recipe, data, backbone) for suffix, recipe in (
        ("", tube_link), ("_near_online", near_online), ("_offline", offline))
    for (data, backbone), row in ROWS.items() if recipe is tube_link or row.maxtron is not None}
VARIANTS: dict[str, Callable[[], Recipe]] = {
    f"{data}_tube_link_{backbone}_offline_near_online_start": partial(near_online_start, data, backbone)
    for (data, backbone), row in ROWS.items() if row.maxtron is not None}
