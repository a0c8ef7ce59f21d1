from __future__ import annotations

import torch
from torch.testing import assert_close

from model.losses.classes import class_loss
from model.losses.matching import match_queries
from model.losses.targets import clip_targets
from tests.model.losses.world import CLASSES, QUERIES, clip, perfect_logits, random_prediction


def losses(class_logits, mask_logits, target, **options):
    targets = clip_targets([target])
    matches = match_queries(class_logits, mask_logits.flatten(2), targets)
    return class_loss(class_logits, targets, matches, **options), matches


def test_a_certain_and_right_prediction_has_no_class_loss():
    loss, _ = losses(*perfect_logits(clip(4)), clip(4))
    assert loss.item() < 1e-6


def test_the_weight_of_a_query_is_the_quality_of_its_mask_or_its_share_of_void():
    prediction = random_prediction(1)
    target = clip(3)
    loss, matches = losses(prediction.class_logits, prediction.mask_logits, target)
    expected = 0.0
    for query, tube in enumerate(matches.tube_of_query[0].tolist()):
        label = CLASSES if tube < 0 else target.classes[tube]
        weight = matches.void_share[0, query] if tube < 0 else matches.mask_similarity[0, query, tube]
        alpha = 0.25 if tube < 0 else 0.75
        expected += -alpha * weight * prediction.class_logits[0, query].log_softmax(-1)[label]
    assert_close(loss[0], expected / QUERIES)


def test_a_query_without_a_tube_has_the_smallest_weight_where_nothing_is_void():
    prediction = random_prediction(1)
    target = clip(3, void_rows=0)
    small, _ = losses(prediction.class_logits, prediction.mask_logits, target, alpha=(0.0, 1.0), smallest_weight=0.01)
    smaller, _ = losses(prediction.class_logits, prediction.mask_logits, target, alpha=(0.0, 1.0),
                        smallest_weight=0.001)
    assert_close(small, 10 * smaller)


def test_the_class_loss_has_no_gradient_for_masks():
    prediction = random_prediction(1)
    losses(prediction.class_logits, prediction.mask_logits, clip(3))[0].sum().backward()
    assert prediction.mask_logits.grad is None
    assert torch.isfinite(prediction.class_logits.grad).all()
    assert prediction.class_logits.grad.abs().sum() > 0
