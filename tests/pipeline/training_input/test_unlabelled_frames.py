"""Videos that are labelled at every fifth frame: clips show neighbouring frames, and those without a label are void."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain, islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model.contracts import ClipTargets
from pipeline.clips import AugmentConfig
from pipeline.clips.sampling import sample_clip
from pipeline.images import decode_jpeg
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.training_input.copy_paste import CopyPasteConfig
from pipeline.training_input.loading import never_drawn, read_frames, training_batches, training_plan
from pipeline.training_input.pseudo_video import PseudoVideoConfig
from pipeline.training_input.refusal import RefusalConfig
from pipeline.training_input.training_clips import InputConfig, is_refused, make_clip, plan_clip
from tests.pipeline.shards.index_files import HeldVideos
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos

EVERY = 5
LENGTHS = {"a": 12, "b": 23, "c": 8, "d": 1}
STILL = AugmentConfig(size=(24, 40), scale=(1, 1), flip=0, crop=False, color=False, reverse=0)
CONFIG = InputConfig(augment=STILL, batch_size=1, workers=0, copy_paste=None, seed=5)
WAYS = {
    "neighbours": {}, "backwards": {"augment": replace(STILL, reverse=1.0)}, "every second": {"frame_stride": 2},
    "around": {"reach": 4, "clip_frames": 3}, "windows": {"sampling": "windows"}, "long": {"clip_frames": 6},
    "longer than a video": {"clip_frames": 10}, "official": {"official_compat": True}, "streaming": {"streaming": True},
    "pasting": {"copy_paste": CopyPasteConfig()}, "in loader processes": {"workers": 2},
    "camera": {"pseudo_video": PseudoVideoConfig(short_side=(24,), crop=(12, 24), of_videos=1.0)},
}
every_way = pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)


class EveryFifth(ToyVideos):
    """Frame 0 and every fifth one after it have a label."""

    def _frame(self, video_id: str, frame: int):
        record = super()._frame(video_id, frame)
        return record if frame % EVERY == 0 else replace(record, label=None, segment_ids=())


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[ShardSet, ShardSet]:
    """The sparse set, and the same videos with a label in every frame."""
    folder = tmp_path_factory.mktemp("set")
    full = toy_videos(folder / "videos", LENGTHS)
    sets = []
    for name, data in (("sparse", EveryFifth(full.root, LENGTHS)), ("full", full)):
        make_shards(data, folder / name, ShardConfig(clip_frames=4, min_shards=2), split="train")
        sets.append(ShardSet(folder / name))
    return tuple(sets)


@pytest.fixture(scope="module")
def shards(both) -> ShardSet:
    return both[0]


def labelled(frames: tuple[int, ...]) -> list[bool]:
    return [frame % EVERY == 0 for frame in frames]


def plans(shards: ShardSet, config: InputConfig, steps: int = 60) -> list:
    plan = training_plan(shards, config)
    draws = chain.from_iterable(plan.batch(step) for step in range(steps))
    return [plan_clip(draw, shards.videos, config, donors=range(len(shards.videos))) for draw in draws]


@every_way
def test_every_clip_holds_a_label_and_its_frames_are_the_steps_apart_that_the_recipe_says(shards, changes):
    config = replace(CONFIG, **changes)
    seen = set()
    for plan in plans(shards, replace(config, streaming=False)):
        frames = sorted(plan.clip.frames)
        length = len(plan.clip.video.frames)
        assert any(labelled(frames))
        if plan.donor:
            assert any(labelled(plan.donor.frames))
        if not config.reach:
            assert all(after - before == config.frame_stride or after == length - 1
                       for before, after in pairwise(frames))
        seen |= {(plan.clip.video.video_id, frame) for frame in frames}
    assert any(frame % EVERY for _, frame in seen)


@every_way
def test_unlabelled_frames_are_shown_and_void_and_named_in_the_targets(shards, changes):
    config = replace(CONFIG, **changes)
    iterator = training_batches(shards, config)
    some = 0
    for batch in islice(iterator, 16):
        (target,) = batch.targets
        some += target.unlabelled is not None
        if target.unlabelled is not None:
            assert not target.unlabelled.all()
            assert not target.masks[:, target.unlabelled].any()
            assert target.void[target.unlabelled].all()
            assert batch.frames[0, target.unlabelled].flatten(1).any(1).all()
        assert target.masks.flatten(1).any(1).all()
    iterator.close()
    assert some


def clip_of(shards: ShardSet, plan, config: InputConfig) -> tuple[np.ndarray, ClipTargets]:
    count = len(plan.clip.frames)
    frames = np.empty((count, 3, 24, 40), np.uint8)
    tubes = make_clip(plan, partial(read_frames, shards), shards.classes, config, frames=frames,
                      real_pixels=np.empty((count, 24, 40), bool))
    return frames, tubes.targets()


@pytest.mark.parametrize("paste", [None, CopyPasteConfig()], ids=["alone", "pasting"])
def test_a_clip_is_that_of_the_fully_labelled_set_with_frames_made_void(both, paste):
    """Whatever the labels of those frames would be, the clip does not change with them."""
    sparse, full = both
    config = replace(CONFIG, clip_frames=6, copy_paste=paste)
    for plan in plans(sparse, config, steps=12):
        video = next(video for video in full.videos if video.video_id == plan.clip.video.video_id)
        same = replace(plan, clip=replace(plan.clip, video=video))
        frames, target = clip_of(sparse, plan, config)
        if plan.donor is None:
            there, with_labels = clip_of(full, same, config)
            assert_array_equal(frames, there)
            known = torch.tensor(labelled(plan.clip.frames))
            kept = with_labels.masks[:, known].flatten(1).any(1)
            assert target.track_ids.tolist() == with_labels.track_ids[kept].tolist()
            assert torch.equal(target.masks[:, known], with_labels.masks[kept][:, known])
        assert (target.unlabelled is None) == all(labelled(plan.clip.frames))
        if target.unlabelled is not None:
            assert (~target.unlabelled).tolist() == labelled(plan.clip.frames)
            assert not target.masks[:, target.unlabelled].any()


def test_the_images_are_the_neighbours_of_the_labelled_frame(shards):
    for plan in plans(shards, CONFIG, steps=12):
        frames, _ = clip_of(shards, plan, CONFIG)
        for image, frame in zip(frames, plan.clip.frames):
            ((jpeg, _),) = shards.read(plan.clip.video, frame, frame + 1)
            assert_array_equal(image, decode_jpeg(jpeg).transpose(2, 0, 1))


def test_every_clip_with_a_label_is_drawn_equally_often_and_no_other():
    rng = np.random.default_rng(0)
    drawn = [sample_clip(12, 2, rng, labelled=(0, 5, 10)) for _ in range(3000)]
    clips, counts = np.unique(drawn, axis=0, return_counts=True)
    assert clips.tolist() == [[0, 1], [4, 5], [5, 6], [9, 10], [10, 11]]
    assert abs(counts - 600).max() < 5 * (3000 * 0.2 * 0.8) ** 0.5


def test_where_no_clip_without_repeats_holds_a_label_the_clip_starts_at_one():
    rng = np.random.default_rng(0)
    assert {sample_clip(12, 2, rng, stride=10, labelled=(5,)) for _ in range(20)} == {(5, 11)}
    assert {sample_clip(3, 2, rng, labelled=(2,), official_compat=True) for _ in range(20)} == {(2, 2)}


def test_windows_are_the_frames_at_which_a_clip_with_a_label_can_start(shards):
    config = replace(CONFIG, sampling="windows")
    assert training_plan(shards, config).samples_per_video.tolist() == [5, 9, 3, 0]
    starts = {(plan.clip.video.video_id, plan.clip.frames[0]) for plan in plans(shards, config, steps=17)}
    assert starts == {(name, start) for name, count in LENGTHS.items() for start in range(count - 1)
                      if any(labelled((start, start + 1)))}
    video = shards.videos[0]
    only = replace(video, frames=tuple(replace(frame, label=frame.label if index == 5 else None)
                                       for index, frame in enumerate(video.frames)))
    far = replace(config, frame_stride=10)
    assert never_drawn(SimpleNamespace(videos=HeldVideos([only])), far) == 1


@pytest.mark.parametrize("rule", ["first", "any"])
def test_frames_without_a_label_are_no_reason_to_refuse_a_clip(shards, rule):
    """In the labelled frames of these videos, every crop meets an object."""
    config = replace(CONFIG, clip_frames=3, refuse=RefusalConfig(empty=rule, labelled=10))
    fetch = partial(read_frames, shards)
    for plan in plans(shards, config, steps=20):
        assert not is_refused(plan, fetch, shards.classes, config)
        wanted = replace(config, refuse=RefusalConfig(labelled=10**6))
        assert is_refused(plan, fetch, shards.classes, wanted)


def test_the_videos_that_are_left_keep_all_their_frames(both):
    sparse, full = both
    assert [len(video.frames) for video in sparse.with_labels().videos] == list(LENGTHS.values())
    assert sparse.with_labels() is sparse
    assert [video.labelled for video in sparse.videos] == [tuple(range(0, count, EVERY)) for count in LENGTHS.values()]
    assert [video.labelled for video in full.videos] == [tuple(range(count)) for count in LENGTHS.values()]
