from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from model.contracts import ClipPrediction, LayerPrediction
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from model.losses.pixels import semantic_loss
from model.losses.targets import clip_targets
from tests.model.losses.world import FRAMES, HEIGHT, QUERIES, WIDTH, clip, items, perfect_logits, random_prediction

EVERY_PIXEL = KMaxLossConfig(semantic_samples=0)      # the clips have 160 pixels: nothing is left to chance
TERMS = ["class", "mask", "dice", "pixel", "semantic"]


def test_a_batch_equals_its_clips_one_by_one():
    clips = [clip(3), clip(0), clip(5, seed=1)]
    prediction = random_prediction(3)
    together = KMaxCriterion(EVERY_PIXEL)(prediction, clips)
    alone = [KMaxCriterion(EVERY_PIXEL)(one, [target]) for one, target in zip(items(prediction), clips)]
    assert list(together) == TERMS + [f"{name}_aux" for name in TERMS[:-1]]
    for name, loss in together.items():
        assert_close(loss, sum(one[name] for one in alone) / 3, atol=1e-5, rtol=1e-5)


def test_the_order_of_queries_changes_nothing():
    prediction = random_prediction(1)
    order = torch.randperm(QUERIES)
    def shuffled(layer):
        return {"class_logits": layer.class_logits[:, order], "mask_logits": layer.mask_logits[:, order]}
    other = replace(prediction, **shuffled(prediction),
                    auxiliary=tuple(replace(layer, **shuffled(layer)) for layer in prediction.auxiliary))
    assert_close(KMaxCriterion(EVERY_PIXEL)(other, [clip(4)]), KMaxCriterion(EVERY_PIXEL)(prediction, [clip(4)]))


def test_weights_multiply_the_terms_and_zero_switches_them_off():
    prediction = random_prediction(2)
    clips = [clip(3), clip(4)]
    ones = KMaxCriterion(replace(EVERY_PIXEL, class_weight=1, dice_weight=1, mask_weight=1))(prediction, clips)
    some = KMaxCriterion(replace(EVERY_PIXEL, class_weight=2, dice_weight=0, mask_weight=0.5, pixel_weight=3,
                                 semantic_weight=0))(prediction, clips)
    expected = {"class": 2, "mask": 0.5, "pixel": 3}
    assert set(some) == {*expected, *(f"{name}_aux" for name in expected)}
    for name, loss in some.items():
        assert_close(loss, expected[name.removesuffix("_aux")] * ones[name])


def test_layers_count_equally():
    prediction = random_prediction(1, layers=0)
    again = LayerPrediction(class_logits=prediction.class_logits, mask_logits=prediction.mask_logits,
                            pixel_features=prediction.pixel_features)
    losses = KMaxCriterion(EVERY_PIXEL)(replace(prediction, auxiliary=(again,) * 3), [clip(4)])
    for name in TERMS[:-1]:
        assert_close(losses[f"{name}_aux"], 3 * losses[name])


def test_a_perfect_prediction_has_almost_no_class_mask_and_dice_loss():
    class_logits, mask_logits = perfect_logits(clip(4), order=[6, 2, 0, 3])
    prediction = replace(random_prediction(1, layers=0), class_logits=class_logits, mask_logits=mask_logits)
    losses = KMaxCriterion(EVERY_PIXEL)(prediction, [clip(4)])
    assert losses["class"] < 1e-5
    assert losses["dice"] < 1e-5
    assert losses["mask"] < 1e-5


@pytest.mark.parametrize("target", [clip(0), clip(1, void_rows=HEIGHT), clip(2 * QUERIES, void_rows=0)],
                         ids=["no tube", "tube without pixels", "more tubes than queries"])
@pytest.mark.parametrize("share", [True, False])
def test_unusual_clips_give_finite_losses_and_gradients_for_every_output(target, share):
    prediction = random_prediction(1)
    losses = KMaxCriterion(replace(EVERY_PIXEL, share_matching=share))(prediction, [target])
    sum(losses.values()).backward()
    for layer in (prediction, *prediction.auxiliary):
        for output in (layer.class_logits, layer.mask_logits, layer.pixel_features):
            assert torch.isfinite(output.grad).all()
    assert torch.isfinite(prediction.semantic_logits.grad).all()


def test_pixels_of_tubes_without_a_query_keep_their_class_in_the_semantic_loss():
    prediction = random_prediction(1, layers=0)
    target = clip(2 * QUERIES)
    expected = semantic_loss(prediction.semantic_logits.flatten(2), clip_targets([target]))[0]
    assert_close(KMaxCriterion(replace(EVERY_PIXEL, semantic_weight=1))(prediction, [target])["semantic"], expected)


def test_an_image_is_a_clip_of_one_frame_and_frames_of_a_clip_are_one_volume():
    target = clip(4)
    prediction = random_prediction(1, layers=0)

    def tall(maps):        # the frames of a clip below each other: an image
        return maps.flatten(2, 3)[:, :, None] if maps.ndim == 5 else maps.flatten(1, 2)[:, None]

    maps = ("mask_logits", "pixel_features", "semantic_logits")
    image = replace(prediction, **{name: tall(getattr(prediction, name)) for name in maps})
    target_image = replace(target, masks=tall(target.masks), void=target.void.flatten(0, 1)[None])
    assert image.mask_logits.shape == (1, QUERIES, 1, FRAMES * HEIGHT, WIDTH)
    assert_close(KMaxCriterion(EVERY_PIXEL)(image, [target_image]), KMaxCriterion(EVERY_PIXEL)(prediction, [target]))


def test_own_matching_follows_each_layer():
    class_logits, mask_logits = perfect_logits(clip(4))
    right = LayerPrediction(class_logits=class_logits, mask_logits=mask_logits)
    wrong = LayerPrediction(class_logits=class_logits.flip(1), mask_logits=mask_logits.flip(1))
    prediction = ClipPrediction(class_logits=right.class_logits, mask_logits=right.mask_logits, auxiliary=(wrong,),
                          queries=torch.empty(0), mask_embeddings=torch.empty(0), pixel_features=torch.empty(0))
    config = replace(EVERY_PIXEL, pixel_weight=0)
    assert KMaxCriterion(config)(prediction, [clip(4)])["class_aux"] > 1
    assert KMaxCriterion(replace(config, share_matching=False))(prediction, [clip(4)])["class_aux"] < 1e-5


def test_the_generator_decides_which_pixels_are_drawn():
    prediction = random_prediction(1)
    config = replace(EVERY_PIXEL, pixel_samples=20, semantic_samples=20)
    def losses(seed):
        return KMaxCriterion(config)(prediction, [clip(4)], generator=torch.Generator().manual_seed(seed))
    assert_close(losses(1), losses(1), atol=0, rtol=0)
    assert losses(1)["pixel"] != losses(2)["pixel"]


def test_losses_are_computed_in_float32_under_autocast():
    prediction = random_prediction(1)
    plain = KMaxCriterion(EVERY_PIXEL)(prediction, [clip(4)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = KMaxCriterion(EVERY_PIXEL)(prediction, [clip(4)])
    assert_close(mixed, plain, atol=0, rtol=0)


def test_half_precision_predictions_are_widened_and_their_gradients_are_not():
    prediction = random_prediction(1, layers=0)
    half, wide = (replace(prediction, **{
        name: getattr(prediction, name).detach().bfloat16().to(dtype).requires_grad_()
        for name in ("class_logits", "mask_logits", "pixel_features", "semantic_logits")})
        for dtype in (torch.bfloat16, torch.float32))
    losses = [KMaxCriterion(EVERY_PIXEL)(one, [clip(4)]) for one in (half, wide)]
    assert_close(losses[0], losses[1])
    for terms in losses:
        sum(terms.values()).backward()
    assert_close(half.mask_logits.grad, wide.mask_logits.grad.bfloat16())
    assert_close(half.pixel_features.grad, wide.pixel_features.grad.bfloat16())


def test_no_layer_keeps_a_map_of_all_queries_or_a_matrix_of_all_samples():
    prediction = random_prediction(1)
    kept = []
    given = {leaf.data_ptr() for layer in (prediction, *prediction.auxiliary)
             for leaf in (layer.mask_logits, layer.pixel_features)}
    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in given:
            kept.append(tensor.untyped_storage().nbytes() // 4)
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        KMaxCriterion(replace(EVERY_PIXEL, semantic_weight=0))(prediction, [clip(2)])
    pixels = prediction.mask_logits[0, 0].numel()
    assert kept
    assert max(kept) < min(QUERIES * pixels, pixels ** 2)


def test_a_layer_without_pixel_features_is_refused_with_the_cure():
    prediction = random_prediction(1, layers=0)
    bare = LayerPrediction(class_logits=prediction.class_logits, mask_logits=prediction.mask_logits)
    with pytest.raises(ValueError, match="pixel_weight=0"):
        KMaxCriterion(EVERY_PIXEL)(replace(prediction, auxiliary=(bare,)), [clip(3)])


@pytest.mark.parametrize("wrong", [{"dice_weight": -1}, {"pixel_samples": 0}, {"similarity_temperature": 0.0}])
def test_a_config_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KMaxLossConfig(**wrong)
