"""Training batches depend only on seed and step: not on workers, ranks, interruptions, or the way of reading."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model.contracts import ClipBatch
from model.labels import ClassTable
from pipeline.clips import AugmentConfig
from pipeline.errors import BadInput
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.training_input.batch_slots import BatchSlots
from pipeline.training_input.copy_paste import CopyPasteConfig
from pipeline.training_input.loading import IndexedClips, Stills, never_drawn, training_batches, training_plan
from pipeline.training_input.pseudo_video import PseudoVideoConfig
from pipeline.training_input.sample_plan import Draw
from pipeline.training_input.training_clips import InputConfig, clips_per_epoch, plan_clip
from tests.pipeline.shards.index_files import change_rows
from tests.pipeline.shards.toy_videos import Described, toy_map, toy_videos

LENGTHS = {"a": 10, "b.mov": 1, "c": 5, "d": 2, "e": 3, "f": 7, "g": 4, "h": 2, "i": 6}
CONFIG = InputConfig(augment=AugmentConfig(size=(33, 49)), batch_size=4, workers=0, seed=11)


def write_shards(folder: Path, lengths: dict[str, int], *, min_shards: int = 3, still: bool = False,
                 **kwargs) -> ShardSet:
    data = toy_videos(folder / "videos", lengths, **kwargs)
    if still:       # repeats the first frame of each video
        for video, length in lengths.items():
            for frame in range(1, length):
                shutil.copy(data.image(video, 0), data.image(video, frame))
                shutil.copy(data.label(video, 0), data.label(video, frame))
    make_shards(data, folder / "shards", ShardConfig(clip_frames=4, min_shards=min_shards), split="train")
    return ShardSet(folder / "shards")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return write_shards(tmp_path_factory.mktemp("set"), LENGTHS)


def batches(shards: ShardSet, config: InputConfig, *, steps: int, **ranks) -> list[ClipBatch]:
    iterator = training_batches(shards, config, **ranks)
    taken = list(islice(iterator, steps))
    iterator.close()
    return taken


def clips(batches: list[ClipBatch]) -> list[dict]:
    """Every clip of some batches as plain tensors."""
    return [{"sample": batch.samples[index], "video": batch.videos[index], "frames": batch.frames[index],
             "real": batch.real_pixels[index],
             **{name: getattr(batch.targets[index], name) for name in ("masks", "classes", "track_ids", "void")}}
            for batch in batches for index in range(len(batch.videos))]


def assert_same_clips(actual: list[ClipBatch], expected: list[ClipBatch]) -> None:
    assert len(clips(actual)) == len(clips(expected))
    for one, other in zip(clips(actual), clips(expected)):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert same, (one["sample"], name)


def test_a_batch_has_the_shapes_of_its_contract(shards):
    batch = batches(shards, CONFIG, steps=1)[0]
    assert batch.frames.shape == (4, 2, 3, 33, 49)
    assert batch.frames.dtype == torch.uint8
    assert batch.real_pixels.shape == (4, 2, 33, 49)
    assert batch.samples == (0, 1, 2, 3)
    assert not batch.frames[~batch.real_pixels[:, :, None].expand_as(batch.frames)].any()
    for targets in batch.targets:
        assert targets.masks.shape == (len(targets.classes), 2, 9, 13)
        assert targets.masks.any(dim=(1, 2, 3)).all()
        assert len(set(targets.track_ids.tolist())) == len(targets.track_ids)
        assert torch.equal(targets.masks.sum(0) + targets.void, torch.ones(2, 9, 13, dtype=torch.int64))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_set_of_loader_processes_gives_the_bytes_of_one(shards, streaming):
    """Reading by index allows any number of processes. Streaming depends on it, so 1 is compared with 0."""
    config = replace(CONFIG, streaming=streaming)
    workers = 1 if streaming else 2
    assert_same_clips(batches(shards, replace(config, workers=workers), steps=5), batches(shards, config, steps=5))


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_see_the_batches_of_one_rank(shards, world):
    whole = batches(shards, CONFIG, steps=5)
    shares = [batches(shards, CONFIG, steps=5, rank=rank, world=world) for rank in range(world)]
    interleaved = [share for step in zip(*shares) for share in step]
    assert_same_clips(interleaved, whole)


@pytest.mark.parametrize(("streaming", "workers"), [(False, 0), (False, 2), (True, 0), (True, 2)])
def test_a_killed_run_continues_in_the_middle_of_an_epoch_as_if_nothing_had_happened(shards, streaming, workers):
    config = replace(CONFIG, streaming=streaming, workers=workers, batch_size=2, samples_per_video=2)
    undisturbed = batches(shards, config, steps=14)
    before = batches(shards, config, steps=5)
    after = batches(shards, config, steps=9, consumed=5 * 2)
    assert_same_clips(before + after, undisturbed)
    assert [sample for batch in before + after for sample in batch.samples] == list(range(28))


@pytest.mark.parametrize("reach", [0, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_makes_the_clips_that_reading_by_index_makes(shards, workers, reach):
    """The order differs, so clips are compared by video; donors differ too, so nothing is pasted."""
    config = replace(CONFIG, copy_paste=None, batch_size=1, reach=reach)
    steps = len(LENGTHS) - 1        # of one epoch, in which 2 workers drop one sample
    streamed = clips(batches(shards, replace(config, streaming=True, workers=workers), steps=steps))
    indexed = {clip["video"]: clip for clip in clips(batches(shards, config, steps=len(LENGTHS)))}
    assert len({clip["video"] for clip in streamed}) == steps
    for clip in streamed:
        for name in ("frames", "real", "masks", "classes", "track_ids"):
            assert torch.equal(clip[name], indexed[clip["video"]][name])


def test_in_a_set_of_one_shard_donors_are_the_same_too(tmp_path):
    shards = write_shards(tmp_path, {"a": 4, "b": 3, "c": 2}, min_shards=1)
    config = replace(CONFIG, batch_size=3)
    streamed, indexed = (sorted(clips(batches(shards, replace(config, streaming=streaming), steps=1)),
                                key=lambda clip: clip["video"]) for streaming in (True, False))
    for one, other in zip(streamed, indexed):
        assert torch.equal(one["frames"], other["frames"])
        assert torch.equal(one["track_ids"], other["track_ids"])


def test_every_frame_of_a_still_video_stays_the_same(tmp_path):
    """Scale, crop, flip, colours and pasted segments are each drawn once for the clip."""
    shards = write_shards(tmp_path, {"a": 6, "b": 4, "c": 5}, still=True)
    for clip in clips(batches(shards, replace(CONFIG, clip_frames=3, batch_size=3), steps=8)):
        for name in ("frames", "real", "void"):
            assert (clip[name] == clip[name][:1]).all()
        assert (clip["masks"] == clip["masks"][:, :1]).all()


def test_colours_of_every_frame_are_drawn_where_asked_and_nothing_else_changes(shards):
    """The first frame keeps the colours that the whole clip has otherwise, and donors are drawn alike."""
    config = replace(CONFIG, clip_frames=3)
    own = replace(config, augment=replace(config.augment, color_per_frame=True))
    draws = [Draw(position=0, epoch=epoch, video=0) for epoch in range(60)]
    for draw in draws:
        shared, apart = (plan_clip(draw, shards.videos, each, donors=range(3)) for each in (config, own))
        assert apart.clip.transforms[0] == shared.clip.transforms[0]
        for part in (apart.clip, apart.donor):
            assert len({replace(transform, color=None) for transform in part.transforms}) == 1
        assert len(set(shared.clip.transforms)) == 1
    colors = [plan_clip(draw, shards.videos, own, donors=range(3)).clip.transforms for draw in draws]
    assert sum(len(set(transforms)) == 3 for transforms in colors) > 55


def test_a_still_becomes_a_clip_whose_frames_differ_and_whose_objects_stay_the_same(tmp_path):
    shards = write_shards(tmp_path, {"a": 1, "b": 1, "c": 6})
    config = replace(CONFIG, clip_frames=3, batch_size=1, copy_paste=None,
                     pseudo_video=PseudoVideoConfig(short_side=(40,), crop=(20, 40)))
    for clip in clips(batches(shards, config, steps=9)):
        moved = not torch.equal(clip["frames"][0], clip["frames"][1])
        one_transform = torch.equal(clip["real"][0], clip["real"][1]) and torch.equal(clip["real"][0], clip["real"][2])
        if clip["video"] == "c":
            assert one_transform
        else:
            assert moved
            assert len(set(clip["track_ids"].tolist())) == len(clip["track_ids"])
        assert not clip["masks"].any(dim=0)[clip["void"]].any()


def test_frames_of_a_still_and_of_its_donor_may_have_sizes_of_their_own(tmp_path):
    """Objects keep their track over the frames, pasted ones too, and nothing is pasted outside the donor's pixels."""
    shards = write_shards(tmp_path, {"a": 1, "b": 1, "c": 6})
    config = replace(CONFIG, clip_frames=3, batch_size=1, jitter_stills=True)
    plans = [plan_clip(Draw(position=0, epoch=epoch, video=0), shards.videos, config, donors=range(1, 2))
             for epoch in range(20)]
    assert all(plan.donor is None for plan in plans)
    plans = [plan_clip(Draw(position=0, epoch=epoch, video=0), shards.videos, config, donors=range(2))
             for epoch in range(20)]
    for part in ("clip", "donor"):
        sizes = [{transform.resized for transform in getattr(plan, part).transforms} for plan in plans]
        assert sum(len(differing) == 3 for differing in sizes) > 10
    pasted = 0
    for clip in clips(batches(shards, config, steps=30)):
        if clip["video"] == "c":
            continue
        highest = next(video for video in shards.videos if video.video_id == clip["video"]).highest_id
        assert len(set(clip["track_ids"].tolist())) == len(clip["track_ids"])
        pasted += int((clip["track_ids"] > highest).sum())
        shown = clip["masks"].any(dim=0) | clip["void"]
        assert not clip["masks"][:, ~clip["real"][:, ::4, ::4]].any()
        assert shown[clip["real"][:, ::4, ::4]].all()
    assert pasted > 10


@pytest.mark.parametrize("of_videos", [0.0, 0.5, 1.0])
def test_a_clip_of_a_video_shows_a_window_at_rest_with_the_given_probability(shards, of_videos):
    """The window leaves out half of a 24x40 toy frame; a clip without it shows the whole frame."""
    config = replace(CONFIG, augment=replace(CONFIG.augment, scale=(1, 1)), copy_paste=None,
                     pseudo_video=PseudoVideoConfig(short_side=(24,), crop=(12, 12), of_videos=of_videos))
    plans = [plan_clip(Draw(position=0, epoch=epoch, video=0), shards.videos, config, donors=range(len(shards.videos)))
             for epoch in range(200)]
    assert all(len(set(plan.clip.transforms)) == 1 for plan in plans)
    assert {plan.clip.transforms[0].angle for plan in plans} == {0.0}
    boxes = [plan.clip.transforms[0].box for plan in plans]
    seen = sum((bottom - top, right - left) == (12, 12) for top, left, bottom, right in boxes)
    assert seen + boxes.count((0, 0, 24, 40)) == 200
    assert abs(seen - 200 * of_videos) < 30


def mix(tmp_path, shards: ShardSet, share: float = 0.5) -> Stills:
    return Stills(write_shards(tmp_path / "stills", {"x": 1, "y": 1, "z": 1}), share)


MIXED = replace(CONFIG, pseudo_video=PseudoVideoConfig(short_side=(40,), crop=(20, 40)))


def test_stills_train_beside_videos_in_their_proportion(tmp_path, shards):
    mixed = clips(batches(shards, MIXED, steps=6, stills=mix(tmp_path, shards, 0.25)))
    assert sum(clip["video"] in ("x", "y", "z") for clip in mixed) == 6
    assert len({clip["video"] for clip in mixed}) > 6


def test_a_mix_does_not_depend_on_loader_processes_ranks_or_kills(tmp_path, shards):
    stills = mix(tmp_path, shards)
    expected = batches(shards, MIXED, steps=5, stills=stills)
    assert_same_clips(batches(shards, replace(MIXED, workers=2), steps=5, stills=stills), expected)
    assert_same_clips(batches(shards, MIXED, steps=3, stills=stills, consumed=8), expected[2:])
    ranks = [batches(shards, MIXED, steps=5, stills=stills, rank=rank, world=2) for rank in range(2)]
    shared = sorted((clip for part in ranks for clip in clips(part)), key=lambda clip: clip["sample"])
    for one, other in zip(shared, clips(expected), strict=True):
        assert one["video"] == other["video"]
        assert torch.equal(one["frames"], other["frames"])


def test_by_windows_an_epoch_shows_every_window_once_and_short_videos_never(shards):
    """Reading by index and streaming draw the same windows, and each the same clip."""
    config = replace(CONFIG, sampling="windows", clip_frames=3, frame_stride=2, batch_size=1, copy_paste=None,
                     augment=replace(CONFIG.augment, reverse=0.0))
    windows = {(video, start) for video, length in LENGTHS.items() for start in range(length - 4)}
    assert never_drawn(shards, config) == sum(length < 5 for length in LENGTHS.values())
    seen = {}
    for streaming in (False, True):
        plan = training_plan(shards, replace(config, streaming=streaming))
        plans = [plan_clip(draw, shards.videos, config, donors=range(9)) for step in range(len(windows))
                 for draw in plan.batch(step)]
        frames = [(plan.clip.video.video_id, plan.clip.frames[0]) for plan in plans]
        assert len(frames) == len(windows)
        assert set(frames) == windows
        assert all(plan.clip.frames == tuple(range(plan.clip.frames[0], plan.clip.frames[0] + 5, 2)) for plan in plans)
        seen[streaming] = {plan.draw.video << 20 | plan.draw.repeat: plan.clip for plan in plans}
    assert seen[False] == seen[True]
    repeated = training_plan(shards, replace(config, samples_per_video=2))
    assert repeated.samples == 2 * len(windows)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_set_of_fewer_videos_than_a_batch_has_clips_fills_it(shards, streaming):
    few = ShardSet(shards.folder)
    few.videos = few.videos.chosen((few.videos.shards == 0) & (np.arange(len(few.videos)) < 2))
    batch = next(training_batches(few, replace(CONFIG, batch_size=5, workers=0, streaming=streaming)))
    assert len(batch.videos) == 5
    assert set(batch.videos) == {video.video_id for video in few.videos}


def test_videos_without_an_object_may_be_left_out(tmp_path, shards):
    folder = shutil.copytree(shards.folder, tmp_path / "shards")
    change_rows(folder, lambda rows: [row | ({"segments": []} if row["video_id"] in ("b.mov", "e") else {})
                                      for row in rows])
    some = ShardSet(folder)
    config = replace(CONFIG, drop_empty=True, batch_size=1)
    plan = training_plan(some, config)
    assert {draw.video for step in range(14) for draw in plan.batch(step)} == {0, 2, 3, 5, 6, 7, 8}
    assert plan.samples == 7
    assert never_drawn(some, config) == 2
    assert never_drawn(some, CONFIG) == 0
    with pytest.raises(ValueError, match=r"no video in .* stage_one\.input\.frame_stride"):
        training_plan(some, replace(config, sampling="windows", clip_frames=11))


@pytest.mark.parametrize(("sampling", "drop_empty"), [("videos", False), ("windows", False), ("windows", True)])
@pytest.mark.parametrize("stride", [1, 3])
def test_the_clips_of_an_epoch_are_counted_as_video_by_video(shards, sampling, drop_empty, stride):
    config = replace(CONFIG, sampling=sampling, drop_empty=drop_empty, frame_stride=stride, samples_per_video=2)
    expected = [2 * (1 if sampling == "videos" else max(len(video.frames) - stride, 0)) * bool(video.segments)
                for video in shards.videos]
    assert clips_per_epoch(shards.videos, config).tolist() == expected


def test_stills_of_other_classes_or_for_streaming_are_refused(tmp_path, shards):
    stills = mix(tmp_path, shards)
    with pytest.raises(ValueError, match=r"read by index; set stage_one\.input\.streaming=false"):
        training_batches(shards, replace(MIXED, streaming=True), stills=stills)
    with pytest.raises(ValueError, match=r"stage_one\.input has sampling=windows"):
        training_batches(shards, replace(MIXED, sampling="windows"), stills=stills)
    stills.shards.classes = ClassTable.numbered(3)
    with pytest.raises(ValueError, match="have the classes of numbered, the videos"):
        training_batches(shards, MIXED, stills=stills)


def test_two_epochs_show_a_video_differently(shards):
    config = replace(CONFIG, batch_size=3)
    first, second = (clips(batches(shards, config, steps=3, consumed=9 * epoch)) for epoch in range(2))
    second = {clip["video"]: clip["frames"] for clip in second}
    assert all(not torch.equal(clip["frames"], second[clip["video"]]) for clip in first)


def test_copy_paste_adds_tracks_that_are_new_in_the_video(shards):
    plain = clips(batches(shards, replace(CONFIG, copy_paste=None), steps=6))
    pasted = clips(batches(shards, replace(CONFIG, copy_paste=CopyPasteConfig(scale=1.0)), steps=6))
    assert all(clip["track_ids"].max() <= 5 for clip in plain if len(clip["track_ids"]))
    assert any((clip["track_ids"] > 5).any() for clip in pasted)
    assert any(not torch.equal(one["frames"], other["frames"]) for one, other in zip(plain, pasted))


def test_closing_ends_the_loader_processes(shards):
    before = set(multiprocessing.active_children())
    iterator = training_batches(shards, replace(CONFIG, workers=2))
    next(iterator)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    iterator.close()
    for process in started:
        process.join(timeout=10)
    assert not set(multiprocessing.active_children()) & started


def test_a_batch_stays_as_it_was_while_its_memory_is_written_again(shards):
    """Two workers with one batch ahead each share three slots of memory for nine batches."""
    kept = batches(shards, replace(CONFIG, workers=2, prefetch=1), steps=9)
    assert_same_clips(kept, batches(shards, CONFIG, steps=9))


def test_a_loader_can_be_sent_to_a_spawned_process(shards):
    loader = IndexedClips([shards], BatchSlots(CONFIG, share=4))
    copy = pickle.loads(pickle.dumps(loader))
    draws = training_plan(shards, CONFIG).batch(0)
    frames = [one.slots.take(one[0, draws]).frames for one in (loader, copy)]
    assert torch.equal(*frames)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_frame_stops_the_run_and_names_the_video(tmp_path, streaming, workers):
    shards = write_shards(tmp_path, {"good": 2, "bad": 2}, min_shards=1)
    bad = next(video for video in shards.videos if video.video_id == "bad")
    with open(shards.folder / shards.manifest["shards"][0]["name"], "r+b") as tar:
        tar.seek(bad.frames[1].image[0])
        tar.write(bytes(100))
    config = replace(CONFIG, copy_paste=None, batch_size=2, streaming=streaming, workers=workers)
    with pytest.raises(BadInput, match=r"video 'bad'.*frame '00003'") as raised:
        batches(shards, config, steps=1)
    assert raised.value.reason == "corrupt-image"


def test_a_command_may_fetch_the_shards(shards):
    config = replace(CONFIG, streaming=True, workers=2)
    piped = replace(config, stream_from=f"pipe:cat '{shards.folder}/{{shard}}'")
    assert_same_clips(batches(shards, piped, steps=6), batches(shards, config, steps=6))
    with pytest.raises(BadInput, match=r"pipe:false.*cannot stream"):
        batches(shards, replace(config, stream_from="pipe:false {shard}"), steps=1)


def test_manifest_and_index_are_enough_where_the_tars_are_streamed_from_elsewhere(tmp_path, shards):
    shutil.copytree(shards.folder, tmp_path / "here", ignore=shutil.ignore_patterns("*.tar"))
    config = replace(CONFIG, streaming=True, workers=2)
    elsewhere = replace(config, stream_from=f"pipe:cat '{shards.folder}/{{shard}}'")
    here = ShardSet(tmp_path / "here", tars_here=False)
    assert_same_clips(batches(here, elsewhere, steps=6), batches(shards, config, steps=6))
    with pytest.raises(FileNotFoundError, match="is not on this machine"):
        batches(here, CONFIG, steps=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cut_shard_is_refused_while_streaming(tmp_path, shards, workers):
    for path in shards.folder.glob("*.tar"):
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[:len(content) // 2 // 512 * 512 - 100])
    config = replace(CONFIG, streaming=True, stream_from=str(tmp_path), workers=workers)
    with pytest.raises(BadInput, match=r"train-00000\d\.tar") as raised:
        batches(shards, config, steps=4)
    assert raised.value.reason == "damaged-shard"


def test_a_shard_without_its_members_is_refused_while_streaming(tmp_path, shards):
    other = write_shards(tmp_path, {name * 2: length for name, length in LENGTHS.items()})
    config = replace(CONFIG, streaming=True, stream_from=f"{other.folder}/")
    with pytest.raises(BadInput, match=r"lacks \d+ members"):
        batches(shards, config, steps=1)


def test_sets_without_labels_are_refused_before_anything_is_read(tmp_path):
    data = toy_videos(tmp_path / "videos", {"a": 2}, masks=True)
    video = data.read("a")
    unlabelled = replace(video, segments=(), frames=tuple(replace(frame, masks=None) for frame in video.frames))
    make_shards(Described(data, unlabelled), tmp_path / "shards", split="train")
    with pytest.raises(ValueError, match=r"none of the 1 videos .* has labels"):
        training_batches(ShardSet(tmp_path / "shards"), replace(CONFIG, batch_size=1))


@pytest.mark.parametrize("streaming", [False, True])
def test_masks_that_overlap_are_trained_on_as_they_are(tmp_path, streaming):
    """A pixel is in exactly the masks of the data set after any transform; all toy objects share the top row."""
    shards = write_shards(tmp_path, {"a": 2, "b": 2, "c": 2}, min_shards=1, masks=True, height=33, width=49)
    still = AugmentConfig(size=(33, 49), scale=(1, 1), flip=0, reverse=0, color=False)
    config = replace(CONFIG, augment=still, batch_size=3, streaming=streaming, copy_paste=None)
    for clip in clips(batches(shards, config, steps=2)):
        assert clip["track_ids"].tolist() == [1, 2, 3]      # grass is one target, the dog is crowd
        assert clip["masks"][:, :, 0].all()
        ids = np.stack([toy_map(clip["video"], frame, 33, 49)[::4, ::4] for frame in range(2)])
        for mask, members in zip(clip["masks"].numpy(), ([7, 16_000_000], [300], [70_000])):
            assert_array_equal(mask[:, 1:], np.isin(ids, members)[:, 1:])
        assert torch.equal(clip["void"], ~clip["masks"].any(0))
    highest = shards.videos[0].highest_id
    for clip in clips(batches(shards, replace(config, copy_paste=CopyPasteConfig(scale=1.0)), steps=2)):
        came = clip["track_ids"] > highest
        assert {2, 3} <= set((clip["track_ids"][came] - highest).tolist())      # both cows of the donor
        assert clip["masks"][came][:, :, 0].all()       # they share their top row here too


def test_officially_a_pasted_thing_replaces_the_clips_own_of_the_same_id(shards):
    """All toy videos use the same ids for their cows (2 and 3 of five), as VIPSeg's videos share base colours."""
    both = {False: 0, True: 0}
    for official_compat in both:
        config = replace(CONFIG, copy_paste=CopyPasteConfig(scale=1.0), official_compat=official_compat)
        for clip in clips(batches(shards, config, steps=8)):
            ids = set(clip["track_ids"].tolist())
            assert ids & {7, 8}     # cows of the donor
            both[official_compat] += sum({own, own + 5} <= ids for own in (2, 3))
    assert both[False] > 10
    assert both[True] == 0


@pytest.mark.parametrize(("wrong", "message"), [
    ({"batch_size": 0}, "input.batch_size"), ({"workers": -1}, "input.workers"), ({"clip_frames": 0}, "clip_frames"),
    ({"jitter_stills": True, "pseudo_video": PseudoVideoConfig()}, "input.jitter_stills"),
    ({"reach": -1}, "input.reach"), ({"frame_stride": 0}, "frame_stride"),
    ({"reach": 2, "sampling": "windows"}, r"input\.reach=2 .* stage_one\.input\.sampling=videos"),
    ({"stream_from": "s3://bucket"}, "stream_from")])
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


def test_more_ranks_than_clips_are_refused_at_once(shards):
    with pytest.raises(ValueError, match="5 ranks"):
        training_batches(shards, CONFIG, world=5)


def test_donors_are_all_other_videos_and_never_the_video_itself(shards):
    videos = shards.videos
    everyone = range(len(shards.videos))
    draws = [Draw(position=0, epoch=epoch, video=video) for video in everyone for epoch in range(120)]
    pairs = {(draw.video, plan_clip(draw, videos, CONFIG, donors=everyone).donor.video.index) for draw in draws}
    assert pairs == {(video, donor) for video in everyone for donor in everyone if video != donor}
    alone = plan_clip(Draw(position=0, epoch=0, video=3), videos, CONFIG, donors=range(3, 4))
    assert alone.donor.video.index == 3
