"""Correlation clustering against a plain version of the same rules, and the promises that it makes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from model.association.links import clustering
from model.association.links.clustering import clusters_of, merge, numbered, objective, rejoin, sweep


def drawn(seed: int, *, members: int = 24, clips: int = 6, exact: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric scores and the clip of each member. exact: whole numbers, whose sums do not depend on the order."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-9, 9, (members, members)).astype(float) if exact else rng.normal(-0.3, 1, (members, members))
    scores = np.triu(scores, 1)
    return scores + scores.T, np.sort(rng.integers(0, clips, members))


def plain_merge(scores: np.ndarray, clips: np.ndarray) -> list[set[int]]:
    """All pairs of clusters are looked at for every merge; the first of the largest is taken."""
    clusters = [{member} for member in range(len(clips))]
    while True:
        best = 0.0
        pair = None
        for a, b in combinations(range(len(clusters)), 2):
            if not {*clips[list(clusters[a])]} & {*clips[list(clusters[b])]}:
                total = sum(scores[i, j] for i in clusters[a] for j in clusters[b])
                if total > best:
                    best = total
                    pair = (a, b)
        if pair is None:
            return clusters
        a, b = pair
        clusters[a] |= clusters.pop(b)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("seed", range(12))
def test_merging_is_the_plain_rule_with_ties_too(seed):
    scores, clips = drawn(seed)
    assert partition(merge(scores, clips)) == {frozenset(cluster) for cluster in plain_merge(scores, clips)}


@pytest.mark.parametrize("seed", range(12))
def test_no_cluster_holds_two_members_of_a_clip_and_the_sum_never_falls(seed):
    scores, clips = drawn(seed, exact=False)
    apart = np.where(clips[:, None] == clips, 0, scores)
    labels = merge(scores, clips)
    total = objective(scores, clips, labels)
    assert total > 0
    for step in (rejoin, sweep) * 4:
        labels = step(apart, clips, labels)
        assert all(len(set(clips[labels == label])) == (labels == label).sum() for label in np.unique(labels))
        assert objective(scores, clips, labels) >= total - 1e-9
        total = objective(scores, clips, labels)


def test_halves_that_merging_joined_to_the_wrong_ones_are_exchanged():
    """Two things in four clips: the largest sum between halves is 15, but two of 14 are worth more than 15 and 10."""
    clips = np.repeat(np.arange(4), 2)
    thing = np.tile([0, 1], 4)
    scores = np.where(thing[:, None] == thing, 20.0, -20.0)
    for first, last, total in ((0, 0, 14), (0, 1, 15), (1, 0, 10), (1, 1, 14)):
        rows = np.flatnonzero((clips < 2) & (thing == first))
        columns = np.flatnonzero((clips >= 2) & (thing == last))
        scores[np.ix_(rows, columns)] = scores[np.ix_(columns, rows)] = total / 4
    merged = merge(scores, clips)
    assert (merged[:4] != merged[4:]).all()
    assert (sweep(np.where(clips[:, None] == clips, 0, scores), clips, merged) == merged).all()
    assert clusters_of(scores, clips).tolist() == thing.tolist()


def test_a_sweep_finds_what_merging_missed():
    gains = []
    for seed in range(12):
        scores, clips = drawn(seed, exact=False)
        gains.append(objective(scores, clips, clusters_of(scores, clips)) - objective(scores, clips,
                                                                                      merge(scores, clips)))
    assert min(gains) >= 0
    assert max(gains) > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_true_links_give_the_true_partition(seed):
    rng = np.random.default_rng(seed)
    clips = np.repeat(np.arange(5), 4)
    truth = np.concatenate([rng.permutation(6)[:4] for _ in range(5)])
    scores = np.where(truth[:, None] == truth, 4.0, -8.0)
    assert partition(clusters_of(scores, clips)) == partition(truth)


@pytest.mark.parametrize("seed", range(6))
def test_members_of_a_clip_in_another_order_give_the_same_partition(seed):
    scores, clips = drawn(seed, exact=False)
    rng = np.random.default_rng(100 + seed)
    order = np.lexsort((rng.random(len(clips)), clips))
    shuffled = clusters_of(scores[np.ix_(order, order)], clips[order])
    unshuffled = np.empty_like(shuffled)
    unshuffled[order] = shuffled
    assert partition(unshuffled) == partition(clusters_of(scores, clips))


def test_nothing_to_merge_is_left_apart():
    scores, clips = drawn(0)
    assert len(partition(clusters_of(-np.abs(scores), clips))) == len(clips)
    assert clusters_of(np.zeros((0, 0)), np.zeros(0, int)).shape == (0,)


def test_labels_are_counted_by_first_members():
    assert numbered(np.array([7, 2, 7, 5, 2])).tolist() == [0, 1, 0, 2, 1]


def test_it_stops_once_nothing_changes(monkeypatch):
    calls = []
    monkeypatch.setattr(clustering, "sweep", lambda scores, clips, labels: calls.append(1) or labels)
    clusters_of(*drawn(0))
    assert len(calls) == 1
