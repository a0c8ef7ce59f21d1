"""A batch with a canvas of its own: as large as its largest clip, and each clip is what it would be alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from model.contracts import ClipBatch
from pipeline.clips import AugmentConfig
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.training_input.batch_slots import BatchSlots
from pipeline.training_input.copy_paste import CopyPasteConfig
from pipeline.training_input.loading import IndexedClips, Stills, training_batches, training_plan
from pipeline.training_input.pseudo_video import PseudoVideoConfig
from pipeline.training_input.training_clips import InputConfig
from tests.pipeline.shards.toy_videos import toy_videos

SIZES = {"wide": (36, 64), "upright": (64, 36), "square": (48, 48), "older": (48, 64), "long": (30, 90)}
OWN = AugmentConfig(size=None, short_side=(24, 33, 40), scale=(1.0, 1.0), pad_to=32, flip=0.0, reverse=0.0,
                    color=False)
CONFIG = InputConfig(augment=OWN, batch_size=5, workers=0, seed=3, copy_paste=None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    folder = tmp_path_factory.mktemp("set")
    data = toy_videos(folder / "videos", dict.fromkeys(SIZES, 4), sizes=SIZES)
    make_shards(data, folder / "shards", ShardConfig(clip_frames=4, min_shards=1), split="train")
    return ShardSet(folder / "shards")


def batches(shards: ShardSet, config: InputConfig, *, steps: int, **options) -> list[ClipBatch]:
    iterator = training_batches(shards, config, **options)
    taken = list(islice(iterator, steps))
    iterator.close()
    return taken


def real_size(real: torch.Tensor) -> tuple[int, int]:
    """Height and width of the real pixels of a frame, which lie at its top left."""
    height = int(real.any(1).sum())
    width = int(real.any(0).sum())
    assert real[:height, :width].all()
    assert real.sum() == height * width
    return height, width


def test_the_canvas_is_the_smallest_multiple_of_32_in_which_the_clips_of_the_batch_lie(shards):
    seen = set()
    for batch in batches(shards, replace(CONFIG, batch_size=2), steps=20):
        sizes = [real_size(real) for clip in batch.real_pixels for real in clip]
        canvas = tuple(batch.frames.shape[-2:])
        assert canvas == tuple(-(-max(sides) // 32) * 32 for sides in zip(*sizes))
        assert batch.real_pixels.shape[-2:] == canvas
        for targets in batch.targets:
            assert targets.void.shape[1:] == (canvas[0] // 4, canvas[1] // 4)
        assert not batch.frames[~batch.real_pixels[:, :, None].expand_as(batch.frames)].any()
        seen.add(canvas)
    assert len(seen) > 3


def test_the_pixels_and_the_targets_of_a_clip_do_not_depend_on_the_canvas_of_its_batch(shards):
    together = batches(shards, CONFIG, steps=4)
    alone = batches(shards, replace(CONFIG, batch_size=1), steps=20)
    for step, batch in enumerate(together):
        for index in range(5):
            (targets,) = alone[5 * step + index].targets
            frames = alone[5 * step + index].frames[0]
            assert batch.videos[index] == alone[5 * step + index].videos[0]
            height, width = real_size(batch.real_pixels[index, 0])
            assert torch.equal(batch.frames[index, ..., :height, :width], frames[..., :height, :width])
            ours = batch.targets[index]
            assert torch.equal(ours.classes, targets.classes)
            assert torch.equal(ours.track_ids, targets.track_ids)
            rows, columns = targets.void.shape[1:]
            assert torch.equal(ours.masks[..., :rows, :columns], targets.masks)
            assert not ours.masks[..., rows:, :].any()
            assert not ours.masks[..., columns:].any()
            assert ours.void[:, rows:].all()


@pytest.mark.parametrize("streaming", [False, True])
def test_loader_processes_give_the_batches_of_none(shards, streaming):
    config = replace(CONFIG, streaming=streaming, batch_size=2)
    workers = 1 if streaming else 2
    for one, other in zip(batches(shards, replace(config, workers=workers, prefetch=1), steps=9),
                          batches(shards, config, steps=9), strict=True):
        assert one.videos == other.videos
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.real_pixels, other.real_pixels)
        assert all(torch.equal(a.masks, b.masks) for a, b in zip(one.targets, other.targets))


def test_streaming_makes_the_clips_that_reading_by_index_makes(shards):
    config = replace(CONFIG, batch_size=1)
    indexed = {batch.videos[0]: batch for batch in batches(shards, config, steps=5)}
    for batch in batches(shards, replace(config, streaming=True), steps=5):
        assert torch.equal(batch.frames, indexed[batch.videos[0]].frames)
        assert torch.equal(batch.targets[0].masks, indexed[batch.videos[0]].targets[0].masks)


def test_a_crop_and_a_cap_on_the_long_side_limit_the_canvas(shards):
    crop = replace(CONFIG, augment=replace(OWN, size=(32, 64)), batch_size=1)
    for batch in batches(shards, crop, steps=15):
        height, width = real_size(batch.real_pixels[0, 0])
        assert height <= 32
        assert width <= 64
        assert batch.frames.shape[-2:] == (32, -(-width // 32) * 32)
    capped = replace(CONFIG, augment=replace(OWN, long_side=50), batch_size=1)
    sides = [max(real_size(batch.real_pixels[0, 0])) for batch in batches(shards, capped, steps=25)]
    assert max(sides) == 50
    assert min(sides) < 50


def test_windows_of_stills_share_a_canvas_too(tmp_path, shards):
    data = toy_videos(tmp_path / "videos", {"x": 1, "y": 1}, sizes={"x": (40, 90)})
    make_shards(data, tmp_path / "shards", ShardConfig(clip_frames=4, min_shards=1), split="train")
    config = replace(CONFIG, augment=replace(OWN, long_side=70), batch_size=4, clip_frames=3,
                     pseudo_video=PseudoVideoConfig(short_side=(40,), crop=(20, 40)))
    for batch in batches(shards, config, steps=6, stills=Stills(ShardSet(tmp_path / "shards"), 0.5)):
        sizes = [real_size(real) for clip in batch.real_pixels for real in clip]
        assert batch.frames.shape[-2:] == tuple(-(-max(sides) // 32) * 32 for sides in zip(*sizes))


def shared_megabytes() -> float:
    """Memory of this process that it shares with others."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem")) / 1024


def test_slots_cost_the_memory_of_their_batches_and_not_of_the_largest_canvas(shards):
    """The slots have room for 7 GB here, and the batches take less than one megabyte."""
    config = replace(CONFIG, augment=replace(OWN, long_side=8192), workers=2, batch_size=4)
    before = shared_megabytes()
    slots = BatchSlots(config, share=4)
    assert slots.largest == (8192, 8192)
    loader = IndexedClips([shards], slots)
    draws = training_plan(shards, config).batch(0)
    batch = slots.take(loader[0, draws])
    assert batch.frames.shape[-1] <= 160
    assert shared_megabytes() - before < 2


def test_the_largest_canvas_holds_every_clip_of_the_videos(shards):
    sources = {(video.height, video.width) for video in shards.videos}
    assert OWN.largest_canvas(sources) == (96, 128)         # 40x71 upright, 40x120
    assert replace(OWN, long_side=80).largest_canvas(sources) == (96, 96)
    assert replace(OWN, size=(33, 65)).largest_canvas(sources) == (64, 96)
    assert replace(OWN, size=(33, 65), pad_to=None).largest_canvas(sources) == (33, 65)


def test_what_needs_one_size_is_refused():
    with pytest.raises(ValueError, match=r"copy_paste needs clips of one size; set "
                                         r"stage_one\.input\.augment\.pad_to=null"):
        replace(CONFIG, copy_paste=CopyPasteConfig())
    with pytest.raises(ValueError, match=r"windows of any shape.*input\.augment\.long_side"):
        replace(CONFIG, pseudo_video=PseudoVideoConfig())
