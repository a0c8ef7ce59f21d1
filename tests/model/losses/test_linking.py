from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.contracts import ClipPrediction, ClipTargets
from model.losses.linking import (
    LinkingCriterion,
    LinkingLossConfig,
    clip_pairs,
    clips_of,
    contrast_loss,
    cosine_loss,
    pair_losses,
    tube_overlaps,
)
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig
from model.losses.points import PointConfig
from tests.model.losses.world import CLASSES, QUERIES, clip, items, perfect_logits, random_prediction

DIM = 8


def plain_contrast(similarity, labels):
    """log(1 + sum over pairs of exp(other - partner)), pair by pair."""
    rows = []
    for row, label in zip(similarity, labels):
        if (label == 1).any():
            pairs = [torch.exp(other - partner) for partner in row[label == 1] for other in row[label == 0]]
            rows.append(torch.log(1 + sum(pairs, torch.zeros(()))))
    return torch.stack(rows).mean()


@pytest.mark.parametrize("seed", range(5))
def test_the_product_of_sums_equals_the_sum_over_pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = (3 * torch.randn(6, 5, generator=generator)).requires_grad_()
    labels = torch.randint(-1, 2, (6, 5), generator=generator)
    # only partners; no partner
    labels[0] = 1
    labels[1] = 0
    plain = plain_contrast(similarity, labels)
    expected, = torch.autograd.grad(plain, similarity)
    loss = contrast_loss(similarity, labels)
    assert_close(loss, plain)
    assert_close(torch.autograd.grad(loss, similarity)[0], expected)


def test_large_similarities_stay_finite():
    similarity = torch.tensor([[900.0, -900.0], [-900.0, 900.0]], requires_grad=True)
    wrong = contrast_loss(similarity, torch.tensor([[0, 1], [1, 0]]))
    wrong.backward()
    assert_close(wrong, torch.tensor(1800.0))
    assert similarity.grad.isfinite().all()
    assert contrast_loss(similarity, torch.eye(2)) == 0


def test_cosines_count_partners_and_the_hardest_others():
    cosine = torch.tensor([[0.6, 0.9, 0.5, 0.1, 0.05]])
    labels = torch.tensor([[1, 0, 0, 0, 0]])
    hardest = cosine_loss(cosine, labels, margin=0.1, ratio=2)
    assert_close(hardest, torch.tensor(((0.6 - 1) ** 2 + 0.8 ** 2 + 0.4 ** 2) / 3))
    everything = cosine_loss(cosine, labels, margin=0.1, ratio=9)
    assert_close(everything, torch.tensor(((0.6 - 1) ** 2 + 0.8 ** 2 + 0.4 ** 2) / 5))
    unclear = cosine_loss(cosine, torch.tensor([[1, -1, 0, 0, 0]]), margin=0.1, ratio=9)
    assert_close(unclear, torch.tensor(((0.6 - 1) ** 2 + 0.4 ** 2) / 4))


@pytest.fixture
def linking():
    return TubeLinking(TubeLinkingConfig(dim=DIM, heads=2, ffn=16))


def pair(*, order=(0, 1, 2), others=(3, 4, 5)) -> tuple[ClipPrediction, list[ClipTargets]]:
    """A key and a reference clip of three objects, perfectly predicted by the queries `order` and `others`."""
    torch.manual_seed(0)
    target = clip(3)
    parts = [perfect_logits(target, order=queries) for queries in (order, others)]
    queries = torch.randn(2, QUERIES, DIM)
    return ClipPrediction(class_logits=torch.cat([part[0] for part in parts]),
                          mask_logits=torch.cat([part[1] for part in parts]), queries=queries,
                          mask_embeddings=queries, pixel_features=torch.empty(0)), [target, target]


@pytest.mark.parametrize("assignment", ["matched", "overlap"])
def test_both_rules_compare_the_queries_of_the_same_objects(linking, assignment):
    prediction, targets = pair()
    criterion = LinkingCriterion(LinkingLossConfig(assignment=assignment, points=64))
    losses = criterion(linking, prediction, targets, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        key = linking.embeddings(linking(prediction.queries[:1], prediction.queries[1:]))[0, [0, 1, 2]]
        reference = linking.embeddings(prediction.queries[1, [3, 4, 5]])
    assert_close(losses["contrast"].detach(), 0.25 * plain_contrast(key @ reference.T, torch.eye(3)))
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in linking.parameters())


def test_dense_queries_are_compared_with_all_of_the_clip_before(linking):
    """The other queries of the reference clip show no object, so each is a negative of every object."""
    prediction, targets = pair()
    losses = LinkingCriterion(LinkingLossConfig(assignment="dense"))(linking, prediction, targets)
    with torch.no_grad():
        key = linking.embeddings(linking(prediction.queries[:1], prediction.queries[1:]))[0, [0, 1, 2]]
        reference = linking.embeddings(prediction.queries[1])
    labels = torch.zeros(3, QUERIES)
    labels[[0, 1, 2], [3, 4, 5]] = 1
    assert_close(losses["contrast"].detach(), 0.25 * plain_contrast(key @ reference.T, labels))


def test_tracks_and_not_the_order_of_tubes_decide_which_objects_are_the_same(linking):
    prediction, (key, reference) = pair()
    criterion = LinkingCriterion(LinkingLossConfig(assignment="overlap"))
    order = torch.tensor([2, 0, 1])
    renamed = replace(reference, masks=reference.masks[order], classes=reference.classes[order],
                      track_ids=reference.track_ids[order])
    assert_close(criterion(linking, prediction, [key, renamed]), criterion(linking, prediction, [key, reference]))
    other = replace(reference, track_ids=reference.track_ids[order])
    losses, others = (criterion(linking, prediction, [key, target]) for target in (reference, other))
    assert losses["contrast"] != others["contrast"]


def test_half_overlapping_queries_are_left_out_by_the_paper_only(linking):
    """A query that covers half of its object has an IoU of 0.5. The code matches it; the paper does not assign it.

    The half is the first of its frames, so the first frame alone assigns it.
    """
    prediction, targets = pair()
    masks = prediction.mask_logits.clone()
    masks[1, 3, 1:] = -20.0
    half = replace(prediction, mask_logits=masks)
    assert 0.3 < tube_overlaps(masks, targets)[1, 3].max() < 0.7
    for assignment, by, changes in (("matched", "clip", False), ("overlap", "clip", True),
                                    ("overlap", "first_frame", False)):
        criterion = LinkingCriterion(LinkingLossConfig(assignment=assignment, assigned_by=by, points=64))
        first, second = (criterion(linking, each, targets, generator=torch.Generator().manual_seed(0))
                         for each in (prediction, half))
        assert (first["contrast"] != second["contrast"]) == changes


def test_pairs_that_are_neither_the_same_nor_clearly_different_are_not_compared(linking):
    """With tracks that overlap by half, a query of one is no negative for the other, so there is no loss."""
    prediction, (key, _) = pair()
    masks = torch.zeros(2, *key.void.shape, dtype=torch.bool)
    masks[0, :, :, :6] = masks[1, :, :, 2:8] = True                 # IoU 4 / 8
    target = ClipTargets(masks=masks, classes=torch.tensor([0, 1]), track_ids=torch.arange(2), void=~masks.any(0))
    class_logits, mask_logits = perfect_logits(target)
    prediction = replace(prediction, class_logits=class_logits.expand(2, -1, -1),
                         mask_logits=mask_logits.expand(2, -1, -1, -1, -1))
    for threshold, compared in ((0.3, False), (0.6, True)):
        config = LinkingLossConfig(assignment="overlap", different_overlap=threshold)
        assert (LinkingCriterion(config)(linking, prediction, [target, target])["contrast"] > 0) == compared


@pytest.mark.parametrize("assignment", ["matched", "overlap", "dense"])
@pytest.mark.parametrize("tubes", [(0, 0), (3, 0), (0, 3)])
def test_clips_without_common_objects_have_no_loss_and_keep_the_graph(linking, assignment, tubes):
    prediction, _ = pair()
    losses = LinkingCriterion(LinkingLossConfig(assignment=assignment, points=16))(
        linking, prediction, [clip(count) for count in tubes])
    assert sum(losses.values()) == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in linking.parameters())


def test_a_tube_that_is_not_in_the_first_frame_is_not_assigned_by_it(linking):
    prediction, (key, reference) = pair()
    hidden = replace(reference, masks=reference.masks.clone())
    hidden.masks[:, 0] = False
    nothing = LinkingCriterion(LinkingLossConfig(assigned_by="first_frame", points=64))(
        linking, prediction, [key, hidden])
    assert sum(nothing.values()) == 0


def test_reserved_queries_and_stuff_have_no_part(linking):
    prediction, targets = pair()
    stuff = tuple(int(label) for label in targets[0].classes.unique())
    assert len(stuff) < CLASSES
    nothing = LinkingCriterion(LinkingLossConfig(stuff_classes=stuff, points=16))(linking, prediction, targets)
    assert sum(nothing.values()) == 0


def test_a_batch_of_pairs_is_the_mean_of_its_pairs(linking):
    (one, targets) = pair()
    (two, _) = pair(order=(6, 5, 4), others=(0, 1, 2))
    together = replace(one, **{name: torch.stack([getattr(each, name)[part] for part in (0, 1) for each in (one, two)])
                               for name in ("class_logits", "mask_logits", "queries", "mask_embeddings")})
    criterion = LinkingCriterion(LinkingLossConfig(assignment="overlap"))
    batch = criterion(linking, together, targets * 2)
    alone = [criterion(linking, each, targets) for each in (one, two)]
    for name, loss in batch.items():
        assert_close(loss, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize("tubes", [(3, 1), (2, 0)])
def test_segmentation_losses_of_both_clips_are_added_each_normalised_by_itself(tubes):
    prediction = random_prediction(2)
    targets = [clip(count, seed=count) for count in tubes]
    criterion = Mask2FormerCriterion(Mask2FormerLossConfig(points=PointConfig(count=16)))
    generator = torch.Generator().manual_seed(1)
    alone = [criterion(one, [target], generator=generator) for one, target in zip(items(prediction), targets)]
    generator.manual_seed(1)
    drawn = partial(criterion, generator=generator)
    both = pair_losses(drawn, prediction, targets, segmentation="sum")
    assert_close(both, {name: alone[0][name] + alone[1][name] for name in alone[0]})
    generator.manual_seed(1)
    mean = pair_losses(drawn, prediction, targets, segmentation="mean")
    generator.manual_seed(1)
    assert_close(mean, criterion(prediction, targets, generator=generator))


def test_against_the_mean_over_both_clips_the_sum_of_equal_clips_counts_double():
    target = clip(3)
    classes, masks = (part.expand(2, *part.shape[1:]) for part in perfect_logits(target))
    prediction = replace(random_prediction(2, layers=0), class_logits=classes / 9, mask_logits=masks / 9)
    criterion = Mask2FormerCriterion(Mask2FormerLossConfig(points=PointConfig(count=16, importance=0.0)))
    both, mean = (pair_losses(criterion, prediction, [target, target], segmentation=segmentation)["class"]
                  for segmentation in ("sum", "mean"))
    assert_close(both, 2 * mean)


def test_a_part_of_a_batch_has_the_clips_of_every_field_and_layer():
    prediction = random_prediction(3)
    part = clips_of(prediction, slice(1, 3))
    for ours, whole in zip((part, *part.auxiliary), (prediction, *prediction.auxiliary), strict=True):
        for name in ("class_logits", "mask_logits", "pixel_features"):
            assert torch.equal(getattr(ours, name), getattr(whole, name)[1:])
    assert torch.equal(part.semantic_logits, prediction.semantic_logits[1:])
    assert part.alignment is None


def test_clips_are_cut_in_the_middle_and_absent_tubes_dropped():
    target = clip(3)
    target.masks[1, 1] = False
    frames = torch.arange(2 * 2 * 3).view(2, 2, 3)
    halves, targets = clip_pairs(frames, [target, clip(2)])
    assert torch.equal(halves, torch.stack([frames[0, :1], frames[1, :1], frames[0, 1:], frames[1, 1:]]))
    assert [part.track_ids.tolist() for part in targets] == [[0, 1, 2], [0, 1], [0, 2], [0, 1]]
    assert torch.equal(targets[2].masks, target.masks[[0, 2], 1:])
    with pytest.raises(ValueError, match="cannot be cut into two of one length"):
        clip_pairs(torch.zeros(1, 3, 2), [target])


def test_the_clips_of_a_pair_can_share_frames_in_the_middle():
    frames = torch.arange(5)[None, :, None].float()
    pairs, _ = clip_pairs(frames, [], shared=1)
    assert pairs[..., 0].tolist() == [[0, 1, 2], [2, 3, 4]]
    with pytest.raises(ValueError, match="share 1; choose an odd"):
        clip_pairs(frames[:, :4], [], shared=1)
    with pytest.raises(ValueError, match="share 5"):
        clip_pairs(frames, [], shared=5)


def test_an_odd_number_of_clips_and_crossed_thresholds_are_refused(linking):
    prediction, targets = pair()
    with pytest.raises(ValueError, match="not pairs"):
        LinkingCriterion(LinkingLossConfig())(linking, prediction, targets[:1])
    with pytest.raises(ValueError, match="must not be above"):
        LinkingLossConfig(same_overlap=0.2)
