"""An augmented view is one draw for a whole video: one transform, one donor, clips from any frame on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model.contracts import VideoQueries
from pipeline.clips import AugmentConfig
from pipeline.images import decode_jpeg
from pipeline.query_cache.evidence_recorder import EvidenceRecorder
from pipeline.query_cache.pixel_evidence import EvidenceConfig
from pipeline.query_cache.views import View, ViewClip, ViewConfig, ViewReader, draw_start, draw_view
from pipeline.shards import ShardConfig, ShardSet, StoredVideo, make_shards
from pipeline.shards.format import StoredFrame
from pipeline.training_input import CopyPasteConfig, at_stride_4, read_frames
from tests.pipeline.shards.index_files import HeldVideos
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos

AUGMENT = AugmentConfig(size=(65, 97), reverse=0.0)
PASTING = ViewConfig(augment=AUGMENT, copy_paste=CopyPasteConfig())
DRAWS = 2000


@pytest.fixture(scope="module", params=[False, True], ids=["panoptic", "overlapping"])
def shards(request, tmp_path_factory) -> ShardSet:
    folder = tmp_path_factory.mktemp("set")
    data = toy_videos(folder / "videos", {"a": 5, "b": 3, "c": 8}, masks=request.param)
    make_shards(data, folder / "shards", ShardConfig(clip_frames=2), split="train")
    return ShardSet(folder / "shards")


def reader_of(shards: ShardSet, view: View, *, clip_frames: int = 2) -> ViewReader:
    return ViewReader(view, partial(read_frames, shards), shards.classes, np.random.default_rng(7),
                      clip_frames=clip_frames)


def drawn(shards: ShardSet, config: ViewConfig, *, video: int = 0, seed: int = 0, clip_frames: int = 2) -> View:
    return draw_view(np.random.default_rng(seed), shards.videos[video], shards.videos, config, clip_frames=clip_frames)


def every_frame(clips: list[ViewClip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, real pixels and ids of a view without repeats."""
    return tuple(np.concatenate([np.asarray(part)[:clip.valid] for clip, part in parts]) for parts in (
        [(clip, clip.frames[0]) for clip in clips], [(clip, clip.real_pixels[0]) for clip in clips],
        [(clip, clip.ids) for clip in clips]))


def test_without_a_donor_every_frame_has_the_same_transform(shards):
    view = drawn(shards, ViewConfig(augment=AUGMENT), seed=3)
    clips = list(reader_of(shards, view).clips())
    assert [(clip.start, clip.valid) for clip in clips] == [(0, 2), (2, 2), (4, 1)]
    frames, real, ids = every_frame(clips)
    transform = view.clip.transforms[0]
    for frame, (jpeg, _) in enumerate(shards.read(shards.videos[0], 0, 5)):
        assert_array_equal(frames[frame], transform.image(decode_jpeg(jpeg)))
        assert_array_equal(ids[frame], at_stride_4(transform.ids(shards.ids(shards.videos[0], frame))))
    assert real.sum() == 5 * np.prod(transform.resized)
    assert torch.equal(clips[2].frames[0, 0], clips[2].frames[0, 1])


OWN_SIZE = AugmentConfig(size=None, pad_to=32, short_side=(30, 50), scale=(1.0, 1.0), reverse=1.0)


@pytest.mark.parametrize("video", [0, 1])
@pytest.mark.parametrize("augment", [AUGMENT, OWN_SIZE], ids=["one size", "own size"])
def test_pasted_pixels_are_the_donor_s_and_the_others_stay(shards, video, augment):
    """The donor is longer than the one video and shorter than the other."""
    for seed in range(8):
        view = drawn(shards, replace(PASTING, augment=augment), video=video, seed=seed)
        reader = reader_of(shards, view)
        frames, real, ids = every_frame(list(reader.clips()))
        plain, plain_real, plain_ids = every_frame(list(reader_of(shards, replace(view, donor=None)).clips()))
        highest = shards.videos[video].highest_id
        donor = view.donor.video
        assert donor is not shards.videos[video]
        for position, (frame, transform) in enumerate(zip(view.donor.frames, view.donor.transforms)):
            source = transform.ids(shards.ids(donor, frame)).astype(int)
            (jpeg, _), = shards.read(donor, frame, frame + 1)
            image = transform.image(decode_jpeg(jpeg))
            room = [(0, side - own) for side, own in zip(plain.shape[-2:], source.shape)]   # on the canvas of the view
            source = np.pad(source, room)
            mask = np.isin(source, np.flatnonzero(reader.new_ids))
            assert_array_equal(frames[position], np.where(mask, np.pad(image, [(0, 0), *room]), plain[position]))
            assert_array_equal(real[position], plain_real[position] | mask)
            assert_array_equal(ids[position], np.where(at_stride_4(mask), highest + at_stride_4(source),
                                                       plain_ids[position]))
        assert mask.any()


def test_a_view_does_not_depend_on_the_length_of_the_clips_in_which_it_is_read(shards):
    view = drawn(shards, PASTING, video=2)
    twos = reader_of(shards, view)
    threes = reader_of(shards, view, clip_frames=3)
    assert twos.segments == threes.segments
    for a, b in zip(every_frame(list(twos.clips())), every_frame(list(threes.clips())), strict=True):
        assert_array_equal(a, b)


def test_pasted_objects_are_targets_with_evidence_and_tracks_of_their_own(shards):
    video = shards.videos[0]
    reader = reader_of(shards, drawn(shards, PASTING))
    recorder = EvidenceRecorder(video, shards.classes, view=1, config=EvidenceConfig(pixels=200), seed=0,
                                segments=reader.segments, overlaps=reader.overlaps)
    clips = list(reader.clips())
    for clip in clips:
        recorder.add(clip.ids, torch.zeros(4, *clip.ids.shape), start=clip.start, valid=clip.valid)
    empty = torch.zeros(1, len(clips), 3, 4)
    rows = list(recorder.clips(VideoQueries(queries=empty, mask_embeddings=empty, class_logits=empty)))
    pasted = [segment for segment in reader.segments if segment.id > video.highest_id]
    things = {segment.id for segment in pasted if shards.classes.is_thing[segment.class_index]}
    assert len(things) == 2                                                   # the donor's cows; its dog is crowd
    assert things <= set(rows[0].tube_ids.tolist())
    assert {tuple(row.tube_ids.tolist()) for row in rows} == {tuple(rows[0].tube_ids.tolist())}
    for tube, track in enumerate(rows[0].tube_ids.tolist()):
        if track in things:
            assert sum(row.tube_areas[tube] for row in rows) > 0
            for row, clip in zip(rows, clips):
                sharing = [-2 - index for index, members in enumerate(row.tube_overlaps) if tube in members]
                weight = row.pixel_weights[np.isin(row.pixel_tubes, [tube, *sharing])].sum()
                assert weight == pytest.approx(row.tube_areas[tube])
                owned = [id for id in np.unique(clip.ids) if track in reader.overlaps.get(id, (id,))]
                assert row.tube_areas[tube] == np.isin(clip.ids[:clip.valid], owned).sum()
    stuff = [kind for kind in rows[0].tube_classes.tolist() if not shards.classes.is_thing[kind]]
    assert len(stuff) == len(set(stuff))                                      # pasted grass joins the video's own


def test_clips_are_cut_from_a_drawn_frame_on(shards):
    config = ViewConfig(augment=AUGMENT, window_frames=4)
    starts = set()
    for seed in range(20):
        view = drawn(shards, config, video=2, seed=seed, clip_frames=3)
        clips = list(reader_of(shards, view, clip_frames=3).clips())
        starts.add(view.clip.frames[0])
        assert [clip.start for clip in clips] == list(range(view.clip.frames[0], 8, 3))
        frames, _, _ = every_frame(clips)
        for frame, (jpeg, _) in zip(frames, shards.read(shards.videos[2], view.clip.frames[0], 8), strict=True):
            assert_array_equal(frame, view.clip.transforms[0].image(decode_jpeg(jpeg)))
    assert starts == {0, 1, 2}


# --- 2000 draws against the official rule ---------------------------------------------------------------------------

def videos(*lengths: int) -> HeldVideos:
    return HeldVideos(
        StoredVideo(index=index, video_id=str(index), shard=0, height=720, width=1280, segments=(), source_ids=(),
                    frames=tuple(StoredFrame(name=f"{frame}", image=(0, 0), label=(0, 0)) for frame in range(length)))
        for index, length in enumerate(lengths))


def close(hits: np.ndarray, probability: float) -> bool:
    """Whether a share of 2000 draws is within four standard deviations of what the rule says."""
    return abs(hits.mean() - probability) <= 4 * (probability * (1 - probability) / len(hits)) ** 0.5


OFFICIAL = ViewConfig(augment=AugmentConfig(size=(769, 1345), scale=(0.3, 1.7), reverse=0.0, color_per_frame=True),
                      copy_paste=CopyPasteConfig(reverse=0.5), window_frames=24)


@pytest.fixture(scope="module")
def views() -> list[View]:
    """VIPSeg's frame size; the first video has 30 frames, of which a window takes 24."""
    pool = videos(30, 24, 10, 60, 31)
    rng = np.random.default_rng(0)
    return [draw_view(rng, pool[0], pool, OFFICIAL, clip_frames=2) for _ in range(DRAWS)]


@pytest.mark.parametrize(("length", "clip_frames"), [(30, 2), (25, 2), (24, 2), (31, 3), (10, 2)])
def test_every_first_frame_of_a_window_is_equally_likely(length, clip_frames):
    """Official: uniform among the frames from which a window fits (the last one is left out there by a slip)."""
    rng = np.random.default_rng(1)
    starts = []
    for _ in range(DRAWS):
        first = draw_start(rng, length, 24) % clip_frames
        clips = (length - first) // clip_frames
        starts.append(first + clip_frames * int(rng.integers(max(clips - 24 // clip_frames, 0) + 1)))
    possible = range(max(length - 24, 0) + 1)
    assert set(starts) == set(possible)
    assert all(close(np.array(starts) == start, 1 / len(possible)) for start in possible)


def test_scales_crops_and_flips_are_those_of_the_released_mapper(views):
    """One scale of 0.3-1.7 of the largest fit for the video, 0.15-0.85 for the donor; flips of one half."""
    for part, low, high in (("clip", 0.3, 1.7), ("donor", 0.15, 0.85)):
        transforms = [getattr(view, part).transforms for view in views]
        assert all(len({replace(transform, color=None) for transform in own}) == 1 for own in transforms)
        first = [own[0] for own in transforms]
        assert close(np.array([transform.flip for transform in first]), 0.5)
        scale = np.array([transform.resized[0] / (transform.box[2] - transform.box[0]) for transform in first])
        scale /= 1345 / 1280
        assert abs(scale.mean() - (low + high) / 2) < 4 * (high - low) / 12 ** 0.5 / DRAWS ** 0.5 + 0.001
        middle = (low + high) / 2
        assert close(scale < (low + middle) / 2, 0.25)
        assert close(scale > (high + middle) / 2, 0.25)
        cropped = np.array([transform.box != (0, 0, 720, 1280) for transform in first])
        assert close(cropped, max(high - 1, 0) / (high - low))


def test_every_frame_of_view_and_donor_has_colours_of_its_own(views):
    """Official: each of four changes with probability one half, drawn for each frame of the clip and of the donor."""
    for part in ("clip", "donor"):
        frames = [getattr(view, part).transforms for view in views]
        for position in (0, 1, 20):
            colors = [transforms[position].color for transforms in frames]
            assert close(np.array([color is None for color in colors]), 1 / 16)
            assert close(np.array([color is not None and color.hue != 0 for color in colors]), 1 / 2)
        assert close(np.array([transforms[0].color == transforms[1].color for transforms in frames]), 1 / 256)


def test_donors_are_other_videos_each_equally_often_in_either_direction(views):
    """Official: any video of the set, even the same one; a window of equal length, reversed by half for ResNet-50."""
    assert all(view.donor is not None for view in views)
    donors = np.array([view.donor.video.index for view in views])
    assert all(close(donors == index, 1 / 4) for index in (1, 2, 3, 4))
    assert all(len(view.donor.frames) == len(view.clip.frames) for view in views)
    backwards = np.array([view.donor.frames[0] > view.donor.frames[-1] for view in views])
    assert close(backwards, 0.5)
    first = np.array([min(view.donor.frames) for view in views if view.donor.video.index == 3
                      and view.clip.frames[0] == 0])
    assert first.min() == 0
    assert first.max() == 60 - 30
    assert abs(first.mean() - 15) < 4 * 31 / 12 ** 0.5 / len(first) ** 0.5


def test_only_some_views_have_a_donor_at_a_lower_probability():
    pool = videos(24, 24, 24)
    rng = np.random.default_rng(2)
    config = replace(OFFICIAL, copy_paste=CopyPasteConfig(probability=0.3))
    assert close(np.array([draw_view(rng, pool[0], pool, config, clip_frames=2).donor is not None
                           for _ in range(DRAWS)]), 0.3)


def test_frames_without_a_label_are_void_even_where_something_was_pasted(tmp_path):
    """Donors are the videos with labels; their windows hold a labelled frame, and areas count labelled frames alone."""
    data = Sparse(toy_videos(tmp_path / "videos", {"a": 6, "b": 3, "c": 8}).root, {"a": 6, "b": 3, "c": 8})
    make_shards(data, tmp_path / "shards", ShardConfig(clip_frames=2), split="train")
    shards = ShardSet(tmp_path / "shards")
    assert [video.labelled for video in shards.videos] == [(0, 4), (), (0, 4)]
    pasted = 0
    for seed in range(6):
        view = drawn(shards, PASTING, seed=seed)
        assert view.donor.video.video_id == "c"
        assert {0, 4} & set(view.donor.frames)
        reader = reader_of(shards, view)
        recorder = EvidenceRecorder(view.clip.video, shards.classes, view=1, config=EvidenceConfig(pixels=64), seed=0,
                                    segments=reader.segments, overlaps=reader.overlaps)
        for clip in reader.clips():
            known = np.isin(clip.start + np.arange(2), [0, 4])
            assert not clip.ids[~known].any()
            assert clip.ids[known].any(axis=(1, 2)).all()
            pasted += (clip.ids > view.clip.video.highest_id).any()
            recorder.add(clip.ids, torch.zeros(3, *clip.ids.shape), start=clip.start, valid=clip.valid)
            row = recorder.rows[-1]
            assert set(clip.start + row["pixel_positions"][row["pixel_weights"] > 0][:, 0]) <= {0, 4}
            for tube, area in enumerate(row["tube_areas"]):
                assert row["pixel_weights"][row["pixel_tubes"] == tube].sum() == area
    assert pasted


class Sparse(ToyVideos):
    """Every fourth frame has a label, but none of the video `b`."""

    def _frame(self, video_id: str, frame: int):
        record = super()._frame(video_id, frame)
        return record if frame % 4 == 0 and video_id != "b" else replace(record, label=None, segment_ids=())
