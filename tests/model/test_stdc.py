"""STDC has the published sizes, rounds odd sides up, and takes the published ImageNet weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.stdc import Block, Stdc, from_mmseg

LAYERS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
# arXiv 2104.13188, table 4, less the classifier, which is not built: convolution and linear layer of 1024 x 1024
# with a batch norm each, and 1000 classes.
MILLIONS = {"stdc1": 8.44, "stdc2": 12.47}
CLASSIFIER = 2 * 1024 ** 2 + 2 * 2 * 1024 + 1000 * 1024


@pytest.mark.parametrize("name", LAYERS)
def test_it_has_the_published_parameters(name):
    count = sum(parameter.numel() for parameter in Stdc(LAYERS[name]).parameters()) + CLASSIFIER
    assert count / 1e6 == pytest.approx(MILLIONS[name], abs=0.005)


@pytest.mark.parametrize("name", LAYERS)
def test_sides_are_rounded_up_at_every_stride(name):
    backbone = Backbone(BackboneConfig(name=name)).eval()
    maps = backbone(torch.zeros(1, 3, 65, 97))
    assert [tuple(map_.shape[1:]) for map_ in maps] == [(64, 17, 25), (256, 9, 13), (512, 5, 7), (1024, 3, 4)]
    assert backbone.channels == (64, 256, 512, 1024)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_its_formula(stride):
    """Figure 3: outputs of four convolutions side by side; the first is pooled where the block has stride 2."""
    torch.manual_seed(0)
    block = Block(8, 16, stride=stride).eval()
    x = torch.randn(1, 8, 7, 6)

    def convolved(x: Tensor, index: int) -> Tensor:
        layer = block.conv_list[index]
        return F.relu(layer.bn(F.conv2d(x, layer.conv.weight, padding=layer.conv.kernel_size[0] // 2)))

    first = convolved(x, 0)
    smaller = first
    if stride == 2:
        depthwise, norm = block.avd_layer
        smaller = norm(F.conv2d(first, depthwise.weight, stride=2, padding=1, groups=8))
        first = F.avg_pool2d(first, 3, stride=2, padding=1)
    second = convolved(smaller, 1)
    third = convolved(second, 2)
    torch.testing.assert_close(block(x), torch.cat([first, second, third, convolved(third, 3)], dim=1))


def mmseg_name(name: str, layers: tuple[int, int, int]) -> str:
    """mmsegmentation's name of one of our weights: blocks count within their stage."""
    _, block, inside = name.split(".", 2)
    index = int(block) - 2
    if index < 0:
        return f"stages.{block}.{inside}"
    stage = 2
    for count in layers[:2]:
        if index >= count:
            index -= count
            stage += 1
    for ours, theirs in (("conv_list", "layers"), ("avd_layer.0", "avg_pool.conv"), ("avd_layer.1", "avg_pool.bn")):
        inside = inside.replace(ours, theirs)
    return f"stages.{stage}.{index}.{inside}"


@pytest.mark.parametrize("layers", LAYERS.values())
def test_the_published_weights_find_their_places(layers):
    network = Stdc(layers)
    published = {mmseg_name(name, layers): tensor for name, tensor in network.state_dict().items()}
    assert len(published) == len(network.state_dict())
    weights = from_mmseg({**published, "conv_last.conv.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, network)
    assert weights.keys() == network.state_dict().keys()
    assert all(weights[name] is tensor or torch.equal(weights[name], tensor)
               for name, tensor in network.state_dict().items())


def test_a_pretrained_network_asks_for_the_published_file(monkeypatch):
    asked = []
    network = Stdc(LAYERS["stdc1"])

    def download(url: str, **_) -> dict[str, Tensor]:
        asked.append(url)
        return {mmseg_name(name, LAYERS["stdc1"]): tensor for name, tensor in network.state_dict().items()}

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", download)
    backbone = Backbone(BackboneConfig(name="stdc1.in1k", pretrained=True))
    assert asked == ["https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/stdc/stdc1_20220308-5368626c.pth"]
    ours = {name.replace("features_", "features."): tensor for name, tensor in backbone.network.state_dict().items()}
    assert all(torch.equal(ours[name], tensor) for name, tensor in network.state_dict().items())
