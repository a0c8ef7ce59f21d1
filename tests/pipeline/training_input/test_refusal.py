"""Clips that hold too little are drawn again: by the official rules, and the same clip for any ranks and workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest

from model.labels import VOID
from pipeline.clips import AugmentConfig
from pipeline.errors import BadInput
from pipeline.records import Segment
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.training_input.batch_slots import BatchSlots
from pipeline.training_input.copy_paste import CopyPasteConfig
from pipeline.training_input.loading import IndexedClips, read_frames, training_batches, training_plan
from pipeline.training_input.refusal import RefusalConfig, meets_object, objects_of
from pipeline.training_input.sample_plan import Draw
from pipeline.training_input.training_clips import InputConfig, is_refused, make_clip, plan_clip
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos, write_label

THING = Segment(id=9, class_index=1)
SIZE = (32, 48)
LENGTHS = {"a": 4, "b": 6, "c": 3, "d": 5}


class Sparse(ToyVideos):
    """Frames of 32x48 with one thing of 4x4 pixels that moves, and none in every third frame."""

    def frame_map(self, video_id: str, frame: int) -> np.ndarray:
        ids = np.zeros((self.height, self.width), np.int32)
        if (frame + len(video_id) + ord(video_id[0])) % 3:
            left = (frame * 7 + ord(video_id[0])) % (self.width - 4)
            ids[4:8, left:left + 4] = THING.id
        return ids

    def _frame(self, video_id: str, frame: int):
        record = super()._frame(video_id, frame)
        seen = np.unique(self.frame_map(video_id, frame))
        return replace(record, segment_ids=tuple(int(id) for id in seen if id))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> Sparse:
    folder = tmp_path_factory.mktemp("sparse")
    plain = toy_videos(folder / "videos", LENGTHS, height=SIZE[0], width=SIZE[1], segments=(THING,))
    data = Sparse(plain.root, LENGTHS, *SIZE, segments=(THING,))
    for video, length in LENGTHS.items():
        for frame in range(length):
            write_label(data.label(video, frame), data.frame_map(video, frame))
    return data


@pytest.fixture(scope="module")
def shards(tmp_path_factory, sparse) -> ShardSet:
    folder = tmp_path_factory.mktemp("shards")
    make_shards(sparse, folder, ShardConfig(min_shards=2), split="train")
    return ShardSet(folder)


CONFIG = InputConfig(augment=AugmentConfig(size=(16, 32), short_side=(32,), scale=(1, 1), reverse=0.0, color=False),
                     clip_frames=2, sampling="windows", batch_size=2, workers=0, copy_paste=None, seed=3)


def holds_box(ids: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """The official rule, plainly: the box of the one thing, clipped to the crop, has an area."""
    rows, columns = np.nonzero(ids)
    if not len(rows):
        return False
    top, left, bottom, right = box
    return (min(rows.max() + 1, bottom) > max(rows.min(), top)
            and min(columns.max() + 1, right) > max(columns.min(), left))


@pytest.mark.parametrize("rule", ["first", "any"])
def test_a_clip_is_refused_if_a_box_is_missing_from_the_crop_of_its_first_frame_or_of_any(shards, sparse, rule):
    config = replace(CONFIG, refuse=RefusalConfig(empty=rule))
    plan = training_plan(shards, config)
    fetch = partial(read_frames, shards)
    outcomes = set()
    for draw in (draw for step in range(150) for draw in plan.batch(step)):
        clip = plan_clip(draw, shards.videos, config, donors=range(4))
        held = [holds_box(sparse.frame_map(clip.clip.video.video_id, frame), transform.box)
                for frame, transform in zip(clip.clip.frames, clip.clip.transforms)]
        refused = is_refused(clip, fetch, shards.classes, config)
        assert refused == (not held[0] if rule == "first" else not all(held))
        outcomes.add(refused)
    assert outcomes == {False, True}


def test_a_box_counts_where_its_object_lies_beside_the_crop_and_crowd_never(shards):
    segments = (Segment(id=1, class_index=1), Segment(id=2, class_index=1, is_crowd=True))
    video = replace(shards.videos[0], segments=segments, overlaps={3: (1, 2)})
    assert objects_of(video).tolist() == [False, True, False, True]
    corners = np.zeros((20, 20), np.uint8)
    corners[2, 2] = corners[17, 17] = 1
    assert meets_object(corners, (8, 8, 12, 12), video)             # inside the box, between its corners
    assert not meets_object(corners, (0, 18, 5, 20), video)
    assert not meets_object(np.full((20, 20), 2, np.uint8), (0, 0, 20, 20), video)
    shared = np.zeros((20, 20), np.uint8)
    shared[2, 2], shared[17, 17] = 1, 3
    assert meets_object(shared, (8, 8, 12, 12), video)


def test_no_refused_clip_is_trained_on_and_positions_go_on(shards):
    config = replace(CONFIG, refuse=RefusalConfig(empty="any"), augment=replace(CONFIG.augment, size=SIZE))
    batches = list(islice(training_batches(shards, config), 40))
    for batch in batches:
        for targets in batch.targets:       # frames are whole, and the thing is as large as a cell of stride 4
            assert targets.masks.any(dim=(2, 3)).tolist() == [[True, True]]
    assert [sample for batch in batches for sample in batch.samples] == list(range(80))


def same(one, other) -> bool:
    return (one.videos == other.videos and one.samples == other.samples
            and bool((one.frames == other.frames).all()) and bool((one.real_pixels == other.real_pixels).all()))


def test_redrawn_clips_do_not_depend_on_workers_ranks_or_kills(shards):
    config = replace(CONFIG, refuse=RefusalConfig(empty="any"))
    expected = list(islice(training_batches(shards, config), 12))
    assert all(map(same, islice(training_batches(shards, replace(config, workers=2)), 12), expected))
    assert all(map(same, islice(training_batches(shards, config, consumed=10), 7), expected[5:]))
    ranks = [list(islice(training_batches(shards, config, rank=rank, world=2), 12)) for rank in range(2)]
    for whole, *parts in zip(expected, *ranks):
        assert whole.videos == tuple(video for part in parts for video in part.videos)
        assert all(bool((whole.frames[rank] == part.frames[0]).all()) for rank, part in enumerate(parts))


def test_a_refused_draw_alone_is_replaced(shards):
    """With and without the rule, the clips that are not refused are the same."""
    plain = islice(training_batches(shards, CONFIG), 40)
    kept = replaced = 0
    for one, other in zip(plain, training_batches(shards, replace(CONFIG, refuse=RefusalConfig(empty="first")))):
        for index in range(2):
            alike = one.videos[index] == other.videos[index] and bool((one.frames[index] == other.frames[index]).all())
            kept += alike
            replaced += not alike
    assert kept > 20
    assert replaced > 10


@pytest.mark.long
def test_windows_are_seen_as_often_as_where_the_official_data_set_draws_again(shards, sparse):
    """Officially, a window whose crop misses a box in some frame is replaced by any window, as often as needed."""
    rng = np.random.default_rng(1)
    windows = [(video, start) for video, length in LENGTHS.items() for start in range(length - 1)]
    official = Counter()
    for _ in range(2000):
        video, start = windows[rng.integers(len(windows))]
        while True:
            left = int(rng.integers(48 - 32 + 1))
            top = int(rng.integers(32 - 16 + 1))
            box = (top, left, top + 16, left + 32)
            if all(holds_box(sparse.frame_map(video, frame), box) for frame in (start, start + 1)):
                break
            video, start = windows[rng.integers(len(windows))]
        official[video, start] += 1
    config = replace(CONFIG, refuse=RefusalConfig(empty="any"), augment=replace(CONFIG.augment, flip=0.0))
    plan = training_plan(shards, config)
    clips = IndexedClips([shards], BatchSlots(config, share=2), redraw=plan.redraw)
    ours = Counter()
    for draw in (draw for step in range(1000) for draw in plan.batch(step)):
        accepted = clips.accepted(draw).clip
        ours[accepted.video.video_id, accepted.frames[0]] += 1
    assert len(ours) < len(windows)
    for window in windows:
        share = official[window] / 2000
        assert abs(ours[window] / 2000 - share) <= 5 * (2 * share * (1 - share) / 2000) ** 0.5 + 1e-3


@pytest.mark.parametrize("paste", [None, CopyPasteConfig(scale=1.0)])
@pytest.mark.parametrize("limit", [0, 4, 6])
def test_clips_with_too_few_labelled_pixels_are_refused_after_pasting(shards, paste, limit):
    config = replace(CONFIG, refuse=RefusalConfig(labelled=limit), copy_paste=paste,
                     augment=replace(CONFIG.augment, size=(32, 48), scale=(2.0, 2.0)))
    fetch = partial(read_frames, shards)
    outcomes = set()
    for epoch in range(80):
        plan = plan_clip(Draw(position=0, epoch=epoch, video=epoch % 4), shards.videos, config, donors=range(4))
        clip = make_clip(plan, fetch, shards.classes, config, frames=np.empty((2, 3, 32, 48), np.uint8),
                         real_pixels=np.empty((2, 32, 48), bool))
        refused = is_refused(plan, fetch, shards.classes, config)
        assert refused == (np.count_nonzero(clip.tubes != VOID) <= limit)
        outcomes.add(refused)
    assert outcomes == {False, True}


def test_a_set_that_holds_nothing_is_refused_with_a_cure(shards):
    config = replace(CONFIG, refuse=RefusalConfig(labelled=10**6))
    with pytest.raises(BadInput, match=r"100 clips .* hold too little .* set stage_one\.input\.refuse=null"):
        next(training_batches(shards, config))


def test_refused_clips_are_counted_in_the_log(shards, caplog):
    batches = training_batches(shards, replace(CONFIG, refuse=RefusalConfig(empty="any")))
    for _ in range(10):
        next(batches)
    assert "drawn again for 20 clips" in caplog.text


@pytest.mark.parametrize(("make", "message"), [
    (lambda: replace(CONFIG, refuse=RefusalConfig(empty="any"), streaming=True), r"refuse .*input\.streaming=false"),
    (lambda: RefusalConfig(), "has no rule"), (lambda: RefusalConfig(labelled=-1), r"labelled is -1")])
def test_impossible_rules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
