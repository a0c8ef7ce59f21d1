"""Axial-ResNet50-B1, which timm lacks: a ResNet-50 whose blocks attend along columns and rows from stride 16 on.

Source: Axial-DeepLab (arXiv 2003.07853), figure 2; the layout is that of google-research/deeplab2,
`model/pixel_encoder/axial_resnet.py` (`axial_resnet50`) and `model/layers/axial_block_groups.py`. The block that goes
from stride 8 to 16 is still a convolution. Importing this file registers the network. Its weights were released for
TensorFlow alone.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from model.layers.axial_attention import AxialAttention2d
from model.layers.convolution import BatchNormConfig, ConvBN
from model.layers.drop_path import DropPath

STEM = (64, 64, 128)        # channels of three 3x3 convolutions; the first one has stride 2
BLOCKS = (3, 4, 6, 3)       # of the stages at strides 4, 8, 16 and 32
WIDTH = 64                  # base width of the first stage; each further one has twice as much
EXPANSION = 4               # output channels of a block, in units of the base width
AXIAL_FROM = 16             # stride of the input from which on blocks attend


class AxialResNet(nn.Module):
    """The stem and four stages of blocks. There is no classifier, so num_classes is not used.

    drop_path_rate: of every axial block.
    """

    def __init__(self, drop_path_rate: float = 0.0, num_classes: int = 0, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = in_chans
        layers: list[nn.Module] = []
        for index, width in enumerate(STEM):
            layers.append(ConvBN(channels, width, 3, stride=1 if index else 2, activation="gelu"))
            channels = width
        self.feature_info = []
        for stage, count in enumerate(BLOCKS):
            width = WIDTH * 2 ** stage
            for index in range(count):
                stride = 1 if index else 2
                is_axial = 2 ** (stage + 2) // stride >= AXIAL_FROM
                kind = AxialBlock if is_axial else Bottleneck
                layers.append(kind(channels, width=width, stride=stride, drop_path=drop_path_rate * is_axial))
                channels = EXPANSION * width
            self.feature_info.append({"num_chs": channels, "reduction": 2 ** (stage + 2),
                                      "module": f"features.{len(layers) - 1}"})
        self.features = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """frames: n 3 H W. Returns the map at stride 32, n 2048 h w."""
        return self.features(frames)


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3, 1x1. The 3x3 has the stride."""

    def __init__(self, in_channels: int, *, width: int, stride: int, drop_path: float) -> None:
        super().__init__()
        inner = self.inner_channels(width)
        self.reduce = ConvBN(in_channels, inner, activation="gelu")
        self.mix = self.mixing(width, stride=stride)
        self.expand = ConvBN(inner, EXPANSION * width, norm_scale=0.0)
        self.shortcut = (nn.Identity() if in_channels == EXPANSION * width
                         else ConvBN(in_channels, EXPANSION * width, stride=stride))
        self.drop_path = DropPath(drop_path)

    def inner_channels(self, width: int) -> int:
        """Channels between the two 1x1 convolutions."""
        return width

    def mixing(self, width: int, *, stride: int) -> nn.Module:
        """What mixes positions; a GELU follows it."""
        return ConvBN(width, width, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: n c h w. Returns n (4 * width) h' w', with sides divided by the stride and rounded up."""
        branch = self.expand(F.gelu(self.mix(self.reduce(x))))
        return F.gelu(self.drop_path(branch) + self.shortcut(x))


class AxialBlock(Bottleneck):
    """The same with twice the inner channels, and axial attention in place of the 3x3."""

    def inner_channels(self, width: int) -> int:
        """See `Bottleneck`."""
        return 2 * width

    def mixing(self, width: int, *, stride: int) -> nn.Module:
        """See `Bottleneck`."""
        inner = self.inner_channels(width)
        return AxialAttention2d(inner, key_depth=width, value_depth=inner, stride=stride, batch_norm=BatchNormConfig())


default_cfgs = generate_default_cfgs({
    "axial_resnet50": {"first_conv": "features.0.conv", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}})


@register_model
def axial_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """Axial-ResNet50-B1."""
    return build_model_with_cfg(AxialResNet, "axial_resnet50", pretrained,
                                feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}, **options)
