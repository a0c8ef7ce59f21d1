"""MaXTron on Video-kMaX, VIPSeg: the official settings (arXiv 2311.18537 v1, tables 1, 5 and 6; TACJu/MaXTron configs).

All start from COCO pre-training, which is named by `stage_one.start_from`: a folder made from an official checkpoint.
Prices are those of the paper: 32 clips a step on 16 GPUs with 32 GiB or more.
"""

from __future__ import annotations

from dataclasses import replace

from jobs.recipes.schema import CacheConfig, ClusterConfig, EvaluationConfig, Recipe, StageOneConfig, StageTwoConfig
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.losses.kmax import KMaxLossConfig
from model.postprocess.panoptic import PanopticConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.within_clip import WithinClipConfig
from pipeline.augment import AugmentConfig
from pipeline.copy_paste import CopyPasteConfig
from pipeline.datasets import DatasetConfig
from pipeline.pixel_evidence import EvidenceConfig
from pipeline.query_batches import QueryInputConfig
from pipeline.shards import ShardConfig
from pipeline.training_clips import InputConfig

CLASSES = 124
SIZE = (769, 1345)      # network input; 720p frames fit without scaling
HEADS = ("class_projection", "mask_projection", "mask_head", "class_head", "mask_norm")


def vipseg_video_kmax_r50() -> Recipe:
    """The baseline the paper calls RP: Video-kMaX re-implemented, no within-clip tracking. Expect 42.7 VPQ (R50)."""
    return Recipe(
        name="vipseg_video_kmax_r50", about="VIPSeg val, Video-kMaX RP, ResNet-50; expect 42.7 VPQ (table 1)",
        dataset=DatasetConfig(name="vipseg", root="data/VIPSeg_720P"), shards=ShardConfig(resize_height=720),
        stage_one=StageOneConfig(
            segmenter=VideoKMaxConfig(num_classes=CLASSES), losses=KMaxLossConfig(),
            input=InputConfig(batch_size=32, augment=AugmentConfig(size=SIZE, scale=(0.3, 1.7), reverse=0.0),
                              copy_paste=CopyPasteConfig()),
            optimizer=OptimizerConfig(lr=5e-5, weight_decay=0.05, warmup_steps=2000, multipliers=(
                ("backbone.", 0.1), *((head, 0.1) for head in HEADS))),
            fit=FitConfig(steps=40_000, precision="fp16")),
        cache=CacheConfig(views=4, evidence=EvidenceConfig(pixels=1024)),
        stage_two=StageTwoConfig(
            head=MaXTronHeadConfig(num_classes=CLASSES),
            input=QueryInputConfig(clips=12, batch_size=16),
            optimizer=OptimizerConfig(lr=5e-5, weight_decay=0.05, warmup_steps=750, multipliers=(("predictor", 0.1),)),
            fit=FitConfig(steps=15_000)),
        evaluation=EvaluationConfig(merge=PanopticConfig(thing=0.2, stuff=0.3, pixel=0.3, overlap=0.8)),
        cluster=ClusterConfig(workers=16, cpus_per_worker=6, gpus_per_worker=1, actors=16, gpus_per_actor=1))


def vipseg_video_kmax_r50_near_online() -> Recipe:
    """With within-clip tracking. Expect 46.1 VPQ near-online and 46.7 offline (R50, table 1)."""
    road = vipseg_video_kmax_r50()
    one = road.stage_one
    return replace(
        road, name="vipseg_video_kmax_r50_near_online",
        about="VIPSeg val, MaXTron, ResNet-50; expect 46.1 VPQ near-online, 46.7 offline (table 1)",
        stage_one=replace(one, segmenter=replace(one.segmenter, within_clip=WithinClipConfig()),
                          optimizer=replace(one.optimizer, multipliers=(
                              *one.optimizer.multipliers, ("within_clip.trajectory_stacks", 2.0)))))
