"""Assignment with rejection equals an exhaustive search, and no track is forgotten."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from model.association.clip_wise import ClipWiseConfig, ClipWiseLinker, assign_below
from tests.model.association.scenes import clip, thing


def tracks_of(config, *clips) -> list[list[int]]:
    linker = ClipWiseLinker(config)
    return [linker.step(one).tolist() for one in clips]


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize("limit", [0.0, 0.3, 0.5, 1.0])
def test_the_assignment_is_the_best_of_all_partial_ones(shape, limit):
    costs = np.random.default_rng(4).random(shape)
    rows, columns = shape
    totals = [sum(costs[row, column] - limit for row, column in zip(some, order))
              for size in range(min(shape) + 1) for some in combinations(range(rows), size)
              for order in permutations(range(columns), size)]
    pairs = assign_below(costs, limit=limit)
    assert sum(costs[pair] - limit for pair in pairs) == pytest.approx(min(totals))
    assert all(costs[pair] < limit for pair in pairs)


def test_a_permutation_is_undone_and_classes_are_linked_separately():
    order = np.random.default_rng(0).permutation(4)
    first = clip(*(thing(80 * i, (9 * i, 0), label=i % 2) for i in range(4)))
    second = clip(*(thing(80 * i + 9, (9 * i, 0), label=i % 2) for i in order))
    assert tracks_of(ClipWiseConfig(), first, second) == [[1, 1, 2, 2], [1 + i // 2 for i in order]]


def test_an_embedding_beyond_a_right_angle_starts_a_track_and_no_track_is_forgotten():
    angles = [0, 95, *[95] * 30, 5]
    results = tracks_of(ClipWiseConfig(), *(clip(thing(degrees, (0, 0))) for degrees in angles))
    assert [tracks[0] for tracks in results] == [1, *[2] * 31, 1]
    assert tracks_of(ClipWiseConfig(limit=0.6), *(clip(thing(d, (0, 0))) for d in (0, 95))) == [[1], [1]]


def test_memory_weight_sets_how_long_an_old_embedding_lasts():
    """The embedding turns by 60 degrees per clip."""
    clips = [clip(thing(60 * k, (0, 0))) for k in range(4)]
    assert tracks_of(ClipWiseConfig(), *clips) == [[1]] * 4
    assert tracks_of(ClipWiseConfig(memory_weight=1.0), *clips) == [[1], [1], [2], [2]]


def test_every_pair_of_a_class_counts_as_a_comparison():
    linker = ClipWiseLinker(ClipWiseConfig())
    for one in (clip(thing(0, (0, 0)), thing(90, (9, 0))), clip(thing(0, (0, 0)), thing(0, (9, 0), label=1)), clip()):
        linker.step(one)
    assert linker.matching.summary() == {"average": 2 / 3, "max": 2}


def test_stuff_and_empty_clips_get_no_track():
    assert tracks_of(ClipWiseConfig(), clip(), clip(thing(0, (0, 0), label=2), stuff=[2])) == [[], [0]]


def test_shares_outside_0_to_1_are_refused():
    with pytest.raises(ValueError, match=r"limit=1\.5 .*official"):
        ClipWiseConfig(limit=1.5)
    with pytest.raises(ValueError, match="memory_weight=-1"):
        ClipWiseConfig(memory_weight=-1)
