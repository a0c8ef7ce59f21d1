"""Queries in the slots of tracks: what the clip before cannot say, a memory can."""

from __future__ import annotations

import pytest
import torch

from model.association.quasi_dense import QuasiDenseConfig
from model.contracts import ClipPrediction
from model.inference.alignment import ByAlignment
from model.inference.tracked_order import TrackedOrder, mask_overlaps

QUERIES = 5
DIM = 8


def clip(*objects: int | None, frames: int = 2) -> ClipPrediction:
    """Query by query the object that it shows, each in a column of its own; None: a query that shows nothing."""
    queries = torch.zeros(1, QUERIES, DIM)
    class_logits = torch.tensor([-8.0, 8.0]).repeat(1, QUERIES, 1)          # no object
    masks = torch.full((1, QUERIES, frames, 4, DIM), -5.0)
    for query, shown in enumerate(objects):
        if shown is not None:
            queries[0, query, shown] = 5.0
            class_logits[0, query] = torch.tensor([8.0, -8.0])
            masks[0, query, :, :, shown] = 5.0
    return ClipPrediction(class_logits=class_logits, mask_logits=masks, queries=queries, mask_embeddings=queries,
                          pixel_features=torch.empty(0), alignment=queries)


def slots(order, *clips: ClipPrediction) -> list[dict[int, int]]:
    """Object -> slot in each clip."""
    found = []
    for each in clips:
        permutation = order.step(each)
        assert sorted(permutation.tolist()) == list(range(QUERIES))
        shown = each.queries[0, permutation].max(-1)
        found.append({int(shown.indices[slot]): slot for slot in range(QUERIES) if shown.values[slot] > 0})
    return found


def test_any_permutation_is_undone():
    first, second = slots(TrackedOrder(QuasiDenseConfig()), clip(0, 1, 2, 3, 4), clip(3, 0, 4, 2, 1))
    assert first == second


def test_an_object_that_hides_for_a_clip_comes_back_to_its_slot():
    """While it hides a stranger is there. The naive order gives the stranger the slot, and then never takes it away."""
    hides = clip(0, 1), clip(0, 2), clip(0, 1, 2)
    before, between, after = slots(TrackedOrder(QuasiDenseConfig()), *hides)
    assert before[1] == after[1]
    assert between[2] == after[2] != before[1]
    naive = slots(ByAlignment(), *hides)
    assert naive[0].keys() == before.keys()


def test_with_more_tracks_than_slots_those_unseen_for_longest_make_room():
    first, _, third, last = slots(TrackedOrder(QuasiDenseConfig(memory_frames=100)),
                                  clip(0, 1, 2, 3, 4), clip(0, 1, 2, 4), clip(0, 5), clip(0, 1, 2, 4, 5))
    assert third[5] == first[3]
    assert last == {0: first[0], 1: first[1], 2: first[2], 4: first[4], 5: first[3]}


@pytest.mark.parametrize("frames", [1, 3])
def test_overlaps_are_those_of_whole_tubes(frames):
    masks = torch.full((3, frames, 4, 4), -1.0)
    masks[0, :, :2] = masks[1, :, 1:3] = 1.0
    assert mask_overlaps(masks).tolist() == [[1, pytest.approx(1 / 3), 0], [pytest.approx(1 / 3), 1, 0], [0, 0, 0]]
