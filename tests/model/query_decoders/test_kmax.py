"""k-means query decoder: layout of clips, deep supervision, starting point and precision."""

import math
from dataclasses import replace

import pytest
import torch

from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig

CHANNELS = (8, 10, 12, 14)    # strides 4, 8, 16, 32
SMALL = KMaxDecoderConfig(layers=(1, 1, 1), num_queries=5, dim=16, embedding=6, ffn=24, heads=4, drop_path=0.0)


def maps_of(clips: int, frames: int) -> list[torch.Tensor]:
    return [torch.randn(clips * frames, c, s, s + 1) for c, s in zip(CHANNELS, (16, 8, 4, 2))]


def decoder_of(**changes) -> KMaxDecoder:
    """A decoder with random norms, because norms that start at zero would hide mistakes."""
    torch.manual_seed(1)
    decoder = KMaxDecoder(replace(SMALL, residual_norm_scale=1.0, **changes), channels=CHANNELS, num_classes=3)
    return decoder.eval()


@torch.inference_mode()
def test_shapes_are_those_of_the_contract():
    prediction = decoder_of()(maps_of(2, 3), frames=3, supervise=True)
    assert prediction.class_logits.shape == (2, 5, 4)
    assert prediction.mask_logits.shape == (2, 5, 3, 16, 17)
    assert prediction.queries.shape == (2, 5, 16)
    assert prediction.mask_embeddings.shape == (2, 5, 6)
    assert prediction.pixel_features.shape == (2, 6, 3, 16, 17)
    assert [layer.mask_logits.shape for layer in prediction.auxiliary] == [(2, 5, 3, 16, 17)] * 3
    assert [layer.pixel_features.shape for layer in prediction.auxiliary] == [(2, 6, 3, 16, 17)] * 3


@torch.inference_mode()
def test_a_batch_of_two_clips_equals_two_batches_of_one():
    decoder = decoder_of()
    maps = maps_of(2, 2)
    together = decoder(maps, frames=2)
    for clip in range(2):
        alone = decoder([m[2 * clip:2 * clip + 2] for m in maps], frames=2)
        for field in ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features"):
            torch.testing.assert_close(getattr(together, field)[clip], getattr(alone, field)[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_supervision_adds_layers_and_changes_nothing_else():
    decoder = decoder_of()
    maps = maps_of(1, 2)
    plain = decoder(maps, frames=2)
    supervised = decoder(maps, frames=2, supervise=True)
    assert plain.auxiliary == ()
    assert torch.equal(plain.mask_logits, supervised.mask_logits)
    assert torch.equal(plain.class_logits, supervised.class_logits)


@torch.inference_mode()
def test_pixel_features_of_layers_are_left_out_on_request():
    layers = decoder_of(supervise_pixels=False)(maps_of(1, 2), frames=2, supervise=True).auxiliary
    assert all(layer.pixel_features is None and layer.mask_logits is not None for layer in layers)


@torch.inference_mode()
def test_frames_mix_at_their_borders_only_if_the_config_allows_it():
    """Pixel features, before any query is involved: the official depthwise convolution reads across frames."""
    maps = maps_of(1, 2)
    changed = [m.clone() for m in maps]
    for m in changed:
        m[1] = torch.randn_like(m[1])
    for crosses, rows_that_differ in ((True, [14, 15]), (False, [])):
        decoder = decoder_of(depthwise_crosses_frames=crosses)
        first, second = (decoder(m, frames=2).pixel_features[0, :, 0] for m in (maps, changed))
        differing = (first - second).abs().amax(dim=(0, 2)) > 1e-6
        assert differing.nonzero().flatten().tolist() == rows_that_differ


@torch.inference_mode()
def test_mask_logits_are_scaled_dot_products_of_the_returned_tensors():
    decoder = decoder_of()
    prediction = decoder(maps_of(2, 2), frames=2)
    dots = torch.einsum("bnd,bdthw->bnthw", prediction.mask_embeddings, prediction.pixel_features)
    torch.testing.assert_close(decoder.predictor.mask_norm(dots[:, None].flatten(3, 4))[:, 0],
                               prediction.mask_logits.flatten(2, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prediction.pixel_features.norm(dim=1), torch.ones(2, 2, 16, 17))


@torch.inference_mode()
def test_training_starts_at_the_prior_of_no_object():
    probability = decoder_of()(maps_of(1, 1), frames=1).class_logits.softmax(-1)[..., -1]
    assert torch.all((probability - 0.9).abs() < 0.02)
    assert decoder_of().predictor.no_object_bias == pytest.approx(math.log(3 * 0.9 / 0.1))


@torch.inference_mode()
def test_permuting_the_learned_queries_permutes_the_results():
    decoder = decoder_of()
    maps = maps_of(1, 2)
    order = torch.randperm(5)
    before = decoder(maps, frames=2)
    decoder.initial_queries.copy_(decoder.initial_queries[:, order])
    after = decoder(maps, frames=2)
    torch.testing.assert_close(after.mask_logits, before.mask_logits[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.class_logits, before.class_logits[:, order], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_mask_embeddings_are_a_projection_of_the_appearance():
    decoder = decoder_of()
    prediction = decoder(maps_of(1, 2), frames=2)
    assert prediction.appearance.shape == prediction.queries.shape
    projected = decoder.predictor.mask_head(prediction.appearance.mT).mT
    torch.testing.assert_close(projected, prediction.mask_embeddings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_autocast_stays_close_to_single(dtype):
    decoder = decoder_of()
    maps = maps_of(1, 2)
    exact = decoder(maps, frames=2)
    with torch.autocast("cpu", dtype=dtype):
        half = decoder(maps, frames=2)
    assert half.mask_logits.isfinite().all()
    assert (half.pixel_features.float() - exact.pixel_features).abs().max() < 0.1


@pytest.mark.parametrize(("change", "message"), [
    ({"layers": (0, 0, 0)}, "above 0"),
    ({"dim": 250}, "multiple of 16"),
    ({"num_queries": 0}, "num_queries=0"),
    ({"pixel_depthwise": 4}, "odd"),
    ({"void_prior": 1.0}, "void_prior"),
])
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        KMaxDecoderConfig(**change)


@torch.inference_mode()
def test_layers_reach_stride_4_with_aligned_corners_where_the_deciding_side_is_odd():
    """The corner pixels of the masks of a layer then stay unchanged; maps here are 16 high and 17 wide."""
    by_width, by_height = (decoder_of(corners_by=side) for side in ("width", "height"))
    maps = maps_of(1, 1)
    layer = by_width.layers[0]
    _, prediction = layer(by_width.initial_queries[None], torch.nn.functional.gelu(maps[3]), frames=1, supervise=True)
    corner = prediction.mask_logits[..., -1, -1]
    aligned, not_aligned = (decoder(maps, frames=1, supervise=True).auxiliary[0].mask_logits
                            for decoder in (by_width, by_height))
    assert torch.equal(aligned[:, :, 0, -1, -1], corner)
    assert not torch.allclose(aligned, not_aligned)
    with pytest.raises(ValueError, match="corners_by='both'"):
        KMaxDecoderConfig(corners_by="both")
