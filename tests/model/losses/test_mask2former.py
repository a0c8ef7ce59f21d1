from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from model.contracts import ClipTargets
from model.losses.mask2former import (
    ImageTargets,
    Mask2FormerCriterion,
    Mask2FormerLossConfig,
    as_images,
    at_points,
    reserved_tubes,
)
from model.losses.points import PointConfig
from tests.model.losses.world import FRAMES, HEIGHT, QUERIES, WIDTH, clip, items, perfect_logits, random_prediction

POINTS = PointConfig(count=64)
CONFIG = Mask2FormerLossConfig(points=POINTS)


def losses(prediction, targets, config=CONFIG, seed=3):
    return Mask2FormerCriterion(config)(prediction, targets, generator=torch.Generator().manual_seed(seed))


def fixed_draw(*shape):
    """The same points for every clip and mask."""
    return torch.rand(shape[1:], generator=torch.Generator().manual_seed(shape[1])).expand(shape)


def with_logits(prediction, class_logits, mask_logits):
    return replace(prediction, class_logits=class_logits, mask_logits=mask_logits, auxiliary=())


def test_every_layer_is_matched_and_supervised_by_itself():
    """A layer's losses do not depend on the other layers."""
    prediction = random_prediction(2)
    targets = [clip(3), clip(5, seed=1)]
    criterion = Mask2FormerCriterion(CONFIG)
    together = criterion.layer_losses(prediction, targets, draw=fixed_draw)
    for number, layer in enumerate([prediction, *prediction.auxiliary]):
        alone, = criterion.layer_losses(with_logits(prediction, layer.class_logits, layer.mask_logits), targets,
                                        draw=fixed_draw)
        assert_close(together[number], alone)
    assert set(losses(prediction, targets)) == {f"{term}{suffix}" for term in ("class", "mask", "dice")
                                          for suffix in ("", "_aux")}


def test_a_batch_weighs_its_clips_by_their_tubes():
    prediction = random_prediction(2)
    targets = [clip(3), clip(5, seed=1)]
    criterion = Mask2FormerCriterion(CONFIG)
    together = criterion.layer_losses(prediction, targets, draw=fixed_draw)[0]
    alone = [criterion.layer_losses(item, [target], draw=fixed_draw)[0]
             for item, target in zip(items(prediction), targets)]
    for name in ("mask", "dice"):
        assert_close(together[name], (3 * alone[0][name] + 5 * alone[1][name]) / 8)
    weight = [3 + 0.1 * (QUERIES - 3), 5 + 0.1 * (QUERIES - 5)]
    mean = (weight[0] * alone[0]["class"] + weight[1] * alone[1]["class"]) / sum(weight)
    assert_close(together["class"], mean)


def test_permuting_the_queries_changes_nothing():
    prediction = random_prediction(1)
    order = torch.randperm(QUERIES)
    shuffled = with_logits(prediction, prediction.class_logits[:, order], prediction.mask_logits[:, order])
    criterion = Mask2FormerCriterion(CONFIG)
    first, second = (criterion.layer_losses(each, [clip(4)], draw=fixed_draw)[0]
                     for each in (with_logits(prediction, prediction.class_logits, prediction.mask_logits), shuffled))
    assert_close(first, second)


def test_a_perfect_prediction_costs_little_and_exchanged_classes_or_masks_cost_much():
    """The losses are not zero: masks are mixed along borders, in the prediction and in the truth."""
    target = clip(3)
    prediction = with_logits(random_prediction(1), *perfect_logits(target))
    other = torch.tensor([1, 2, 0, *range(3, QUERIES)])
    perfect = losses(prediction, [target])
    assert perfect["class"] < 1e-6
    exchanged = losses(with_logits(prediction, prediction.class_logits, prediction.mask_logits[:, other]), [target])
    assert exchanged["mask"] + exchanged["class"] > 4 * sum(perfect.values())


def test_the_same_generator_gives_the_same_losses_and_another_does_not():
    prediction = random_prediction(1)
    targets = [clip(3)]
    assert_close(losses(prediction, targets), losses(prediction, targets))
    assert losses(prediction, targets)["mask"] != losses(prediction, targets, seed=4)["mask"]


@pytest.mark.parametrize("tubes", [0, 2 * QUERIES])
def test_clips_without_tubes_or_with_more_tubes_than_queries_train(tubes):
    prediction = random_prediction(2)
    total = sum(losses(prediction, [clip(tubes), clip(tubes, seed=1)]).values())
    total.backward()
    assert total.isfinite()
    assert all(layer.mask_logits.grad.isfinite().all() for layer in (prediction, *prediction.auxiliary))
    assert prediction.class_logits.grad.abs().sum() > 0


def test_frames_apart_get_points_of_their_own_and_the_sums_run_over_all_of_them():
    """With one point in the middle of every pixel, both ways to read a clip give the same sums."""
    target = clip(3)
    prediction = random_prediction(1)
    masks = prediction.mask_logits
    stacked, apart = (ImageTargets.from_clips([target], stacked=stacked) for stacked in (True, False))
    assert stacked.masks.shape == (1, 3, 1, FRAMES * HEIGHT, WIDTH)
    assert apart.masks.shape == (1, 3, FRAMES, HEIGHT, WIDTH)
    rows, columns = (torch.arange(size) for size in (HEIGHT, WIDTH))
    centres = (torch.cartesian_prod(rows, columns).flip(-1) + 0.5) / torch.tensor([WIDTH, HEIGHT])
    assert_close(apart.at(centres[None]).masks, target.masks.flatten(1)[None].float(), atol=1e-5, rtol=0)
    assert_close(at_points(as_images(masks, stacked=False), centres[None]), masks.flatten(2), atol=1e-5, rtol=1e-5)
    drawn = []

    def draw(*shape):
        drawn.append(shape)
        return fixed_draw(*shape)

    config = replace(CONFIG, frames="apart")
    Mask2FormerCriterion(config).layer_losses(replace(prediction, auxiliary=()), [target], draw=draw)
    assert drawn == [(1, 64, 2), (3 * FRAMES, 192, 2), (3 * FRAMES, 16, 2)]
    with pytest.raises(ValueError, match=r"losses\.frames='long'"):
        replace(CONFIG, frames="long")


def test_tubes_of_a_reserved_class_are_matched_to_its_query_alone():
    target = ClipTargets(masks=clip(4).masks, classes=torch.tensor([4, 0, 3, 1]), track_ids=torch.arange(4),
                         void=clip(4).void)
    truth = ImageTargets.from_clips([target])
    assert reserved_tubes(truth, torch.tensor([3, 4, 2])).tolist() == [[2, 0, -1]]
    config = Mask2FormerLossConfig(points=POINTS, stuff_classes=(3, 4, 2))
    order = [5, 0, 4, 1]                                                # stuff 4 by query 5, stuff 3 by query 4
    prediction = with_logits(random_prediction(1), *perfect_logits(target, order=order))
    right = losses(prediction, [target], config)
    for wrong_order in ([0, 5, 4, 1], [4, 0, 5, 1]):
        wrong = losses(with_logits(prediction, *perfect_logits(target, order=wrong_order)), [target], config)
        assert sum(wrong.values()) > 2 * sum(right.values())


def test_things_and_stuff_are_averaged_apart_and_added():
    """With the same points, each group alone has the losses that it has beside the other."""
    target = clip(4)
    prediction = random_prediction(1)
    target = replace(target, classes=torch.tensor([0, 1, 3, 4]))
    criterion = Mask2FormerCriterion(Mask2FormerLossConfig(points=POINTS, stuff_classes=(3, 4)))
    final = replace(prediction, auxiliary=())
    both = criterion.layer_losses(final, [target], draw=fixed_draw)[0]
    things = with_logits(prediction, prediction.class_logits[:, :-2], prediction.mask_logits[:, :-2])
    first = replace(target, masks=target.masks[:2], classes=target.classes[:2], track_ids=target.track_ids[:2])
    alone, = Mask2FormerCriterion(CONFIG).layer_losses(things, [first], draw=fixed_draw)
    assert all(both[name] > alone[name] for name in both)
    rest = {name: both[name] - alone[name] for name in both}
    stuff = replace(target, masks=target.masks[2:], classes=target.classes[2:], track_ids=target.track_ids[2:])
    changed, *_ = criterion.layer_losses(prediction, [stuff], draw=fixed_draw)
    assert_close(changed["mask"], rest["mask"])
    assert_close(changed["dice"], rest["dice"])


def test_reserving_every_query_is_refused():
    with pytest.raises(ValueError, match=r"7 of 7 queries are reserved"):
        losses(random_prediction(1), [clip(2)], replace(CONFIG, stuff_classes=tuple(range(QUERIES))))
    with pytest.raises(ValueError, match="twice"):
        Mask2FormerLossConfig(stuff_classes=(1, 1))


def test_half_precision_logits_are_widened():
    prediction = random_prediction(1, layers=0)
    half = with_logits(prediction, prediction.class_logits.half(), prediction.mask_logits.half())
    assert_close(losses(half, [clip(3)]), losses(prediction, [clip(3)]), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("clips", "share"), [(1, 6), (2, 4)])
def test_masks_are_counted_over_all_training_workers(monkeypatch, clips, share):
    """Another worker has nine masks in its clips, and each divides by its share of all masks."""
    prediction = random_prediction(1)
    targets = [clip(3)]
    alone = losses(prediction, targets)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda totals: totals.add_(torch.tensor([9, clips])))
    shared = losses(prediction, targets)
    for name in ("mask", "dice", "mask_aux"):
        assert_close(shared[name], alone[name] * 3 / share)
    assert_close(shared["class"], alone["class"])


@pytest.mark.parametrize("frames", ["stacked", "apart"])
def test_official_mask_losses_are_divided_by_all_tubes_where_there_are_more_than_queries(frames):
    """Mask2Former and VITA; the released code of Tube-Link divides by the matched tubes, which is the default."""
    prediction = random_prediction(2)
    targets = [clip(QUERIES + 3), clip(2, seed=1)]
    config = replace(CONFIG, frames=frames)
    ours = losses(prediction, targets, config)
    theirs = losses(prediction, targets, replace(config, official_compat=True))
    for name in ("mask", "dice", "mask_aux", "dice_aux"):
        assert_close(theirs[name], ours[name] * (QUERIES + 2) / (QUERIES + 5))
    assert_close(theirs["class"], ours["class"])
