"""The convolution block: shapes, official initialisation, layer norm in float32."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from model.layers.convolution import (
    BatchNormConfig,
    ChannelsFirstLayerNorm,
    ConvBN,
    before_pointwise,
    dot_pixels,
    truncated_normal_,
)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_sizes_are_kept_in_one_and_two_dimensions(kernel, dilation):
    assert ConvBN(4, 6, kernel, dims=2, dilation=dilation)(torch.randn(2, 4, 7, 9)).shape == (2, 6, 7, 9)
    assert ConvBN(4, 6, kernel, dims=1, dilation=dilation)(torch.randn(2, 4, 7)).shape == (2, 6, 7)


def test_he_leaves_the_kernel_area_out_and_stops_at_two_deviations():
    weight = ConvBN(64, 400, 3).conv.weight
    std = math.sqrt(2 / 64)
    assert weight.abs().max() <= 2 * std
    assert weight.std().item() == pytest.approx(0.88 * std, rel=0.02)    # the std of a normal that is cut at 2


def test_truncated_normal_has_the_requested_std():
    weight = truncated_normal_(torch.empty(200, 200), std=0.01)
    assert weight.abs().max() <= 0.02
    assert weight.std().item() == pytest.approx(0.0088, rel=0.02)


def test_a_norm_scale_of_zero_gives_zero():
    assert not ConvBN(4, 4, norm_scale=0)(torch.randn(2, 4, 3, 3)).any()


def test_batch_norm_settings_reach_the_norm():
    norm = ConvBN(4, 4, dims=1, batch_norm=BatchNormConfig(eps=0.5, momentum=0.25)).norm
    assert (norm.eps, norm.momentum) == (0.5, 0.25)
    assert (ConvBN(4, 4).norm.eps, ConvBN(4, 4).norm.momentum) == (1e-3, 0.01)


def test_activation_comes_last():
    assert ConvBN(4, 4, activation="relu")(torch.randn(2, 4, 5, 5)).min() == 0
    block = ConvBN(4, 4, norm=None, activation="gelu")
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), F.gelu(block.conv(x)))


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 4, 5)])
def test_layer_norm_gives_every_position_zero_mean_and_unit_variance(shape):
    result = ChannelsFirstLayerNorm(6)(3 + 2 * torch.randn(shape))
    torch.testing.assert_close(result.mean(1), torch.zeros_like(result.mean(1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.var(1, correction=0), torch.ones_like(result.mean(1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (24, 8), (7, 1)])
def test_group_norm_has_as_many_of_32_groups_as_divide_the_channels(channels, groups):
    assert ConvBN(4, channels, norm="gn").norm.num_groups == groups


def test_layer_norm_ignores_autocast():
    norm = ChannelsFirstLayerNorm(6)
    x = 100 + torch.randn(2, 6, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = norm(x)
    assert torch.equal(inside, norm(x))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="momentum=0"):
        BatchNormConfig(momentum=0)
    with pytest.raises(ValueError, match="norm 'in'"):
        ConvBN(4, 4, norm="in")
    with pytest.raises(ValueError, match="initialisation 'zero'"):
        ConvBN(4, 4, init="zero")


@torch.no_grad()
def test_embeddings_before_a_pointwise_convolution_give_the_dot_products_behind_it():
    convolution = torch.nn.Conv2d(6, 4, 1)
    embeddings = torch.randn(2, 3, 4)
    maps = torch.randn(2, 6, 5, 7)
    behind = torch.einsum("bnd,bdp->bnp", embeddings, convolution(maps).flatten(2))
    result = dot_pixels(before_pointwise(embeddings, convolution), maps.flatten(2))
    torch.testing.assert_close(result, behind, atol=1e-5, rtol=1e-5)
