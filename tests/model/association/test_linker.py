"""The helpers of all linkers: pairing best first, and counting the matching space."""

from __future__ import annotations

import numpy as np
import pytest

from model.association.linker import MatchingSpace, best_first, unit


def test_the_better_pair_goes_first_and_nothing_is_taken_twice():
    scores = np.array([[0.9, 0.8], [0.85, 0.1], [0.2, 0.7]])
    assert best_first(scores, least=0.7) == [(0, 0), (2, 1)]
    assert best_first(scores, least=0.95) == []


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_that_is_best_for_both_is_kept(seed):
    scores = np.random.default_rng(seed).random((5, 7))
    best = {(row, column) for row, column in enumerate(scores.argmax(1)) if scores[:, column].argmax() == row}
    assert best <= set(best_first(scores, least=0))
    assert len(best_first(scores, least=0)) == 5


def test_minus_infinity_and_empty_sides_give_no_pairs():
    assert best_first(np.full((2, 2), -np.inf), least=-1e9) == []
    assert best_first(np.zeros((0, 3)), least=0) == best_first(np.zeros((3, 0)), least=0) == []


def test_counts_of_two_videos_add_up():
    sizes = [[3, 0, 5], [7], []]
    together = MatchingSpace()
    parts = [MatchingSpace() for _ in sizes]
    for part, video in zip(parts, sizes):
        for size in video:
            part.add(size)
        together.merge(part)
    assert together.summary() == {"average": 15 / 4, "max": 7}
    assert parts[2].summary() == {}


def test_unit_vectors_have_length_one_and_zeros_stay():
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])
