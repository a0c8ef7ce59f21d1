from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from model.contracts import ClipTargets
from model.losses import build_clip_criterion
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from model.losses.mask2former import (
    ImageTargets,
    Mask2FormerCriterion,
    Mask2FormerLossConfig,
    as_images,
    at_points,
    reserved_tubes,
)
from model.losses.points import PointConfig
from tests.model.losses.world import FRAMES, HEIGHT, QUERIES, WIDTH, clip, items, perfect_logits, prediction

POINTS = PointConfig(count=64)
CONFIG = Mask2FormerLossConfig(points=POINTS)


def losses(made, targets, config=CONFIG, seed=3):
    return Mask2FormerCriterion(config)(made, targets, generator=torch.Generator().manual_seed(seed))


def fixed_draw(*shape):
    """The same points for every clip and mask."""
    return torch.rand(shape[1:], generator=torch.Generator().manual_seed(shape[1])).expand(shape)


def with_logits(made, class_logits, mask_logits):
    return replace(made, class_logits=class_logits, mask_logits=mask_logits, auxiliary=())


def test_every_layer_is_matched_and_supervised_by_itself():
    """A layer's losses do not depend on the other layers."""
    made = prediction(2)
    targets = [clip(3), clip(5, seed=1)]
    criterion = Mask2FormerCriterion(CONFIG)
    together = criterion.layer_losses(made, targets, draw=fixed_draw)
    for number, layer in enumerate([made, *made.auxiliary]):
        alone, = criterion.layer_losses(with_logits(made, layer.class_logits, layer.mask_logits), targets,
                                        draw=fixed_draw)
        assert_close(together[number], alone)
    assert set(losses(made, targets)) == {f"{term}{suffix}" for term in ("class", "mask", "dice")
                                          for suffix in ("", "_aux")}


def test_a_batch_weighs_its_clips_by_their_tubes():
    made = prediction(2)
    targets = [clip(3), clip(5, seed=1)]
    criterion = Mask2FormerCriterion(CONFIG)
    together = criterion.layer_losses(made, targets, draw=fixed_draw)[0]
    alone = [criterion.layer_losses(item, [target], draw=fixed_draw)[0] for item, target in zip(items(made), targets)]
    for name in ("mask", "dice"):
        assert_close(together[name], (3 * alone[0][name] + 5 * alone[1][name]) / 8)
    weight = [3 + 0.1 * (QUERIES - 3), 5 + 0.1 * (QUERIES - 5)]
    mean = (weight[0] * alone[0]["class"] + weight[1] * alone[1]["class"]) / sum(weight)
    assert_close(together["class"], mean)


def test_permuting_the_queries_changes_nothing():
    made = prediction(1)
    order = torch.randperm(QUERIES)
    shuffled = with_logits(made, made.class_logits[:, order], made.mask_logits[:, order])
    criterion = Mask2FormerCriterion(CONFIG)
    first, second = (criterion.layer_losses(each, [clip(4)], draw=fixed_draw)[0]
                     for each in (with_logits(made, made.class_logits, made.mask_logits), shuffled))
    assert_close(first, second)


def test_a_perfect_prediction_costs_little_and_exchanged_classes_or_masks_cost_much():
    """Not nothing: between pixels a border is mixed, in the prediction and in the truth."""
    target = clip(3)
    made = with_logits(prediction(1), *perfect_logits(target))
    other = torch.tensor([1, 2, 0, *range(3, QUERIES)])
    perfect = losses(made, [target])
    assert perfect["class"] < 1e-6
    exchanged = losses(with_logits(made, made.class_logits, made.mask_logits[:, other]), [target])
    assert exchanged["mask"] + exchanged["class"] > 4 * sum(perfect.values())


def test_the_same_generator_gives_the_same_losses_and_another_does_not():
    made = prediction(1)
    targets = [clip(3)]
    assert_close(losses(made, targets), losses(made, targets))
    assert losses(made, targets)["mask"] != losses(made, targets, seed=4)["mask"]


@pytest.mark.parametrize("tubes", [0, 2 * QUERIES])
def test_clips_without_tubes_or_with_more_tubes_than_queries_train(tubes):
    made = prediction(2)
    total = sum(losses(made, [clip(tubes), clip(tubes, seed=1)]).values())
    total.backward()
    assert total.isfinite()
    assert all(layer.mask_logits.grad.isfinite().all() for layer in (made, *made.auxiliary))
    assert made.class_logits.grad.abs().sum() > 0


def test_frames_apart_get_points_of_their_own_and_the_sums_run_over_all_of_them():
    """With one point in the middle of every pixel both ways of looking at a clip are the same sums."""
    target = clip(3)
    made = prediction(1)
    masks = made.mask_logits
    stacked, apart = (ImageTargets.of([target], stacked=stacked) for stacked in (True, False))
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
    Mask2FormerCriterion(config).layer_losses(replace(made, auxiliary=()), [target], draw=draw)
    assert drawn == [(1, 64, 2), (3 * FRAMES, 192, 2), (3 * FRAMES, 16, 2)]
    with pytest.raises(ValueError, match=r"losses\.frames='long'"):
        replace(CONFIG, frames="long")


def test_reserved_queries_answer_for_their_class_and_no_other_query_does():
    target = ClipTargets(masks=clip(4).masks, classes=torch.tensor([4, 0, 3, 1]), track_ids=torch.arange(4),
                         void=clip(4).void)
    truth = ImageTargets.of([target])
    assert reserved_tubes(truth, torch.tensor([3, 4, 2])).tolist() == [[2, 0, -1]]
    config = Mask2FormerLossConfig(points=POINTS, stuff_classes=(3, 4, 2))
    made = with_logits(prediction(1), *perfect_logits(target, order=[5, 0, 4, 1]))    # stuff 4 by 5, stuff 3 by 4
    right = losses(made, [target], config)
    for wrong_order in ([0, 5, 4, 1], [4, 0, 5, 1]):
        wrong = losses(with_logits(made, *perfect_logits(target, order=wrong_order)), [target], config)
        assert sum(wrong.values()) > 2 * sum(right.values())


def test_things_and_stuff_are_averaged_apart_and_added():
    """Only the things' queries see the things' losses: with the same points, one group alone gives its part."""
    target = clip(4)
    made = prediction(1)
    target = replace(target, classes=torch.tensor([0, 1, 3, 4]))
    criterion = Mask2FormerCriterion(Mask2FormerLossConfig(points=POINTS, stuff_classes=(3, 4)))
    both = criterion.layer_losses(with_logits(made, made.class_logits, made.mask_logits), [target], draw=fixed_draw)[0]
    things = with_logits(made, made.class_logits[:, :-2], made.mask_logits[:, :-2])
    first = replace(target, masks=target.masks[:2], classes=target.classes[:2], track_ids=target.track_ids[:2])
    alone, = Mask2FormerCriterion(CONFIG).layer_losses(things, [first], draw=fixed_draw)
    assert all(both[name] > alone[name] for name in both)
    rest = {name: both[name] - alone[name] for name in both}
    stuff = replace(target, masks=target.masks[2:], classes=target.classes[2:], track_ids=target.track_ids[2:])
    changed, *_ = criterion.layer_losses(made, [stuff], draw=fixed_draw)
    assert_close(changed["mask"], rest["mask"])
    assert_close(changed["dice"], rest["dice"])


def test_reserving_every_query_is_refused():
    with pytest.raises(ValueError, match=r"7 of 7 queries are reserved"):
        losses(prediction(1), [clip(2)], Mask2FormerLossConfig(points=POINTS, stuff_classes=tuple(range(QUERIES))))
    with pytest.raises(ValueError, match="twice"):
        Mask2FormerLossConfig(stuff_classes=(1, 1))


def test_half_precision_logits_are_widened():
    made = prediction(1, layers=0)
    half = with_logits(made, made.class_logits.half(), made.mask_logits.half())
    assert_close(losses(half, [clip(3)]), losses(made, [clip(3)]), atol=2e-2, rtol=2e-2)


def test_masks_are_counted_over_all_training_workers(monkeypatch):
    """Another worker with nine masks more: the mean is what both divide by."""
    made = prediction(1)
    targets = [clip(3)]
    alone = losses(made, targets)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(9))
    shared = losses(made, targets)
    for name in ("mask", "dice", "mask_aux"):
        assert_close(shared[name], alone[name] * 3 / 6)
    assert_close(shared["class"], alone["class"])


def test_the_config_picks_the_criterion():
    assert isinstance(build_clip_criterion(CONFIG), Mask2FormerCriterion)
    assert isinstance(build_clip_criterion(KMaxLossConfig()), KMaxCriterion)
    with pytest.raises(ValueError, match="describes no losses"):
        build_clip_criterion(POINTS)


