"""Tracks of parts that overlap go on where their masks do."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from model.association.track_links import PartsConfig, TrackLinks
from model.contracts import Track

WIDTH = 12


def bar(start: int | None, stop: int = 0) -> dict | None:
    """A mask of one row that covers the pixels from start to stop; None: absent."""
    if start is None:
        return None
    mask = np.zeros((1, WIDTH), np.uint8, order="F")
    mask[0, start:stop] = 1
    return run_lengths.encode(mask)


def track(*bars: tuple[int, int] | None, label: int = 0, score: float = 0.5) -> Track:
    return Track(class_index=label, masks=tuple(bar(*(ends or (None,))) for ends in bars), score=score)


def joined(*parts: list[Track], pairs: str = "greedy", shared: int = 1, most: int = 10) -> list[tuple[list, float]]:
    """The pixels that each track covers in every frame, and its score."""
    links = TrackLinks(pairs)
    for number, tracks in enumerate(parts):
        links.add(tracks, frames=3, shared=shared if number else 0)
    covered = lambda mask: [] if mask is None else np.flatnonzero(run_lengths.decode(mask)).tolist()  # noqa: E731
    return [([covered(mask) for mask in track.masks], track.score) for track in links.finish(most=most)]


def test_a_track_goes_on_where_its_masks_overlap_and_its_score_is_the_mean_over_its_frames():
    first = [track((0, 2), (0, 2), (0, 2), score=0.9), track((6, 8), (6, 8), (6, 8), score=0.1)]
    second = [track((6, 8), (7, 9), (8, 10), score=0.5), track((0, 2), (0, 1), None, score=0.4)]
    (one, other) = joined(first, second)
    assert one == ([[0, 1], [0, 1], [0, 1], [0], []], pytest.approx((3 * 0.9 + 2 * 0.4) / 5))
    assert other == ([[6, 7], [6, 7], [6, 7], [7, 8], [8, 9]], pytest.approx((3 * 0.1 + 2 * 0.5) / 5))


def test_a_track_that_the_shared_frame_does_not_show_ends_and_what_returns_is_new():
    gone = track((0, 2), (0, 2), None, score=0.9)
    back = track(None, (0, 2), (0, 2), score=0.8)
    assert joined([gone], [back]) == [([[0, 1], [0, 1], [], [], []], 0.9), ([[], [], [], [0, 1], [0, 1]], 0.8)]


def test_tracks_of_two_classes_are_never_joined():
    still = [(0, 2)] * 3
    assert len(joined([track(*still)], [track(*still, label=1)])) == 2
    assert len(joined([track(*still)], [track(*still)])) == 1


def test_greedy_takes_the_best_pair_first_and_hungarian_the_largest_sum():
    """Wide overlaps the nearer one best, and then the other new track has no partner left that it overlaps."""
    first = [track((0, 8), (0, 8), (0, 8), score=0.9), track((7, 9), (7, 9), (7, 9), score=0.8)]
    second = [track((2, 9), (2, 9), (2, 9), score=0.7), track((0, 4), (0, 4), (0, 4), score=0.6)]
    assert len(joined(first, second, pairs="greedy")) == 3
    assert len(joined(first, second, pairs="hungarian")) == 2


def test_parts_share_several_frames_and_the_best_tracks_are_kept():
    first = [track((0, 2), (0, 2), (0, 2), score=0.9), track((6, 8), (6, 8), (6, 8), score=0.1)]
    assert joined(first, first, shared=2, most=1) == [([[0, 1]] * 4, pytest.approx(0.9))]


def test_parts_that_cannot_be_linked_are_refused():
    for values in ({"clips": 1}, {"clips": 4, "shared": 0}, {"clips": 4, "shared": 4}):
        with pytest.raises(ValueError, match="two parts share"):
            PartsConfig(**values)
    with pytest.raises(ValueError, match="greedy"):
        PartsConfig(clips=4, pairs="random")
