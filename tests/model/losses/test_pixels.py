from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from model.losses.pixels import _LogPartition, discrimination_loss, rarity, sample_pixels, semantic_loss
from model.losses.targets import clip_targets
from tests.model.losses.world import clip, random_prediction


def draw(target, *, count: int, temperature: float, seed: int = 0, times: int = 1):
    targets = clip_targets([target] * times)
    uniform = torch.rand(targets.weights.shape, generator=torch.Generator().manual_seed(seed))
    return sample_pixels(rarity(targets), targets, count=count, temperature=temperature, uniform=uniform)


def test_a_sample_holds_no_pixel_twice_and_void_only_when_labelled_pixels_run_out():
    target = clip(4)
    labelled = int((~target.void).sum())
    positions = draw(target, count=labelled + 3, temperature=1.8)[0]
    assert len(set(positions.tolist())) == labelled + 3
    assert target.void.flatten()[positions].tolist() == [False] * labelled + [True] * 3


def test_a_clip_with_too_few_pixels_gives_all_of_them():
    positions = draw(clip(2), count=10_000, temperature=1.8)[0]
    assert positions.sort().values.tolist() == list(range(clip(2).void.numel()))


def test_at_temperature_one_every_tube_is_drawn_equally_often():
    target = clip(4, seed=2)
    times = 4000
    first = draw(target, count=1, temperature=1.0, times=times)[:, 0]
    hits = target.masks.flatten(1)[:, first].float().mean(1)
    areas = target.masks.flatten(1).sum(1).float()
    assert areas.max() > 2 * areas.min()
    assert_close(hits, torch.full((4,), 0.25), atol=4 * (0.25 * 0.75 / times) ** 0.5, rtol=0)
    by_area = target.masks.flatten(1)[:, draw(target, count=1, temperature=0.0, times=times)[:, 0]].float().mean(1)
    assert_close(by_area, areas / areas.sum(), atol=4 * 0.5 / times ** 0.5, rtol=0)


def plain_discrimination(features, target, positions):
    """The loss of one clip with the whole samples-by-samples target."""
    masks = target.masks.flatten(1)[:, positions].float()
    features = features[:, positions]
    same = masks.T @ masks
    same = same / same.sum(0).clamp(min=1)
    loss = F.cross_entropy((features.T @ features / 0.3)[None], same[None], reduction="none")[0]
    return loss.sum() / (loss != 0).sum().clamp(min=1)


def test_discrimination_and_its_gradient_equal_the_plain_formula():
    for count in (1, 20, 150):                                      # 150: void pixels are in the sample too
        target = clip(4)
        features = random_prediction(1).pixel_features
        positions = draw(target, count=count, temperature=1.8)
        loss = discrimination_loss(features.flatten(2), clip_targets([target]), positions)
        ours, = torch.autograd.grad(2 * loss.sum(), features)
        expected = plain_discrimination(features.flatten(2)[0], target, positions[0])
        theirs, = torch.autograd.grad(2 * expected, features)
        assert_close(loss[0], expected, atol=1e-6, rtol=1e-5)
        assert_close(ours, theirs, atol=2e-6, rtol=1e-4)       # one sample: the true gradient is 0


@pytest.mark.parametrize("compared", [(1, 1, 1, 1, 1), (1, 0, 1, 1, 0)])
def test_the_hand_written_gradient_equals_the_numerical_one(compared):
    features = F.normalize(torch.randn(2, 3, 5, dtype=torch.float64), dim=1).requires_grad_()
    compared = torch.tensor(compared, dtype=torch.float64).expand(2, 5)
    weights = torch.rand(2, 5, dtype=torch.float64) * compared
    assert torch.autograd.gradcheck(lambda x: _LogPartition.apply(x, weights, compared, 0.3), features)


def test_discrimination_prefers_features_that_tell_tubes_apart():
    target = clip(3)
    positions = draw(target, count=60, temperature=1.0)
    apart = F.one_hot(target.masks.int().argmax(0).flatten(), 6).T[None].float()
    alike = F.normalize(torch.ones_like(apart), dim=1)
    targets = clip_targets([target])
    assert discrimination_loss(apart, targets, positions) < discrimination_loss(alike, targets, positions) - 0.5


def test_semantic_loss_is_the_mean_cross_entropy_over_labelled_pixels():
    target = clip(4)
    logits = random_prediction(1).semantic_logits
    labels = torch.where(target.void, -1, target.classes[target.masks.int().argmax(0)])[None]
    assert_close(semantic_loss(logits.flatten(2), clip_targets([target]))[0],
                 F.cross_entropy(logits, labels, ignore_index=-1))
    positions = draw(target, count=150, temperature=2.4)
    picked = logits.flatten(2)[..., positions[0]], labels.flatten(1)[:, positions[0]]
    assert_close(semantic_loss(logits.flatten(2), clip_targets([target]), positions)[0],
                 F.cross_entropy(*picked, ignore_index=-1))


def test_a_clip_without_tubes_has_neither_loss():
    prediction = random_prediction(1)
    targets = clip_targets([clip(0)])
    positions = draw(clip(0), count=30, temperature=1.8)
    total = (discrimination_loss(prediction.pixel_features.flatten(2), targets, positions)
             + semantic_loss(prediction.semantic_logits.flatten(2), targets, positions))
    total.sum().backward()
    assert total.item() == 0
    assert prediction.pixel_features.grad.abs().sum() == prediction.semantic_logits.grad.abs().sum() == 0
