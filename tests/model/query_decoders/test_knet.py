"""K-Net's decoder: pixels inside the masks update the queries, whatever the number of frames.

No output of the released code was at hand, so these are laws, and no recorded numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.query_decoders.knet import KernelUpdate, KNetDecoder, KNetDecoderConfig, inside

CONFIG = KNetDecoderConfig(num_queries=6, dim=16, heads=4, ffn=32)


@pytest.fixture
def decoder() -> KNetDecoder:
    torch.manual_seed(2)
    return CONFIG.build(channels=16, embedding=8, num_classes=3).eval()


def pixels_of(frames: int = 2, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 8, frames, 5, 7)


@torch.no_grad()
def test_a_clip_that_repeats_a_frame_is_answered_like_the_frame(decoder):
    """So a decoder that was trained on frames can be fed with tubes."""
    frame = pixels_of(1)
    one = decoder((), frame)[-1]
    twice = decoder((), frame.expand(-1, -1, 2, -1, -1))[-1]
    assert_close(twice.class_logits, one.class_logits)
    assert_close(twice.mask_logits, one.mask_logits.expand(-1, -1, 2, -1, -1))


@torch.no_grad()
def test_frames_in_another_order_have_the_same_masks_in_that_order(decoder):
    pixels = pixels_of(3)
    order = [2, 0, 1]
    assert_close(decoder((), pixels[:, :, order])[-1].mask_logits, decoder((), pixels)[-1].mask_logits[:, :, order])


@torch.no_grad()
def test_permuting_the_learned_queries_permutes_the_result(decoder):
    pixels = pixels_of()
    order = torch.randperm(6)
    straight = decoder((), pixels)[-1]
    decoder.initial_queries.copy_(decoder.initial_queries[order].clone())
    for ours, theirs in zip(decoder((), pixels)[-1], straight):
        assert_close(ours, theirs[:, order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_batch_of_two_clips_equals_two_of_one(decoder):
    pixels = pixels_of(batch=2)
    together = decoder((), pixels)[-1]
    for clip in range(2):
        for ours, theirs in zip(decoder((), pixels[clip:clip + 1])[-1], together):
            assert_close(ours[0], theirs[clip], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_supervision_adds_a_prediction_before_the_first_layer_and_after_each(decoder):
    pixels = pixels_of()
    predictions = decoder((), pixels, supervise=True)
    (only,) = decoder((), pixels)
    assert len(predictions) == 1 + CONFIG.layers
    assert torch.equal(predictions[0].queries[0], decoder.initial_queries)
    assert torch.equal(predictions[-1].mask_logits, only.mask_logits)


def test_a_query_reads_the_mean_of_the_pixels_inside_its_mask_alone():
    masks = torch.full((1, 3, 2, 5, 7), -1.0)
    masks[0, 0, :, 1:3, 2:4] = masks[0, 1, 1, 4, 6] = 1.0
    pixels = pixels_of()
    means = inside(masks, pixels)
    assert_close(means[0, 0], pixels[0, :, :, 1:3, 2:4].mean((1, 2, 3)))
    assert_close(means[0, 1], pixels[0, :, 1, 4, 6])
    assert not means[0, 2].any()


@pytest.mark.parametrize(("closed", "ignored"), [("query_gate", 0), ("feature_gate", 1)])
@torch.no_grad()
def test_a_closed_gate_lets_nothing_through(closed, ignored):
    """The other gate still looks at both, so it is held open."""
    update = KernelUpdate(16)
    for name in ("query_gate", "feature_gate"):
        norm = getattr(update, name)[1]
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, -100.0 if name == closed else 100.0)
    inputs = [torch.randn(1, 4, 16) for _ in range(2)]
    for position in range(2):
        changed = list(inputs)
        changed[position] = torch.randn(1, 4, 16)
        assert torch.allclose(update(*changed), update(*inputs)) == (position == ignored)


@pytest.mark.parametrize("changes", [{"num_queries": 0}, {"heads": 3}, {"layers": 0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(CONFIG, **changes)
