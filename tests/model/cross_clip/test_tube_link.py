"""Laws of MaXTron's cross-clip head on Tube-Link; the tests of the other flavour cover the layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from jobs.config import from_json, to_json
from model.contracts import VideoQueries
from model.cross_clip import CrossClipConfig
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHead, TubeLinkHeadConfig
from tests.tiny_models import tiny_tube_link

CONFIG = TubeLinkHeadConfig(num_classes=6, dim=64, embedding=64, heads=4, layers=2)


def stirred(head: TubeLinkHead) -> TubeLinkHead:
    """Move every weight from its start, so that a missing branch shows."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return head.eval()


def queries_of(tensor: torch.Tensor) -> VideoQueries:
    return VideoQueries(queries=tensor, mask_embeddings=tensor, class_logits=tensor)


@torch.no_grad()
def test_the_near_online_start_is_the_near_online_result():
    segmenter = tiny_tube_link().build().eval()
    head = CONFIG.build().eval()
    head.initialise_from(segmenter.state_dict())
    clips = [segmenter(torch.randint(0, 256, (1, 2, 3, 32, 64), dtype=torch.uint8)) for _ in range(3)]
    pixels = torch.stack([clip.pixel_features for clip in clips], 1)
    for prediction in head(queries_of(torch.stack([clip.queries for clip in clips], 1))):
        assert_close(prediction.class_logits, torch.stack([clip.class_logits for clip in clips]).mean(0))
        for clip, mask_logits in zip(clips, head.mask_logits(prediction.mask_embeddings, pixels).unbind(1)):
            assert_close(mask_logits, clip.mask_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("start", ["near_online", "official"])
@torch.no_grad()
def test_a_batch_of_two_videos_equals_two_of_one(start):
    head = stirred(TubeLinkHead(replace(CONFIG, start=start)))
    both = torch.randn(2, 3, 5, 64)
    together = head(queries_of(both))[-1]
    for video in range(2):
        alone = head(queries_of(both[video:video + 1]))[-1]
        for name in ("class_logits", "mask_embeddings", "queries"):
            assert_close(getattr(alone, name)[0], getattr(together, name)[video], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pixels", [(2, 4, 6), (9,)])
@torch.no_grad()
def test_mask_logits_take_whole_frames_or_a_sample_of_pixels(pixels):
    embeddings = torch.randn(2, 3, 5, 64)
    features = torch.randn(2, 3, 64, *pixels)
    masks = TubeLinkHead(CONFIG).mask_logits(embeddings, features)
    assert masks.shape == (2, 3, 5, *pixels)
    assert_close(masks[1, 2, 3].flatten(), embeddings[1, 2, 3] @ features[1, 2].flatten(1))


def test_a_clip_that_counts_more_decides_the_class():
    head = stirred(TubeLinkHead(CONFIG))
    queries = torch.randn(1, 2, 4, 64)
    with torch.no_grad():
        head.predictor.class_weight.weight.zero_()
        head.predictor.norm.bias.zero_()
        normed = head.predictor.norm(queries)
        head.predictor.class_weight.weight += 100 * (normed[0, 0, 0] - normed[0, 1, 0])      # prefers the first clip
        assert_close(head.predictor(queries).class_logits[0, 0], head.predictor(queries[:, :1]).class_logits[0, 0])


def test_the_copied_norm_is_frozen_by_default_and_everything_else_learns():
    for trains in (False, True):
        head = stirred(TubeLinkHead(replace(CONFIG, train_copied_norm=trains))).train()
        prediction = head(queries_of(torch.randn(2, 3, 5, 64)))[-1]
        (prediction.class_logits.square().sum() + prediction.mask_embeddings.square().sum()).backward()
        still = {name for name, parameter in head.named_parameters() if parameter.grad is None}
        assert still == (set() if trains else {"predictor.norm.weight", "predictor.norm.bias"})


def test_a_segmenter_without_the_heads_or_with_other_classes_is_refused():
    with pytest.raises(ValueError, match="masked-attention decoder"):
        TubeLinkHead(CONFIG).initialise_from({"query_decoder.class_projection.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"shape of weight: \(7, 64\)"):
        TubeLinkHead(replace(CONFIG, num_classes=5)).initialise_from(tiny_tube_link().build().state_dict())


@pytest.mark.parametrize("config", [CONFIG, TubeLinkHeadConfig(num_classes=3), MaXTronHeadConfig(num_classes=3)])
def test_a_card_rebuilds_the_config_of_its_own_flavour(config):
    rebuilt = from_json(CrossClipConfig, to_json(config))
    assert (type(rebuilt), rebuilt) == (type(config), config)
