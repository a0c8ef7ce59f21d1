from __future__ import annotations

import torch
from torch.testing import assert_close

from model.losses.matching import assign, mask_similarities, match_queries
from model.losses.targets import NO_TUBE, clip_targets
from tests.model.losses.world import CLASSES, QUERIES, clip, perfect_logits, random_prediction


def test_matching_finds_the_query_of_each_tube_in_any_order():
    for seed in range(5):
        order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(seed))[:4].tolist()
        class_logits, mask_logits = perfect_logits(clip(4, seed=seed), order=order)
        matches = match_queries(class_logits, mask_logits.flatten(2), clip_targets([clip(4, seed=seed)]))
        assert matches.query_of_tube[0].tolist() == order
        assert [matches.tube_of_query[0, query].item() for query in order] == [0, 1, 2, 3]
        assert_close(matches.of_tube(matches.mask_similarity), torch.ones(1, 4))
        assert_close(matches.of_tube(matches.class_similarity), torch.ones(1, 4))


def test_a_batch_is_matched_like_its_clips_one_by_one():
    clips = [clip(3), clip(0), clip(5, seed=1)]
    prediction = random_prediction(3)
    masks = prediction.mask_logits.detach().flatten(2)
    together = match_queries(prediction.class_logits, masks, clip_targets(clips))
    for item, target in enumerate(clips):
        alone = match_queries(prediction.class_logits[item:item + 1], masks[item:item + 1], clip_targets([target]))
        tubes = alone.query_of_tube.shape[1]
        assert torch.equal(together.query_of_tube[item, :tubes], alone.query_of_tube[0])
        assert torch.equal(together.tube_of_query[item], alone.tube_of_query[0])
        assert_close(together.mask_similarity[item, :, :tubes], alone.mask_similarity[0])
        assert_close(together.void_share[item], alone.void_share[0])


def test_a_clip_without_tubes_has_no_matches():
    prediction = random_prediction(1)
    matches = match_queries(prediction.class_logits, prediction.mask_logits.flatten(2), clip_targets([clip(0)]))
    assert not matches.is_matched.any()
    assert (matches.tube_of_query == NO_TUBE).all()
    assert_close(matches.void_share, torch.ones(1, QUERIES), atol=1e-4, rtol=0)


def test_with_fewer_queries_than_tubes_the_best_tubes_are_matched():
    queries, tubes = assign(torch.tensor([[[0.1, 0.9, 0.2], [0.8, 0.7, 0.1]]]), torch.ones(1, 3, dtype=torch.bool))
    assert queries.tolist() == [[1, 0, NO_TUBE]]
    assert tubes.tolist() == [[1, 0]]


def test_predictions_on_void_change_the_similarity_of_masks_only_if_void_counts():
    target = clip(3)
    targets = clip_targets([target])
    logits = random_prediction(1).mask_logits.detach()
    disturbed = torch.where(target.void, 9 * torch.randn(logits.shape), logits)
    before, _ = mask_similarities(logits.flatten(2), targets)
    after, _ = mask_similarities(disturbed.flatten(2), targets)
    assert_close(before, after)
    counted, _ = mask_similarities(disturbed.flatten(2), targets.counting_void())
    assert (counted < after).any()
    again, _ = mask_similarities(disturbed.flatten(2), targets.counting_void().ignoring_void())
    assert_close(again, after)


def test_similarity_is_dice_times_the_probability_of_the_class():
    target = clip(2)
    prediction = random_prediction(1)
    matches = match_queries(prediction.class_logits, prediction.mask_logits.flatten(2), clip_targets([target]))
    masks = prediction.mask_logits.softmax(1)[0] * ~target.void
    for query in range(QUERIES):
        for tube in range(2):
            overlap = masks[query][target.masks[tube]].sum()
            dice = 2 * overlap / (masks[query].sum() + target.masks[tube].sum())
            assert_close(matches.mask_similarity[0, query, tube], dice, atol=1e-5, rtol=1e-4)
            probability = prediction.class_logits[0, query].softmax(-1)[target.classes[tube]]
            assert_close(matches.class_similarity[0, query, tube], probability)
    assert prediction.class_logits.shape[-1] == CLASSES + 1


def test_a_diverged_prediction_is_matched_so_that_its_loss_can_be_reported():
    prediction = random_prediction(1)
    matches = match_queries(prediction.class_logits * torch.nan, prediction.mask_logits.flatten(2),
                            clip_targets([clip(3)]))
    assert matches.is_matched.all()
