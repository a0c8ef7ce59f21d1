"""Axial-ResNet50-B1 has the published parameters and strides, and its attention is the formula of Axial-DeepLab."""

from __future__ import annotations

import torch
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.layers.axial_attention import MAX_LENGTH, AxialAttention, AxialAttention2d
from model.layers.convolution import BatchNormConfig
from model.layers.drop_path import DropPath

HEADS = 2


def backbone(**changes) -> Backbone:
    return Backbone(BackboneConfig(name="axial_resnet50", **changes)).eval()


def test_it_has_the_parameters_that_deeplab2_counts():
    """google-research/deeplab2, `model/pixel_encoder/axial_resnet_test.py`: 41,343,424 without the classifier."""
    with torch.device("meta"):
        network = backbone()
    assert sum(parameter.numel() for parameter in network.parameters()) == 41_343_424


@torch.inference_mode()
def test_sides_are_rounded_up_at_every_stride():
    network = backbone()
    maps = network(torch.zeros(1, 3, 65, 97))
    assert [tuple(map_.shape[1:]) for map_ in maps] == [(256, 17, 25), (512, 9, 13), (1024, 5, 7), (2048, 3, 4)]
    assert network.channels == (256, 512, 1024, 2048)


def test_blocks_attend_from_stride_16_on_and_drop_their_path_there():
    with torch.device("meta"):
        network = backbone(drop_path=0.2, batch_norm=BatchNormConfig(eps=0.5)).network
    blocks = [module for module in network.modules() if hasattr(module, "shortcut")]
    axial = [isinstance(block.mix, AxialAttention2d) for block in blocks]
    assert axial == [False] * 8 + [True] * 8
    assert [block.drop_path.rate if isinstance(block.drop_path, DropPath) else 0 for block in blocks] == [
        0.2 * is_axial for is_axial in axial]
    assert {norm.eps for norm in network.modules() if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm)} == {0.5}


@torch.inference_mode()
def test_a_stride_keeps_every_second_row_before_rows_attend_and_every_second_column_afterwards():
    torch.manual_seed(0)
    attention = AxialAttention2d(6, key_depth=8, value_depth=16, heads=HEADS, batch_norm=BatchNormConfig()).eval()
    x = torch.randn(1, 6, 5, 4)
    whole = attention(x)
    attention.stride = 2
    torch.testing.assert_close(attention(x), whole[..., ::2, ::2])


@torch.inference_mode()
def test_position_sensitive_attention_is_its_formula():
    """Axial-DeepLab, equation 4, position by position; batch norms with random statistics."""
    torch.manual_seed(0)
    attention = AxialAttention(6, key_depth=4, value_depth=8, heads=HEADS, batch_norm=BatchNormConfig()).eval()
    for norm in (attention.similarity_norm, attention.output_norm):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(tensor)
    x = torch.randn(1, 6, 5)
    query, key, value = attention.project(x)[0].split([4, 4, 8])
    content, position = (torch.zeros(8, 5) for _ in range(2))
    for head in range(HEADS):
        q, k, v = (part.chunk(HEADS)[head] for part in (query, key, value))
        for out in range(5):
            offsets = [place - out + MAX_LENGTH - 1 for place in range(5)]
            parts = torch.stack([
                torch.stack([q[:, out] @ k[:, place] for place in range(5)]),
                torch.stack([q[:, out] @ attention.relative_query[offset] for offset in offsets]),
                torch.stack([k[:, place] @ attention.relative_key[offset] for place, offset in enumerate(offsets)])])
            weights = normed(parts, attention.similarity_norm, [part * HEADS + head for part in range(3)]).sum(0)
            weights = weights.softmax(0)
            rows = slice(4 * head, 4 * head + 4)
            content[rows, out] = sum(weights[place] * v[:, place] for place in range(5))
            position[rows, out] = sum(weights[place] * attention.relative_value[offset]
                                      for place, offset in enumerate(offsets))
    both = normed(torch.cat([content, position]), attention.output_norm, list(range(16)))
    torch.testing.assert_close(attention(x)[0], both[:8] + both[8:], atol=1e-5, rtol=1e-5)


def normed(rows: Tensor, norm: torch.nn.Module, channels: list[int]) -> Tensor:
    """The inference of a batch norm, row i with the statistics of channel channels[i]."""
    mean, variance, weight, bias = (tensor[channels][:, None] for tensor in (
        norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (rows - mean) / (variance + norm.eps).sqrt() * weight + bias
