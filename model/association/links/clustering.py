"""Correlation clustering with at most one member per clip: the sum of scores inside clusters is made large.

First the two clusters with the largest sum of scores between them are merged, while that is above 0. Then all clusters
are cut at one clip after the other, and their parts before and after it are joined anew; and the members of one clip at
a time are assigned anew to the clusters of all other clips. All steps raise the same sum.
"""

from __future__ import annotations

import numpy as np

from model.assignment import best_assignment

SWEEPS = 4
LEAST_GAIN = 1e-9       # of the sum, for which members change their cluster; ties leave them where they are


def clusters_of(scores: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """scores x x symmetric, clips x -> the cluster of each member x, counted from 0 in the order of first members.

    Scores between members of one clip are not read.
    """
    apart = np.where(clips[:, None] == clips, 0.0, scores)
    labels = merge(scores, clips)
    for _ in range(SWEEPS):
        swept = sweep(apart, clips, rejoin(apart, clips, labels))
        if (swept == labels).all():
            break
        labels = swept
    return labels


def merge(scores: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Merge the clusters with the largest sum between them, of equal ones the first, while it is above 0."""
    sums = np.where(clips[:, None] == clips, -np.inf, scores)      # -inf: they share a clip, and so do their unions
    parent = np.arange(len(clips))
    if not len(clips):
        return parent
    best = sums.argmax(1)
    largest = sums[parent, best]
    while True:
        row = int(largest.argmax())
        if not largest[row] > 0:
            return numbered(parent)
        kept, gone = sorted((row, int(best[row])))
        sums[kept] += sums[gone]
        sums[:, kept] = sums[kept]
        sums[gone] = sums[:, gone] = -np.inf
        parent[parent == gone] = kept
        stale = np.flatnonzero((best == kept) | (best == gone) | (sums[kept] >= largest))
        stale = np.union1d(stale, [kept, gone])
        best[stale] = sums[stale].argmax(1)
        largest[stale] = sums[stale, best[stale]]


def rejoin(scores: np.ndarray, clips: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cut all clusters before each clip in turn and join their parts anew. scores: 0 in a clip.

    Merging takes the largest sum first, and so can join two halves whose exchange with two others is worth more.
    """
    for clip in np.unique(clips)[1:]:
        late = clips >= clip
        members = np.eye(labels.max() + 1)[labels]                                  # x c
        sums = (members * ~late[:, None]).T @ scores @ (members * late[:, None])    # c c: front parts, back parts
        fronts, backs = best_assignment(np.maximum(sums, 0), maximize=True)
        joined = sums[fronts, backs] > 0
        if sums[fronts[joined], backs[joined]].sum() - sums.trace() > LEAST_GAIN:
            after = len(sums) + np.arange(len(sums))        # a part that nothing is before becomes a cluster
            after[backs[joined]] = fronts[joined]
            labels = numbered(np.where(late, after[labels], labels))
    return labels


def sweep(scores: np.ndarray, clips: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Assign the members of each clip in turn to the clusters of the others, or to new ones. scores: 0 in a clip."""
    labels = labels.copy()
    sums = scores @ np.eye(len(labels))[labels]     # x x: of each member with each cluster; members of its clip add 0
    for clip in np.unique(clips):
        here = np.flatnonzero(clips == clip)
        used = np.unique(labels)
        columns = np.append(used, np.setdiff1d(np.arange(len(labels)), used)[:len(here)])   # the last ones are empty
        members, chosen = best_assignment(sums[np.ix_(here, columns)], maximize=True)
        before = labels[here]
        after = columns[chosen]
        if sums[here[members], after].sum() - sums[here, before].sum() > LEAST_GAIN:
            labels[here] = after
            for member, old, new in zip(here, before, after):
                sums[:, old] -= scores[:, member]
                sums[:, new] += scores[:, member]
            sums[:, np.setdiff1d(used, labels)] = 0
    return numbered(labels)


def numbered(labels: np.ndarray) -> np.ndarray:
    """The same clusters, counted from 0 in the order of their first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=int)
    rank[first.argsort()] = np.arange(len(first))
    return rank[inverse]


def objective(scores: np.ndarray, clips: np.ndarray, labels: np.ndarray) -> float:
    """The sum of scores inside clusters, each pair once."""
    together = (labels[:, None] == labels) & (clips[:, None] != clips)
    return float(scores[together].sum() / 2)
