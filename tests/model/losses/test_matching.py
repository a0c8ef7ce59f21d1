from __future__ import annotations

import torch
from torch.testing import assert_close

from model.losses.matching import assign, mask_similarities, match_queries
from model.losses.targets import NO_TUBE, clip_targets
from tests.model.losses.world import CLASSES, QUERIES, clip, perfect_logits, prediction


def test_matching_finds_the_query_that_answers_for_each_tube_in_any_order():
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
    made = prediction(3)
    masks = made.mask_logits.detach().flatten(2)
    together = match_queries(made.class_logits, masks, clip_targets(clips))
    for item, target in enumerate(clips):
        alone = match_queries(made.class_logits[item:item + 1], masks[item:item + 1], clip_targets([target]))
        tubes = alone.query_of_tube.shape[1]
        assert torch.equal(together.query_of_tube[item, :tubes], alone.query_of_tube[0])
        assert torch.equal(together.tube_of_query[item], alone.tube_of_query[0])
        assert_close(together.mask_similarity[item, :, :tubes], alone.mask_similarity[0])
        assert_close(together.void_share[item], alone.void_share[0])


def test_a_clip_without_tubes_has_no_matches():
    made = prediction(1)
    matches = match_queries(made.class_logits, made.mask_logits.flatten(2), clip_targets([clip(0)]))
    assert not matches.is_matched.any()
    assert (matches.tube_of_query == NO_TUBE).all()
    assert_close(matches.void_share, torch.ones(1, QUERIES), atol=1e-4, rtol=0)


def test_with_fewer_queries_than_tubes_the_best_tubes_are_matched():
    queries, tubes = assign(torch.tensor([[[0.1, 0.9, 0.2], [0.8, 0.7, 0.1]]]), torch.ones(1, 3, dtype=torch.bool))
    assert queries.tolist() == [[1, 0, NO_TUBE]]
    assert tubes.tolist() == [[1, 0]]


def test_predictions_on_void_do_not_change_the_similarity_of_masks():
    target = clip(3)
    made = prediction(1).mask_logits.detach()
    disturbed = torch.where(target.void, 9 * torch.randn(made.shape), made)
    before, _ = mask_similarities(made.flatten(2), clip_targets([target]))
    after, _ = mask_similarities(disturbed.flatten(2), clip_targets([target]))
    assert_close(before, after)
    counted, _ = mask_similarities(disturbed.flatten(2), clip_targets([target]).counting_void())
    assert_close(counted, after)        # a switch of the dice loss, which the public code's matcher never sees


def test_similarity_is_dice_times_the_probability_of_the_class():
    target = clip(2)
    made = prediction(1)
    matches = match_queries(made.class_logits, made.mask_logits.flatten(2), clip_targets([target]))
    masks = made.mask_logits.softmax(1)[0] * ~target.void
    for query in range(QUERIES):
        for tube in range(2):
            overlap = masks[query][target.masks[tube]].sum()
            dice = 2 * overlap / (masks[query].sum() + target.masks[tube].sum())
            assert_close(matches.mask_similarity[0, query, tube], dice, atol=1e-5, rtol=1e-4)
            probability = made.class_logits[0, query].softmax(-1)[target.classes[tube]]
            assert_close(matches.class_similarity[0, query, tube], probability)
    assert made.class_logits.shape[-1] == CLASSES + 1


def test_a_diverged_prediction_is_matched_somehow_so_that_the_loss_can_name_itself():
    made = prediction(1)
    matches = match_queries(made.class_logits * torch.nan, made.mask_logits.flatten(2), clip_targets([clip(3)]))
    assert matches.is_matched.all()
