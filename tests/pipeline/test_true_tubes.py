"""With the labels at hand, a system brings shuffled queries back into the order of the tubes, and keeps the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from jobs.recipes.tiny import tiny_segmenter
from model.contracts import ClipPrediction, VideoResults
from model.inference import FixedCanvas, InferenceConfig
from model.inference.alignment import reordered
from model.postprocess.panoptic import PanopticConfig
from pipeline.clips import StoredVideoSource
from pipeline.clips.reading import video_clips
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.system import System
from pipeline.true_tubes import true_tubes

SIDE = 64
QUERIES = 10
LOW = PanopticConfig(thing=0.2, stuff=0.3, pixel=0.3, overlap=0.5)      # things are hidden in a third of the clips


class Repeats(nn.Module):
    """A segmenter that says what it is told, clip by clip."""

    config = tiny_segmenter()

    def __init__(self, clips: list[ClipPrediction]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.clips = iter(clips)

    def forward(self, frames: torch.Tensor, real_pixels: torch.Tensor) -> ClipPrediction:
        return next(self.clips)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    folder = tmp_path_factory.mktemp("reappear")
    config = SyntheticConfig(videos_train=0, videos_val=3, height=SIDE, width=SIDE, preset="reappear")
    write_world(folder / "world", config)
    make_shards(VipSeg(str(folder / "world"), split="val"), folder / "shards", ShardConfig(), split="val")
    return ShardSet(folder / "shards")


def perfect(shards: ShardSet, video) -> list[ClipPrediction]:
    """Clips whose queries are the tubes of the video: one query number for each, as long as the video lasts."""
    slots: dict[int, int] = {}
    clips = []
    for clip in video_clips(StoredVideoSource(shards, video), 2, FixedCanvas(size=(SIDE, SIDE))):
        targets = true_tubes(clip, video=video, classes=shards.classes)
        masks = torch.full((1, QUERIES, *targets.masks.shape[1:]), -9.0)
        logits = torch.zeros(1, QUERIES, len(shards.classes) + 1)
        logits[..., -1] = 9
        for mask, label, track in zip(targets.masks, targets.classes, targets.track_ids.tolist()):
            slot = slots.setdefault(track, len(slots))
            masks[0, slot] = torch.where(mask, 9.0, -9.0)
            logits[0, slot, label] = 18
        embeddings = torch.zeros(1, QUERIES, 4)
        clips.append(ClipPrediction(class_logits=logits, mask_logits=masks, queries=embeddings,
                                    mask_embeddings=embeddings, pixel_features=torch.zeros(1, 4, *masks.shape[2:])))
    return clips


def shuffled(clips: list[ClipPrediction], seed: int) -> list[ClipPrediction]:
    rng = torch.Generator().manual_seed(seed)
    return [replace(reordered(clip, torch.randperm(QUERIES, generator=rng)),
                    alignment=torch.randn(1, QUERIES, 8, generator=rng)) for clip in clips]


def scores(shards: ShardSet, *, shuffle: bool, oracle: bool) -> dict:
    card = Scorecard(shards.classes, ("panoptic",), windows=(1, 2, 4, 6, 12))
    for video in shards.videos:
        clips = perfect(shards, video)
        system = System(segmenter=Repeats(shuffled(clips, video.index) if shuffle else clips), head=None,
                        classes=shards.classes, clip_frames=2, size=(SIDE, SIDE), made_by={},
                        inference=InferenceConfig(panoptic=LOW))
        truth_of = (lambda clip, video=video: true_tubes(clip, video=video, classes=shards.classes)) if oracle else None
        predicted = system.predict(StoredVideoSource(shards, video), truth_of=truth_of)
        card.update(VideoResults(panoptic=predicted.panoptic), VideoResults(panoptic=shards.truth(video)))
    return headline(card.scores())


def test_the_labels_undo_any_order_of_the_queries(shards):
    best = scores(shards, shuffle=False, oracle=False)
    lost = scores(shards, shuffle=True, oracle=False)
    found = scores(shards, shuffle=True, oracle=True)
    assert found == best
    assert best["switches"] == 0
    assert best["vpq_by_window"]["12"] > 60 > lost["vpq_by_window"]["12"]
    assert best["aq"] > 1.5 * lost["aq"]


def test_the_tubes_of_a_clip_are_every_fourth_pixel_of_its_labels(shards):
    video = shards.videos[0]
    for clip in video_clips(StoredVideoSource(shards, video), 2, FixedCanvas(size=(SIDE, SIDE))):
        targets = true_tubes(clip, video=video, classes=shards.classes)
        ids = np.stack([shards.ids(video, frame) for frame in clip.indices])[:, 2::4, 2::4]
        for mask, track in zip(targets.masks.numpy(), targets.track_ids.tolist()):
            assert np.array_equal(mask, ids == track)
        assert len(targets.classes) == len(np.unique(ids))
