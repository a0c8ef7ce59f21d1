"""Auxiliary semantic head."""

import pytest
import torch

from model.semantic_head import SemanticHead, SemanticHeadConfig

CHANNELS = (6, 8, 10, 12)
SMALL = SemanticHeadConfig(width=8, fine_widths=(4, 4), rates=(1, 2))


def maps_of(batch: int) -> list[torch.Tensor]:
    return [torch.randn(batch, c, s, s + 2) for c, s in zip(CHANNELS, (17, 9, 5, 3))]


@torch.inference_mode()
def test_logits_have_a_row_for_no_object_and_the_size_of_stride_4():
    head = SemanticHead(SMALL, channels=CHANNELS, num_classes=5).eval()
    assert head(maps_of(2)).shape == (2, 6, 17, 19)


@torch.inference_mode()
def test_frames_are_independent_in_evaluation():
    head = SemanticHead(SMALL, channels=CHANNELS, num_classes=5).eval()
    maps = maps_of(2)
    torch.testing.assert_close(head(maps)[1:], head([m[1:] for m in maps]), atol=1e-5, rtol=1e-5)


def test_a_single_training_frame_is_refused_with_a_cure():
    with pytest.raises(ValueError, match="batch of 2"):
        SemanticHead(SMALL, channels=CHANNELS, num_classes=5).train()(maps_of(1))


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="two numbers"):
        SemanticHeadConfig(fine_widths=(64,))
    with pytest.raises(ValueError, match="dropout"):
        SemanticHeadConfig(dropout=1.0)
