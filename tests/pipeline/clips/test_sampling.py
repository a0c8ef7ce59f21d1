"""Clips consist of consecutive frames of one video."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips.sampling import count_windows, neighbours, sample_around, sample_clip, split_clips, tube_lengths


def drawn(num_frames: int, clip_frames: int, **options) -> set[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return {sample_clip(num_frames, clip_frames, rng, **options) for _ in range(300)}


def test_every_clip_is_drawn_but_officially_not_the_last():
    windows = {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert drawn(5, 2) == windows
    assert drawn(5, 2, official_compat=True) == windows - {(3, 4)}


def test_frames_of_a_clip_may_be_some_steps_apart():
    assert drawn(8, 4, stride=2) == {(0, 2, 4, 6), (1, 3, 5, 7)}
    assert drawn(8, 3, stride=3, start=1) == {(1, 4, 7)}
    assert drawn(4, 3, stride=3) == {(0, 3, 3)}
    assert [count_windows(8, 4, stride=stride) for stride in (1, 2, 3)] == [5, 2, 0]


@pytest.mark.parametrize("official_compat", [False, True])
def test_a_short_video_gives_all_frames_and_repeats_the_last(official_compat):
    assert drawn(2, 4, official_compat=official_compat) == {(0, 1, 1, 1)}
    assert drawn(4, 4, official_compat=official_compat) == {(0, 1, 2, 3)}


def test_time_runs_backwards_with_the_given_probability():
    assert drawn(3, 2, reverse=1.0) == {(1, 0), (2, 1)}
    rng = np.random.default_rng(1)
    backwards = sum(first > second for first, second in (sample_clip(9, 2, rng, reverse=0.5) for _ in range(2000)))
    assert 900 < backwards < 1100


@given(num_frames=st.integers(1, 40), clip_frames=st.integers(1, 8), reach=st.integers(1, 50), seed=st.integers(0, 9))
def test_frames_around_one_of_them_are_in_order_of_time_and_no_further_away(num_frames, clip_frames, reach, seed):
    frames = sample_around(num_frames, clip_frames, np.random.default_rng(seed), reach=reach)
    assert len(frames) == clip_frames
    assert list(frames) == sorted(frames)
    assert 0 <= frames[0] <= frames[-1] < num_frames
    assert any(all(abs(frame - middle) <= reach for frame in frames) for middle in frames)
    backwards = sample_around(num_frames, clip_frames, np.random.default_rng(seed), reach=reach, reverse=1.0)
    assert backwards == frames[::-1]


def test_every_frame_around_is_drawn_and_may_occur_twice_but_the_middle_once():
    rng = np.random.default_rng(0)
    clips = [sample_around(9, 3, rng, reach=2) for _ in range(2000)]
    distances = Counter(frame - clip[0] for clip in clips for frame in clip[1:])
    assert distances.keys() == set(range(5))
    assert any(len(set(clip)) == 2 for clip in clips)
    assert all(len(set(clip)) > 1 for clip in clips)
    assert sample_around(1, 3, rng, reach=2) == (0, 0, 0)


@given(frames=st.lists(st.integers(0, 30), min_size=1))
def test_runs_of_neighbours_hold_the_frames_and_no_other(frames):
    runs = neighbours(frames)
    assert [frame for run in runs for frame in range(*run)] == sorted(set(frames))
    assert all(stop < start for (_, stop), (start, _) in pairwise(runs))


@given(num_frames=st.integers(1, 40), clip_frames=st.integers(1, 8))
def test_test_clips_hold_every_frame_once(num_frames, clip_frames):
    clips = split_clips(num_frames, clip_frames)
    assert [frame for indices, valid in clips for frame in indices[:valid]] == list(range(num_frames))
    assert all(len(indices) == clip_frames and set(indices[valid:]) <= {num_frames - 1} for indices, valid in clips)


@given(num_frames=st.integers(1, 40), clip_frames=st.integers(1, 8), data=st.data())
def test_overlapping_test_clips_begin_where_the_one_before_ends_and_bring_new_frames(num_frames, clip_frames, data):
    overlap = data.draw(st.integers(0, clip_frames - 1))
    clips = split_clips(num_frames, clip_frames, overlap=overlap)
    frames = list(clips[0][0][:clips[0][1]])
    for indices, valid in clips[1:]:
        assert indices[:overlap] == tuple(frames[len(frames) - overlap:])
        assert valid > overlap
        frames += indices[overlap:valid]
    assert frames == list(range(num_frames))


def test_clips_without_a_new_frame_are_refused():
    with pytest.raises(ValueError, match=r"clips of 1 frames cannot overlap by 1; choose 0 \.\.\. 0"):
        split_clips(5, 1, overlap=1)


@given(num_frames=st.integers(1, 300), interval=st.integers(1, 12))
def test_tubes_hold_every_frame_once_and_are_as_few_and_as_long_as_possible(num_frames, interval):
    lengths = tube_lengths(num_frames, interval)
    assert sum(lengths) == num_frames
    assert len(lengths) == -(-num_frames // interval)
    assert min(lengths) >= 1
    assert max(lengths) <= interval
    assert list(lengths) == sorted(lengths, reverse=True)


@pytest.mark.parametrize(("num_frames", "interval", "lengths"), [
    (8, 4, (4, 4)), (7, 4, (4, 3)), (17, 4, (4, 4, 3, 3, 3)), (22, 4, (4, 4, 4, 4, 3, 3)),
    (5, 4, (4, 1)), (6, 4, (4, 2)), (9, 6, (6, 3)), (13, 6, (6, 6, 1)), (3, 6, (3,)), (1, 1, (1,)),
], ids=str)
def test_the_surplus_is_taken_one_frame_each_from_the_last_tubes_or_all_from_the_last(num_frames, interval, lengths):
    assert tube_lengths(num_frames, interval) == lengths


def test_videos_without_frames_are_not_cut():
    with pytest.raises(ValueError, match="0 frames cannot be cut"):
        tube_lengths(0, 4)
