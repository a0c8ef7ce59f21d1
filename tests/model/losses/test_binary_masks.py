from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from model.losses.binary_masks import MaskLossConfig, MatchingCosts, class_term, mask_costs, mask_terms, match_masks
from model.losses.targets import NO_TUBE, PixelTargets, clip_targets
from tests.model.losses.world import CLASSES, QUERIES, clip, perfect_logits, random_prediction


def plain_costs(logits, tube, smoothing=1.0):
    """Cross-entropy and dice of one query and one tube, p each."""
    mask = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, tube)
    return entropy, 1 - (2 * (mask * tube).sum() + smoothing) / (mask.sum() + tube.sum() + smoothing)


def with_void(*clips) -> PixelTargets:
    return clip_targets(clips).counting_void()


def test_costs_of_all_pairs_equal_the_formula_of_one_pair():
    prediction = random_prediction(2)
    targets = with_void(clip(3), clip(2, seed=1))
    logits = prediction.mask_logits.detach().flatten(2)
    entropy, dice = mask_costs(logits, targets, smoothing=0.5)
    for item, tubes in enumerate((3, 2)):
        for query in range(QUERIES):
            for tube in range(tubes):
                expected = plain_costs(logits[item, query], targets.masks[item, tube], 0.5)
                assert_close((entropy[item, query, tube], dice[item, query, tube]), expected)


def test_losses_of_pairs_equal_their_costs():
    logits = 3 * torch.randn(4, 160)
    targets = with_void(clip(4))
    entropy, dice = mask_terms(logits, targets.masks[0], weights=targets.weights, areas=targets.areas[0])
    for query in range(4):
        assert_close((entropy[query], dice[query]), plain_costs(logits[query], targets.masks[0, query]))


def test_repeating_a_pixel_equals_doubling_its_weight():
    logits = torch.randn(3, 10)
    covered = (torch.rand(3, 10) > 0.5).float()
    weights = torch.ones(1, 10)
    weights[0, 4] = 2
    twice = [torch.cat([part, part[:, 4:5]], 1) for part in (logits, covered)]
    areas = twice[1].sum(-1)
    assert_close(mask_terms(logits, covered * weights, weights=weights, areas=areas),
                 mask_terms(*twice, weights=torch.ones(1, 11), areas=areas))


def test_the_match_is_the_cheapest_assignment():
    prediction = random_prediction(1)
    targets = with_void(clip(4))
    logits = prediction.mask_logits.detach().flatten(2)
    costs = MatchingCosts(class_weight=3, mask_weight=2, dice_weight=4)
    probability = prediction.class_logits.detach().softmax(-1)[0]
    cost = torch.zeros(QUERIES, 4)
    for query in range(QUERIES):
        for tube in range(4):
            entropy, dice = plain_costs(logits[0, query], targets.masks[0, tube])
            cost[query, tube] = 2 * entropy + 4 * dice - 3 * probability[query, targets.classes[0, tube]]
    expected = torch.full((QUERIES,), NO_TUBE)
    queries, tubes = linear_sum_assignment(cost.numpy())
    expected[queries] = torch.from_numpy(tubes)
    assert torch.equal(match_masks(prediction.class_logits, logits, targets, costs=costs)[0], expected)


@pytest.mark.parametrize("order", [[0, 1, 2], [6, 2, 4]])
def test_a_perfect_prediction_is_matched_and_has_no_loss(order):
    target = clip(3)
    class_logits, mask_logits = perfect_logits(target, order=order)
    targets = with_void(target)
    tubes = match_masks(class_logits, mask_logits.flatten(2), targets, costs=MatchingCosts())
    assert [int(tubes[0, query]) for query in order] == [0, 1, 2]
    assert class_term(class_logits, targets.classes, tubes, no_object_weight=0.1) < 1e-6
    entropy, dice = mask_terms(mask_logits.flatten(2)[0, order], targets.masks[0], weights=targets.weights,
                               areas=targets.areas[0])
    assert max(entropy.max(), dice.max()) < 1e-6


def test_no_object_has_the_configured_weight():
    logits = torch.randn(1, QUERIES, CLASSES + 1)
    classes = torch.tensor([[2, 4]])
    tubes = torch.tensor([[NO_TUBE, 1, NO_TUBE, 0, NO_TUBE, NO_TUBE, NO_TUBE]])
    labels = torch.tensor([5, 4, 5, 2, 5, 5, 5])
    each = F.cross_entropy(logits[0], labels, reduction="none")
    weights = torch.where(labels == 5, 0.1, 1.0)
    assert_close(class_term(logits, classes, tubes, no_object_weight=0.1), (each * weights).sum() / weights.sum())


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="no_object_weight is -1"):
        MaskLossConfig(no_object_weight=-1)
