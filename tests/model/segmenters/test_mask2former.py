"""The frame detector: what VITA reads of a frame, and that it is Mask2Former as Tube-Link has it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from jobs.config import from_json, to_json
from model.layers.convolution import dot_pixels
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters import SegmenterConfig
from model.segmenters.mask2former import Mask2Former, Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from tests.tiny_models import tiny_mask2former, tiny_tube_link

FIELDS = ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features")


def segmenter_of(**changes) -> Mask2Former:
    """Evaluation mode, every branch open: offsets that start at zero would hide mistakes."""
    torch.manual_seed(3)
    segmenter = tiny_mask2former(**changes).build()
    for parameter in segmenter.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return segmenter.eval()


def frames_of(b: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (b, 1, 3, height, width), dtype=torch.uint8)


@torch.inference_mode()
def test_a_frame_gives_the_contract():
    prediction = segmenter_of()(frames_of(2))
    assert prediction.class_logits.shape == (2, 16, 7)
    assert prediction.mask_logits.shape == (2, 16, 1, 16, 24)
    assert prediction.queries.shape == (2, 16, 64)
    assert prediction.mask_embeddings.shape == (2, 16, 65)
    assert prediction.pixel_features.shape == (2, 64, 1, 16, 24)
    assert prediction.auxiliary == ()


@torch.inference_mode()
def test_the_detector_s_own_masks_follow_from_what_stage_two_is_given():
    """So that stage two can say which frame query is which object, from sampled pixels and without the detector."""
    prediction = segmenter_of()(frames_of(2))
    masks = dot_pixels(prediction.mask_embeddings, prediction.pixel_features.flatten(2))
    assert_close(masks, prediction.mask_logits.flatten(2), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_queries_are_the_normed_ones_and_the_heads_read_them():
    segmenter = segmenter_of()
    prediction = segmenter(frames_of(1))
    norm = segmenter.query_decoder.norm
    assert_close(((prediction.queries - norm.bias) / norm.weight).mean(-1), torch.zeros(1, 16), atol=1e-5, rtol=0)
    assert_close(segmenter.query_decoder.class_head(prediction.queries), prediction.class_logits)


@torch.inference_mode()
def test_the_same_weights_in_tube_link_give_the_same_classes_and_masks():
    frames = frames_of(2)
    segmenter = segmenter_of()
    like = tiny_tube_link()
    twin = replace(like, query_decoder=replace(like.query_decoder, positions="frame")).build().eval()
    twin.load_state_dict(segmenter.state_dict(), strict=True)
    for name in ("class_logits", "mask_logits"):
        assert torch.equal(getattr(twin(frames), name), getattr(segmenter(frames), name))


@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=["even", "odd"])
@torch.inference_mode()
def test_a_batch_of_two_equals_two_batches_of_one(size):
    segmenter = segmenter_of()
    frames = frames_of(2, *size)
    together = segmenter(frames)
    for item in range(2):
        alone = segmenter(frames[item:item + 1])
        for field in FIELDS:
            assert_close(getattr(together, field)[item], getattr(alone, field)[0], atol=2e-4, rtol=1e-3)


@torch.inference_mode()
def test_what_padding_holds_does_not_matter():
    segmenter = segmenter_of()
    frames = frames_of(1)
    real = torch.ones(1, 1, 64, 96, dtype=torch.bool)
    real[..., 50:, :] = False
    noise = torch.where(real[:, :, None], frames, frames_of(1))
    assert torch.equal(segmenter(frames, real).mask_logits, segmenter(noise, real).mask_logits)


def test_gradient_reaches_every_parameter_under_supervision():
    segmenter = segmenter_of()
    prediction = segmenter(frames_of(2), supervise=True)
    assert len(prediction.auxiliary) == segmenter.config.query_decoder.layers      # one before the first layer
    sum((tensor * torch.randn_like(tensor)).sum() for layer in (prediction, *prediction.auxiliary)
        for tensor in (layer.class_logits, layer.mask_logits)).backward()
    assert [name for name, parameter in segmenter.named_parameters()
            if parameter.grad is None or not parameter.grad.any()] == []


@pytest.mark.parametrize("config", [tiny_mask2former(), Mask2FormerConfig(num_classes=3), TubeLinkConfig(
    num_classes=3, query_decoder=Mask2FormerDecoderConfig(positions="frame"))], ids=["tiny", "default", "tube-link"])
def test_a_card_rebuilds_the_config_of_its_own_kind(config):
    rebuilt = from_json(SegmenterConfig, to_json(config))
    assert (type(rebuilt), rebuilt) == (type(config), config)


def test_clips_of_several_frames_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"clip of 2 frames.*clip_frames=1"):
        segmenter_of()(torch.zeros(1, 2, 3, 64, 96))


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"num_classes": 0}, "num_classes=0"), ({"pixel_std": (1, 0, 1)}, "pixel_std"),
    ({"query_decoder": Mask2FormerDecoderConfig()}, "set 'frame'"),
])
def test_impossible_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        tiny_mask2former(**changes)
