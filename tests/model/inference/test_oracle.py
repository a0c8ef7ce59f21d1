"""The perfect order: a tube keeps its slot however long it hides; without labels, the order is near-online's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.contracts import ClipPrediction, ClipTargets
from model.inference.alignment import ByAlignment
from model.inference.oracle import TrueOrder, in_true_order

QUERIES = 6
SIDE = 6            # a query that shows tube x covers column x
CLASSES = 3


def clip(shown: dict[int, int], *, seed: int, sure: float = 20.0) -> ClipPrediction:
    """A clip in which query q covers column shown[q] as class 0; the other queries see nothing."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.full((1, QUERIES, 2, SIDE, SIDE), -sure)
    logits = torch.zeros(1, QUERIES, CLASSES + 1)
    logits[..., -1] = sure
    for query, column in shown.items():
        masks[0, query, :, :, column] = sure
        logits[0, query, 0] = 2 * sure
    embeddings = torch.randn(1, QUERIES, 8, generator=rng)
    return ClipPrediction(class_logits=logits, mask_logits=masks, queries=embeddings, mask_embeddings=embeddings,
                          pixel_features=torch.zeros(1, 8, 2, SIDE, SIDE), alignment=embeddings)


def targets(columns: dict[int, int]) -> ClipTargets:
    """Tubes: track id -> the column that it covers."""
    masks = torch.zeros(len(columns), 2, SIDE, SIDE, dtype=torch.bool)
    for row, column in enumerate(columns.values()):
        masks[row, :, :, column] = True
    return ClipTargets(masks=masks, classes=torch.zeros(len(columns), dtype=torch.int64),
                       track_ids=torch.tensor(list(columns), dtype=torch.int64), void=~masks.any(0))


def video(seed: int, *, clips: int = 8):
    """Clips in which four tubes come and go, each in another column and under another query every time."""
    rng = np.random.default_rng(seed)
    for index in range(clips):
        present = [track for track in (11, 12, 13, 14) if rng.random() < 0.6]
        columns = rng.permutation(SIDE)[:len(present)]
        queries = rng.permutation(QUERIES)[:len(present)]
        yield (clip(dict(zip(queries.tolist(), columns.tolist())), seed=int(rng.integers(1 << 30))),
               targets(dict(zip(present, columns.tolist()))), dict(zip(present, queries.tolist())), index)


@pytest.mark.parametrize("compete", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_tube_keeps_its_slot_however_long_it_hides(seed, compete):
    order = TrueOrder(compete=compete)
    slots: dict[int, int] = {}
    for prediction, true, query_of, _ in video(seed):
        step = order.step(prediction, true).tolist()
        assert sorted(step) == list(range(QUERIES))
        for track, query in query_of.items():
            slot = step.index(query)
            assert slots.setdefault(track, slot) == slot
    assert len(set(slots.values())) == len(slots) > 2


@pytest.mark.parametrize("seed", range(4))
def test_without_tubes_the_order_is_that_of_near_online(seed):
    order = TrueOrder(compete=True)
    near_online = ByAlignment()
    for prediction, *_ in video(seed):
        assert order.step(prediction, targets({})).tolist() == near_online.step(prediction).tolist()


def test_a_query_that_hardly_matches_is_not_led_by_the_labels():
    order = TrueOrder(compete=True)
    order.step(clip({0: 0}, seed=0), targets({11: 0}))
    unsure = clip({3: 0}, seed=1, sure=0.1)             # its class is a guess and its mask is everywhere
    plain = ByAlignment()
    plain.step(clip({0: 0}, seed=0))
    assert order.step(unsure, targets({11: 0})).tolist() == plain.step(unsure).tolist()


def test_more_tubes_than_slots_share_them_without_taking_anyones():
    order = TrueOrder(compete=True)
    for index in range(QUERIES):
        order.step(clip({0: 0}, seed=index), targets({index: 0}))
    assert sorted(order.slots.values()) == list(range(QUERIES))
    order.step(clip({2: 0}, seed=9), targets({99: 0}))
    assert 99 not in order.slots
    step = order.step(clip({4: 1}, seed=10), targets({3: 1})).tolist()
    assert step.index(4) == order.slots[3]


def test_queries_without_an_alignment_keep_their_numbers_where_labels_do_not_say_otherwise():
    order = TrueOrder(compete=True)
    plain = [type(c)(**{**{name: getattr(c, name) for name in c.__slots__}, "alignment": None})
             for c in (clip({0: 0}, seed=0), clip({1: 3}, seed=1))]
    assert order.step(plain[0], targets({11: 0})).tolist() == [0, 1, 2, 3, 4, 5]
    assert order.step(plain[1], targets({11: 3})).tolist() == [1, 0, 2, 3, 4, 5]


def test_makers_keep_the_order_that_the_labels_gave():
    pairs = [(index, prediction) for prediction, *_, index in video(3)]
    true = {index: labels for _, labels, _, index in video(3)}
    makers_order = ByAlignment()
    for index, prediction in in_true_order(pairs, true.get, compete=True):
        assert makers_order.step(prediction).tolist() == list(range(QUERIES))
        shown = [slot for slot in range(QUERIES) if prediction.class_logits[0, slot].argmax() == 0]
        assert len(shown) == len(true[index].classes)
