"""Masks that wait for the order of a whole video give what the reordered clips give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.inference import NearOnline, Offline, make_results
from model.inference.alignment import reordered
from model.inference.waiting import Waiting
from tests.model.inference.test_near_online_and_offline import (  # noqa: F401 - fixtures
    IS_THING,
    clips,
    head,
    new_merger,
    painted,
    segmenter,
)


@pytest.fixture
def order() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.stack([torch.randperm(6, generator=generator) for _ in range(4)])


def made(video, *makers):
    return make_results(video, makers, num_classes=len(IS_THING))["panoptic"]


def same(one, other) -> bool:
    return np.array_equal(painted(one), painted(other)) and one.segments == other.segments


def test_near_online_results_are_those_of_the_reordered_clips(clips, order):  # noqa: F811
    waiting = Waiting([NearOnline({"panoptic": new_merger})], order=lambda queries: order)
    expected = made([(reordered(clip, one), frames) for (clip, frames), one in zip(clips, order)],
                    NearOnline({"panoptic": new_merger}))
    assert expected.segments
    assert same(made(clips, waiting), expected)


def test_offline_results_are_those_of_the_reordered_clips(clips, head, order):  # noqa: F811
    linked = Offline(head, {"panoptic": new_merger}, order=lambda queries: order)
    expected = made([(reordered(clip, one), frames) for (clip, frames), one in zip(clips, order)],
                    Offline(head, {"panoptic": new_merger}))
    assert same(made(clips, linked), expected)
    assert not same(made(clips, Offline(head, {"panoptic": new_merger})), expected)


def test_clips_wait_without_their_masks_and_pixel_features(clips, order):  # noqa: F811
    waiting = Waiting([NearOnline({"panoptic": new_merger})], order=lambda queries: order)
    for clip, frames in clips:
        waiting.add(clip, frames)
    kept = [part for clip in waiting._clips for part in (clip.mask_logits, clip.pixel_features)]
    assert sum(part.untyped_storage().nbytes() for part in kept) == 0
    assert len(waiting.spool) == len(clips)
