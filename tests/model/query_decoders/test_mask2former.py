"""Masked attention: the masks against the plain formula, and the effect of order and positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from model.query_decoders.mask2former import Mask2FormerDecoderConfig, MaskedAttentionDecoder

CONFIG = Mask2FormerDecoderConfig(num_queries=6, dim=16, heads=4, ffn=32, layers=4)
SIDES = ((2, 3), (4, 6), (8, 12))


def decoder_of(**changes) -> MaskedAttentionDecoder:
    torch.manual_seed(2)
    return MaskedAttentionDecoder(replace(CONFIG, **changes), channels=16, embedding=8, num_classes=3).eval()


def clip_of(frames: int = 2, batch: int = 1) -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(5)
    return [torch.randn(batch * frames, 16, *side) for side in SIDES], torch.randn(batch, 8, frames, 16, 24)


def masks_as_published(decoder: MaskedAttentionDecoder, queries, pixel_features, size) -> torch.Tensor:
    """Resized mask logits, sigmoid, threshold at one half; all pixels for an empty mask. b n (t h w) bool."""
    logits = decoder.predict(queries, pixel_features).mask_logits
    frames = logits.shape[2]
    resized = F.interpolate(rearrange(logits, "b n t h w -> (b t) n h w"), size=size, mode="bilinear",
                            align_corners=False)
    allowed = rearrange(resized, "(b t) n h w -> b n (t h w)", t=frames).sigmoid() >= 0.5
    allowed[~allowed.any(-1)] = True
    return allowed


@torch.no_grad()
def test_resizing_features_once_gives_the_masks_of_resizing_every_mask():
    decoder = decoder_of()
    (maps, pixels) = clip_of()
    queries = torch.randn(1, 6, 16)
    for index, one in enumerate(maps):
        level = decoder._level(index, one, pixels, frames=2)
        allowed = decoder._allowed(queries, level.pixel_features)
        assert torch.equal(allowed, masks_as_published(decoder, queries, pixels, one.shape[-2:]))
        assert 0.1 < allowed.float().mean() < 0.9


@torch.no_grad()
def test_a_query_whose_mask_is_empty_attends_everywhere():
    decoder = decoder_of()
    nn.init.zeros_(decoder.mask_head[-1].weight)
    nn.init.ones_(decoder.mask_head[-1].bias)
    pixels = torch.ones(1, 8, 10)
    assert decoder._allowed(torch.randn(1, 6, 16), -pixels).all()
    pixels[..., 3] = -1
    assert torch.equal(decoder._allowed(torch.randn(1, 6, 16), -pixels)[0, 0].nonzero()[:, 0], torch.tensor([3]))


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_permuting_the_learned_queries_permutes_the_result(pre_norm):
    decoder = decoder_of(pre_norm=pre_norm)
    clip = clip_of()
    order = torch.randperm(6)
    straight = decoder(*clip)[-1]
    for learned in (decoder.initial_queries, decoder.query_positions):
        learned.copy_(learned[order].clone())
    for ours, theirs in zip(decoder(*clip)[-1], straight):
        torch.testing.assert_close(ours, theirs[:, order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_supervision_adds_a_prediction_before_the_first_layer_and_after_each():
    decoder = decoder_of()
    clip = clip_of()
    predictions = decoder(*clip, supervise=True)
    (only,) = decoder(*clip)
    assert len(predictions) == 1 + 4
    assert torch.equal(predictions[0].queries[0], decoder.initial_queries)
    assert torch.equal(predictions[-1].mask_logits, only.mask_logits)


@torch.no_grad()
def test_the_order_of_frames_matters_with_positions_in_the_clip_and_not_in_the_frame():
    maps, pixels = clip_of()
    swapped = [one.flip(0) for one in maps], pixels.flip(2)
    for positions, same in (("frame", True), ("clip", False)):
        decoder = decoder_of(positions=positions)
        one = decoder(maps, pixels)[-1]
        other = decoder(*swapped)[-1]
        assert torch.allclose(one.queries, other.queries, atol=1e-4) == same


@torch.no_grad()
def test_a_batch_of_two_clips_equals_two_of_one():
    decoder = decoder_of()
    (maps, pixels) = clip_of(batch=2)
    together = decoder(maps, pixels)[-1]
    for clip in range(2):
        alone = decoder([one[2 * clip:2 * clip + 2] for one in maps], pixels[clip:clip + 1])[-1]
        for ours, theirs in zip(alone, together):
            torch.testing.assert_close(ours[0], theirs[clip], atol=1e-4, rtol=1e-4)


def test_maps_of_another_width_are_projected_and_others_on_request():
    for channels, project, parameters in ((16, False, 0), (16, True, 6), (12, False, 6)):
        decoder = MaskedAttentionDecoder(replace(CONFIG, project_maps=project), channels=channels, embedding=8,
                                         num_classes=3)
        assert len(list(decoder.projections.parameters())) == parameters


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"num_queries": 0}, "num_queries=0"), ({"heads": 3}, "multiple of the heads"), ({"levels": 0}, "levels=0"),
    ({"positions": "video"}, "positions='video'"),
])
def test_impossible_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        decoder_of(**changes)
