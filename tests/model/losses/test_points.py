from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from model.losses.points import PointConfig, expected_points, sample_points, uncertain_points, uniform


def draw(seed: int = 0):
    return uniform("cpu", generator=torch.Generator().manual_seed(seed))


def test_points_at_pixel_centres_give_the_pixels_and_points_between_two_give_their_mean():
    maps = torch.randn(2, 3, 4, 6)
    rows, columns = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    centres = torch.stack([columns, rows], -1).view(1, 24, 2).expand(2, -1, -1)
    assert_close(sample_points(maps, centres), maps.flatten(2))
    between = torch.tensor([[[1 / 6, 0.5 / 4]]]).expand(2, -1, -1)
    assert_close(sample_points(maps, between)[..., 0], maps[:, :, 0, :2].mean(-1))


def test_maps_of_different_sizes_are_read_at_the_same_points():
    fine = F.interpolate(torch.randn(1, 1, 5, 7), scale_factor=4, mode="bilinear")
    ramp = torch.linspace(0, 1, 28)[None, None, None].expand(1, 1, 20, 28)
    points = 0.2 + 0.6 * draw()(1, 50, 2)
    assert_close(sample_points(ramp, points)[0, 0], (points[0, :, 0] * 28 - 0.5) / 27)
    assert sample_points(fine, points).isfinite().all()


@pytest.mark.parametrize("importance", [0.0, 0.75, 1.0])
def test_the_configured_share_of_points_lies_where_the_mask_is_least_certain(importance):
    logits = torch.linspace(-8, 8, 40).expand(3, 20, 40)                    # zero in the middle column
    config = PointConfig(count=200, oversample=4, importance=importance)
    points = uncertain_points(logits, config=config, draw=draw())
    assert points.shape == (3, 200, 2)
    near = ((points[..., 0] - 0.5).abs() < 0.15).float().mean(-1)
    assert_close(near, torch.full((3,), importance + 0.3 * (1 - importance)), atol=0.12, rtol=0)


def test_the_two_draws_have_the_shapes_the_official_code_draws():
    shapes = []

    def recording(*shape):
        shapes.append(shape)
        return torch.rand(shape)

    uncertain_points(torch.randn(5, 8, 8), config=PointConfig(count=48), draw=recording)
    uncertain_points(torch.randn(5, 8, 8), config=PointConfig(count=48, importance=1.0), draw=recording)
    assert shapes == [(5, 144, 2), (5, 12, 2), (5, 144, 2)]


def test_one_seed_draws_the_same_points_again():
    logits = torch.randn(2, 8, 8)
    config = PointConfig(count=16)
    first, again, other = (uncertain_points(logits, config=config, draw=draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"oversample": 0.5}, {"importance": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="points: count="):
        PointConfig(**wrong)


def test_points_on_weighted_pixels_are_those_of_many_draws():
    """Candidates fall on pixels in proportion to their weights; the least certain are kept, and uniform ones added.

    Of 400 draws, each of 200 points, the mean of a pixel's count has a standard error of at most 0.4.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, generator=generator)
    weights = torch.rand(12, generator=generator) + 0.2
    config = PointConfig(count=200)
    counts = torch.zeros(12)
    for _ in range(400):
        candidates = weights.multinomial(600, replacement=True, generator=generator)
        kept = candidates[logits.abs()[candidates].argsort()[:150]]
        points = torch.cat([kept, weights.multinomial(50, replacement=True, generator=generator)])
        counts += points.bincount(minlength=12) / 400
    expected = expected_points(logits[None], weights[None], config=config)[0]
    assert_close(expected.sum(), torch.tensor(200.0))
    certain = logits.abs().argsort()
    boundary = certain[(weights[certain].cumsum(0) / weights.sum() < 0.25).sum()]      # kept or not as chance has it
    assert_close(counts.index_fill(0, boundary, 0), expected.index_fill(0, boundary, 0), atol=3.0, rtol=0)
    assert (counts - expected).abs().max() < 6
    uniform_ones = expected_points(logits[None], weights[None], config=PointConfig(count=200, importance=0.0))
    assert_close(uniform_ones, 200 * weights[None] / weights.sum())


def test_a_map_without_weight_gets_no_points_and_one_without_uncertainty_all_of_them():
    config = PointConfig(count=8)
    nothing = expected_points(torch.randn(1, 5), torch.zeros(1, 5), config=config)
    assert_close(nothing, torch.zeros(1, 5))
    alike = expected_points(torch.zeros(1, 8), torch.ones(1, 8), config=config)
    assert_close(alike.sum(), torch.tensor(8.0))
    assert alike.min() >= 0.25
