from __future__ import annotations

from dataclasses import replace

import torch
from torch.testing import assert_close

from model.losses.masks import _LogSoftmaxAt, mask_losses
from model.losses.matching import match_queries
from model.losses.targets import clip_targets
from tests.model.losses.world import clip, perfect_logits, random_prediction


def plain(mask_logits, target, matches):
    """Both losses of one clip by their formulas, with the full softmax over queries."""
    masks = mask_logits.softmax(1)[0]                                               # n t h w
    wanted = torch.zeros_like(masks)
    entropy = 0.0
    dice = 0.0
    for tube, query in enumerate(matches.query_of_tube[0].tolist()):
        wanted[query] = target.masks[tube]
        p = masks[query] * ~target.void
        g = target.masks[tube].float()
        share = 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)
        dice = dice + share * matches.class_similarity[0, query, tube] * 0.75 / len(masks)
    entropy = -(wanted * masks.log()).sum(0)[~target.void].mean()
    return entropy, dice


def test_mask_losses_and_their_gradient_equal_the_plain_formulas():
    target = clip(4)
    logits = random_prediction(1).mask_logits
    targets = clip_targets([target])
    matches = match_queries(random_prediction(1).class_logits, logits.flatten(2), targets)
    entropy, dice = mask_losses(logits.flatten(2), targets, matches)
    ours, = torch.autograd.grad(entropy.sum() + 3 * dice.sum(), logits)
    expected_entropy, expected_dice = plain(logits, target, matches)
    theirs, = torch.autograd.grad(expected_entropy + 3 * expected_dice, logits)
    assert_close(entropy[0], expected_entropy)
    assert_close(dice[0], expected_dice)
    assert_close(ours, theirs, atol=1e-7, rtol=1e-4)


def test_a_perfect_prediction_has_almost_no_mask_loss():
    class_logits, mask_logits = perfect_logits(clip(4))
    targets = clip_targets([clip(4)])
    entropy, dice = mask_losses(mask_logits.flatten(2), targets, match_queries(class_logits, mask_logits.flatten(2),
                                                                               targets))
    assert entropy.item() < 1e-6
    assert dice.item() < 1e-6


def test_void_pixels_get_no_gradient_unless_void_counts():
    target = clip(3)
    prediction = random_prediction(1)
    for targets, void_is_ignored in ((clip_targets([target]), True), (clip_targets([target]).counting_void(), False)):
        prediction.mask_logits.grad = None
        matches = match_queries(prediction.class_logits, prediction.mask_logits.flatten(2), targets)
        sum(mask_losses(prediction.mask_logits.flatten(2), targets, matches)).sum().backward()
        assert (prediction.mask_logits.grad[:, :, target.void].abs().sum() == 0) == void_is_ignored
        assert prediction.mask_logits.grad[:, :, ~target.void].abs().sum() > 0


def test_a_pixel_of_weight_two_counts_like_two_pixels():
    prediction = random_prediction(1)
    once = clip_targets([clip(3)])
    logits = prediction.mask_logits.detach().flatten(2)
    fields = ("masks", "weights", "labelled", "compared")
    heavy = replace(once, areas=2 * once.areas, **{name: 2 * getattr(once, name) for name in fields})
    twice = replace(once, areas=2 * once.areas, **{name: torch.cat([getattr(once, name)] * 2, -1) for name in fields})

    def losses(logits, targets):
        return mask_losses(logits, targets, match_queries(prediction.class_logits, logits, targets))

    assert_close(losses(logits, heavy), losses(torch.cat([logits] * 2, -1), twice))
    assert (losses(logits, heavy)[1] - losses(logits, once)[1]).abs() > 1e-4        # the 1 in dice tells them apart


def test_the_hand_written_gradient_equals_the_numerical_one():
    logits = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([[2, 0], [1, 1]])                                           # a row may serve two tubes
    assert torch.autograd.gradcheck(lambda x: _LogSoftmaxAt.apply(x, rows), logits)
