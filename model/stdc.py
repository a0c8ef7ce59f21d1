"""The short-term dense concatenate networks STDC-1 and STDC-2, which timm lacks; importing this file registers them.

Source: "Rethinking BiSeNet for Real-time Semantic Segmentation" (arXiv 2104.13188), figure 3 and table 2; names and
order of modules as in lxtGH/Tube-Link, `mmdet/models/backbones/stdc.py` (`STDCNet813` and `STDCNet1446`). The ImageNet
weights are the authors' as mmsegmentation publishes them, which has its own names (`mmseg/models/backbones/stdc.py`).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

STEM = 64       # channels at stride 4; each further stage has 256, 512 and 1024


class Stdc(nn.Module):
    """Two strided convolutions, then three stages of blocks, whose maps have strides 8, 16 and 32.

    layers: blocks of each stage. There is no classifier, so num_classes is not used.
    """

    def __init__(self, layers: tuple[int, int, int], num_classes: int = 0, in_chans: int = 3) -> None:
        super().__init__()
        self.layers = layers
        self.num_classes = num_classes
        blocks: list[nn.Module] = [Convolution(in_chans, STEM // 2, 3, stride=2),
                                   Convolution(STEM // 2, STEM, 3, stride=2)]
        self.feature_info = [_map_after(blocks, STEM, reduction=4)]
        channels = STEM
        for stage, count in enumerate(layers):
            width = STEM * 2 ** (stage + 2)
            for index in range(count):
                blocks.append(Block(channels, width, stride=1 if index else 2))
                channels = width
            self.feature_info.append(_map_after(blocks, width, reduction=2 ** (stage + 3)))
        self.features = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, frames: Tensor) -> Tensor:
        """frames: n 3 H W. Returns the map at stride 32, n 1024 h w."""
        return self.features(frames)


class Block(nn.Module):
    """Four convolutions in a row, whose outputs of 1/2, 1/4, 1/8 and 1/8 of the channels are put together."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv_list = nn.ModuleList([
            Convolution(in_channels, half, 1), Convolution(half, channels // 4, 3),
            Convolution(channels // 4, channels // 8, 3), Convolution(channels // 8, channels // 8, 3)])
        self.stride = stride
        if stride == 2:
            self.avd_layer = nn.Sequential(nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False),
                                           nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: n c h w. Returns n channels h' w', with half the sides, rounded up, where the stride is 2."""
        first, *others = self.conv_list
        x = first(x)
        maps = [self.skip(x) if self.stride == 2 else x]
        if self.stride == 2:
            x = self.avd_layer(x)
        for convolution in others:
            x = convolution(x)
            maps.append(x)
        return torch.cat(maps, dim=1)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: n c h w. Returns n channels h' w'."""
        return self.relu(self.bn(self.conv(x)))


def _map_after(blocks: list[nn.Module], channels: int, *, reduction: int) -> dict[str, Any]:
    """timm's description of the map that the last block makes."""
    return {"num_chs": channels, "reduction": reduction, "module": f"features.{len(blocks) - 1}"}


def from_mmseg(state: dict[str, Tensor], network: Stdc) -> dict[str, Tensor]:
    """The weights of mmsegmentation's file under the names of `network`; those of the classifier are left out."""
    weights = {}
    for name, tensor in state.items():
        if stem := re.fullmatch(r"stages\.([01])\.(.+)", name):
            weights[f"features.{stem[1]}.{stem[2]}"] = tensor
        elif part := re.fullmatch(r"stages\.([234])\.(\d+)\.(.+)", name):
            stage = int(part[1]) - 2
            block = 2 + sum(network.layers[:stage]) + int(part[2])
            inside = part[3].replace("layers.", "conv_list.")
            inside = inside.replace("avg_pool.conv.", "avd_layer.0.").replace("avg_pool.bn.", "avd_layer.1.")
            weights[f"features.{block}.{inside}"] = tensor
    return weights


_PUBLISHED = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/stdc"
_TRANSFORM = {"first_conv": "features.0.conv", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
default_cfgs = generate_default_cfgs({
    "stdc1.in1k": {**_TRANSFORM, "url": f"{_PUBLISHED}/stdc1_20220308-5368626c.pth"},
    "stdc2.in1k": {**_TRANSFORM, "url": f"{_PUBLISHED}/stdc2_20220308-7dbd9127.pth"}})


def _network(name: str, layers: tuple[int, int, int], *, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(Stdc, name, pretrained, layers=layers, pretrained_filter_fn=from_mmseg,
                                feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}, **options)


@register_model
def stdc1(pretrained: bool = False, **options: Any) -> nn.Module:
    """STDC-1 (also STDCNet813), two blocks in each stage."""
    return _network("stdc1", (2, 2, 2), pretrained=pretrained, **options)


@register_model
def stdc2(pretrained: bool = False, **options: Any) -> nn.Module:
    """STDC-2 (also STDCNet1446), four, five and three blocks."""
    return _network("stdc2", (4, 5, 3), pretrained=pretrained, **options)
