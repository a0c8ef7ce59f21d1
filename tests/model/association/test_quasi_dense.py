"""Segments are matched to tracks by embedding; each test covers a law or a threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.association.quasi_dense import QuasiDenseConfig, QuasiDenseTracker, two_way_softmax

DIM = 6


def embeddings_of(*objects: int) -> torch.Tensor:
    """Embeddings of clearly different objects."""
    return 5 * torch.eye(DIM)[list(objects)]


class Video:
    """A tracker with defaults for everything that a test does not set."""

    def __init__(self, **config) -> None:
        self.tracker = QuasiDenseTracker(QuasiDenseConfig(**config))
        self.frame = 0

    def step(self, embeddings, *, scores=None, overlaps=None, frames=2) -> list[int]:
        count = len(embeddings)
        scores = torch.full((count,), 0.9) if scores is None else torch.tensor(scores)
        tracks = self.tracker.step(embeddings, scores=scores, frame=self.frame,
                                   overlaps=np.eye(count) if overlaps is None else np.array(overlaps))
        self.frame += frames
        return tracks.tolist()


def test_similarity_is_the_mean_of_both_softmaxes():
    new = torch.randn(3, DIM)
    known = torch.randn(4, DIM)
    plain = torch.zeros(3, 4)
    for x in range(3):
        for y in range(4):
            dot = torch.exp(new[x] @ known[y])
            plain[x, y] = (dot / sum(torch.exp(new[x] @ k) for k in known)
                           + dot / sum(torch.exp(n @ known[y]) for n in new)) / 2
    assert_close(two_way_softmax(new, known), plain)


def test_any_permutation_is_undone():
    video = Video()
    order = [3, 0, 2, 1]
    first = video.step(embeddings_of(0, 1, 2, 3))
    assert sorted(first) == [1, 2, 3, 4]
    assert video.step(embeddings_of(*order)) == [first[index] for index in order]


def test_a_newcomer_gets_the_next_track_and_a_known_one_its_own():
    video = Video()
    one, two = video.step(embeddings_of(0, 1))
    assert video.step(embeddings_of(1, 4, 0)) == [two, 3, one]


def test_a_track_is_given_once_to_the_segment_with_the_best_score():
    video = Video()
    known, = video.step(embeddings_of(0))
    twins = torch.cat([embeddings_of(0), embeddings_of(0)])
    assert video.step(twins, scores=[0.6, 0.9]) == [2, known]
    official = Video(official_compat=True)
    known, = official.step(embeddings_of(0))
    assert official.step(twins, scores=[0.6, 0.9]) == [known, 2]    # in the given order


@pytest.mark.parametrize(("away", "same"), [(6, True), (8, False)])
def test_a_track_is_forgotten_after_ten_frames(away, same):
    """Last seen at frame 2; the clips between show something else."""
    video = Video()
    video.step(embeddings_of(1))
    known = video.step(embeddings_of(1, 0))[1]
    for _ in range(away // 2):
        video.step(embeddings_of(1))
    video.step(embeddings_of(1))
    assert (video.step(embeddings_of(0))[0] == known) == same


def test_embeddings_move_towards_the_last_segment():
    video = Video(momentum=0.5)
    video.step(embeddings_of(0))
    turned = (embeddings_of(0) + embeddings_of(1)) / 2
    video.step(turned)
    remembered, _ = video.tracker._memory[1]
    assert_close(remembered.float(), (embeddings_of(0) + turned)[0] / 2)


@pytest.mark.parametrize(("score", "starts"), [(0.15, False), (0.3, True)])
def test_the_first_clip_needs_less_to_start_a_track_than_later_ones(score, starts):
    video = Video()
    first = video.step(embeddings_of(0), scores=[score])
    assert (len(video.tracker._memory) == 1) == starts
    assert first == [1]                             # a segment that is not remembered still gets its own track
    video.step(embeddings_of(1))
    remembered = len(video.tracker._memory)
    video.step(embeddings_of(3), scores=[score])
    assert len(video.tracker._memory) == remembered


def test_duplicates_are_left_out_and_get_a_track_of_their_own():
    video = Video()
    same = [[1.0, 0.0, 0.8], [0.0, 1.0, 0.0], [0.8, 0.0, 1.0]]
    tracks = video.step(embeddings_of(0, 1, 2), overlaps=same, scores=[0.7, 0.8, 0.9])
    assert tracks == [3, 2, 1]                      # by score; the first is a duplicate of the last
    assert video.step(embeddings_of(0, 1, 2)) == [4, 2, 1]  # and was not remembered


def test_official_tracks_go_to_the_wrong_segment_after_a_duplicate():
    video = Video(official_compat=True)
    same = [[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert video.step(embeddings_of(0, 1, 2), overlaps=same) == [1, 2, 0]      # correct would be 1, 0, 2


def test_a_backdrop_keeps_a_similar_segment_from_taking_a_track():
    """A softmax over a single track is 1, so any single segment matches it, unless a backdrop is compared as well."""
    for config, taken in (({"backdrop_clips": 0}, True), ({}, False), ({"official_compat": True}, True)):
        video = Video(**config)
        known, = video.step(embeddings_of(0))
        video.step(embeddings_of(0, 5), scores=[0.9, 0.05])
        assert (video.step(embeddings_of(5), scores=[0.45]) == [known]) == taken


def test_a_segment_that_overlaps_a_better_one_is_not_a_backdrop():
    half = [[1.0, 0.5], [0.5, 1.0]]
    for overlaps, backdrops in ((half, 0), (None, 1)):
        video = Video()
        video.step(embeddings_of(0))
        video.step(embeddings_of(0, 5), scores=[0.9, 0.05], overlaps=overlaps)
        assert len(video.tracker._backdrops[0]) == backdrops


def test_a_thing_with_a_low_score_does_not_continue_a_track():
    video = Video()
    official = Video(official_compat=True)
    for each in (video, official):
        each.step(embeddings_of(0))
    assert video.step(embeddings_of(0), scores=[0.05]) != [1]
    assert official.step(embeddings_of(0), scores=[0.05]) == [1]


def test_a_clip_without_segments_changes_nothing_but_time():
    video = Video()
    video.step(embeddings_of(0))
    assert video.step(embeddings_of()) == []
    assert video.step(embeddings_of(0)) == [1]


def test_nan_and_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"at frame 0 hold NaN"):
        Video().step(embeddings_of(0) * float("nan"))
    for wrong in ({"match": 1.5}, {"memory_frames": 0}):
        with pytest.raises(ValueError, match="tracker\\."):
            replace(QuasiDenseConfig(), **wrong)
