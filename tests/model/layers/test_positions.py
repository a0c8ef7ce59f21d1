"""Sine positions: they differ everywhere, and do not depend on size or padding."""

from __future__ import annotations

import pytest
import torch

from model.layers.positions import level_positions, sine_positions_2d, sine_positions_3d


def test_rows_and_columns_fill_half_the_channels_each():
    positions = sine_positions_2d(4, 6, channels=8)
    assert positions.shape == (4, 6, 8)
    assert torch.equal(positions[:, :1, :4].expand(4, 6, 4), positions[..., :4])
    assert torch.equal(positions[:1, :, 4:].expand(4, 6, 4), positions[..., 4:])


def test_every_position_differs():
    positions = sine_positions_3d(3, 5, 7, channels=32).flatten(0, 2)
    distance = torch.cdist(positions, positions) + torch.eye(len(positions)) * 9
    assert distance.min() > 0.01


def test_the_last_pixel_is_at_two_pi_for_every_size():
    for height, width in [(3, 4), (30, 40)]:
        last = sine_positions_2d(height, width, channels=4)[-1, -1]
        torch.testing.assert_close(last, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-4, rtol=0)


def test_without_padded_pixels_a_mask_changes_nothing():
    padding = torch.zeros(2, 4, 6, dtype=torch.bool)
    expected = sine_positions_2d(4, 6, channels=8).expand(2, 4, 6, 8)
    assert torch.equal(sine_positions_2d(4, 6, channels=8, padding=padding), expected)


def test_real_pixels_count_as_if_the_padding_were_not_there():
    padding = torch.zeros(1, 5, 7, dtype=torch.bool)
    padding[:, 3:] = True
    padding[:, :, 4:] = True
    inside = sine_positions_2d(5, 7, channels=8, padding=padding)[0, :3, :4]
    torch.testing.assert_close(inside, sine_positions_2d(3, 4, channels=8))


def test_the_frame_is_added_and_depends_on_the_length_of_the_clip():
    positions = sine_positions_3d(3, 2, 2, channels=8)
    time = positions - sine_positions_2d(2, 2, channels=8)
    torch.testing.assert_close(time, time[:, :1, :1].expand_as(time))
    torch.testing.assert_close(sine_positions_3d(6, 2, 2, channels=8)[1::2], positions)


def test_padding_of_clips_counts_real_pixels_along_every_axis():
    padding = torch.zeros(2, 4, 5, 7, dtype=torch.bool)
    expected = sine_positions_3d(4, 5, 7, channels=8)
    torch.testing.assert_close(sine_positions_3d(4, 5, 7, channels=8, padding=padding), expected.expand(2, 4, 5, 7, 8))
    padding[1, 3:] = True
    padding[1, :, 3:] = True
    padding[1, :, :, 4:] = True
    first, second = sine_positions_3d(4, 5, 7, channels=8, padding=padding)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second[:3, :3, :4], sine_positions_3d(3, 3, 4, channels=8))


def test_levels_follow_one_another_each_with_its_own_embedding():
    levels = torch.randn(2, 8)
    first, second = level_positions([(2, 3), (4, 5)], levels).split([6, 20])
    torch.testing.assert_close(first - levels[0], sine_positions_2d(2, 3, channels=8).flatten(0, 1))
    torch.testing.assert_close(second - levels[1], sine_positions_2d(4, 5, channels=8).flatten(0, 1))


def test_channels_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="6 channels"):
        sine_positions_2d(2, 2, channels=6)
