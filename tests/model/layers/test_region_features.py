"""Boxes around masks, and what the features in them say."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from model.layers.region_features import SIDE, RegionFeatures, boxes_of, grids


def masks_of(*corners: tuple[int, int, int, int], frames: int = 2, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    """Mask logits 1 n t h w of boxes (top, left, bottom, right) in pixels, the same in every frame."""
    logits = torch.full((1, len(corners), frames, *size), -5.0)
    for query, (top, left, bottom, right) in enumerate(corners):
        logits[0, query, :, top:bottom, left:right] = 5.0
    return logits


def test_a_box_lies_around_its_mask_in_parts_of_the_frame():
    masks = masks_of((2, 3, 6, 9)) > 0
    masks[0, 0, 1] = False
    boxes, is_present = boxes_of(masks)
    assert_close(boxes[0, 0], torch.tensor([[2 / 8, 3 / 12, 6 / 8, 9 / 12], [0, 0, 1, 1]]))
    assert is_present.tolist() == [[[True, False]]]


def test_the_cells_of_a_box_show_what_lies_there():
    """The features are the places themselves, so the samples are the centres of the cells."""
    height, width = 8, 12
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    features = torch.stack([y, x])[None, :, None]
    boxes = torch.tensor([[[[0.25, 0.25, 0.75, 0.5]]]])
    sampled = grids(features, boxes).view(SIDE, SIDE, 2)
    assert_close(sampled[..., 0], (0.25 + 0.5 * (torch.arange(SIDE) + 0.5) / SIDE)[:, None].expand(-1, SIDE))
    assert_close(sampled[..., 1], (0.25 + 0.25 * (torch.arange(SIDE) + 0.5) / SIDE).expand(SIDE, -1))


def test_frames_without_the_mask_do_not_count_and_no_mask_gives_zeros():
    regions = RegionFeatures(16, channels=4)
    features = torch.randn(1, 4, 2, 8, 12)
    masks = masks_of((2, 3, 6, 9), (0, 0, 4, 4))
    masks[0, :, 1] = -5.0
    alone = regions(masks[:, :, :1], features[:, :, :1])
    assert_close(regions(masks, features), alone)
    assert not regions(masks - 10, features).any()


def test_a_batch_equals_its_clips_one_by_one_and_features_learn():
    regions = RegionFeatures(16, channels=4)
    features = torch.randn(2, 4, 3, 8, 12, requires_grad=True)
    masks = torch.randn(2, 5, 3, 8, 12)
    together = regions(masks, features)
    assert_close(together, torch.cat([regions(masks[clip:clip + 1], features[clip:clip + 1]) for clip in range(2)]))
    together.sum().backward()
    assert features.grad.any()
