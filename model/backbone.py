"""Feature maps of timm networks at strides 4, 8, 16 and 32, with the official padding and norm settings.

Only this file, `axial_resnet.py` and `stdc.py` import timm. Every side of every map is ceil(side / stride), so the
official odd inputs of size 1 + 32 k give (size - 1) / stride + 1.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig

# Kept for the life of the process, because dropping the library would remove the operator schemas again.
_TORCHVISION_SCHEMAS: list[torch.library.Library] = []


@cache
def load_timm() -> ModuleType:
    """Import timm even if torchvision's compiled operators cannot load (its PyPI wheel beside a CPU-only torch).

    torchvision then fails while registering fake kernels for operators that do not exist, and timm imports
    torchvision unconditionally. Declaring the two schemas is enough; calling such an operator still raises an error.
    A torchvision that loads is left alone. The import takes seconds, so it waits for the first network.
    """
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # A copy of the names, since a thread of the tracker may import something meanwhile.
        for name in [name for name in list(sys.modules) if name.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _TORCHVISION_SCHEMAS.append(library)
        import timm
    from model import axial_resnet, stdc  # noqa: F401  register their networks with timm, which must be there before

    return timm


STRIDES = (4, 8, 16, 32)

# Networks of the recipes. Their names are accepted without asking timm, whose import takes seconds.
KNOWN_NETWORKS = {"axial_resnet50", "convnext_large", "convnextv2_large", "resnet101", "resnet50", "stdc1", "stdc2",
                  "swin_base_patch4_window12_384", "swin_large_patch4_window12_384", "test_resnet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The timm network and its regularisation."""

    name: str = "resnet50"        # any timm name with features at strides 4 to 32
    pretrained: bool = False      # fetch timm's ImageNet weights; needs the internet or a filled cache
    drop_path: float = 0.0        # rate of the last block; earlier ones get linearly less (axial_resnet50: of all
                                  # axial blocks)
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    frozen_statistics: bool = False    # batch norms keep their running statistics in training; scale and shift learn
    output_norms: bool = False    # a layer norm on each map, as for Swin in mmdetection and detectron2

    def __post_init__(self) -> None:
        timm = None if self.name.partition(".")[0] in KNOWN_NETWORKS else load_timm()
        if timm is not None and not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(f"timm {timm.__version__} has no network called {self.name!r}; "
                             + (f"near matches: {', '.join(near)}" if near else "see timm.list_models()"))
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path} must be a probability in [0, 1); the paper uses 0 to 0.6")


class Backbone(nn.Module):
    """Feature maps of single frames.

    channels, strides: four numbers each, in the order of the maps.
    ConvNeXt gets the zero padding of kmax-deeplab (`kmax_deeplab/modeling/backbone/convnext.py`) when its patches do
    not tile the input, and no output norms, because the pixel decoder normalises. Its layer norms compute in float32
    under autocast, which is PyTorch's own behaviour.
    Swin splits maps into full windows and shifts them as detectors do, whatever its size in pre-training was.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        options = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        if config.name.startswith("swin_"):
            options |= {"strict_img_size": False, "always_partition": True}
        self.network = load_timm().create_model(config.name, pretrained=config.pretrained, features_only=True,
                                                **options)
        reductions = self.network.feature_info.reduction()
        if missing := [stride for stride in STRIDES if stride not in reductions]:
            raise ValueError(f"backbone {config.name!r} has maps at strides {reductions}, none at {missing}; choose "
                             "a network with maps at strides 4, 8, 16 and 32, such as resnet50 or convnext_large")
        self._indices = tuple(reductions.index(stride) for stride in STRIDES)
        self.strides = STRIDES
        self.channels = tuple(self.network.feature_info.channels()[index] for index in self._indices)
        self._channels_last = self.network.output_fmt == "NHWC"
        self.output_norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels
                                          if config.output_norms)
        self.name = config.name
        self.frozen_statistics = config.frozen_statistics
        _set_batch_norms(self.network, config.batch_norm)
        _pad_patches(self.network)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """frames: n 3 H W, normalised. Returns maps n channels[i] ceil(H / strides[i]) ceil(W / strides[i])."""
        maps = self.network(frames)
        maps = tuple(maps[index] for index in self._indices)
        if self.output_norms and not self._channels_last:
            maps = (rearrange(map_, "n c h w -> n h w c") for map_ in maps)
        if self.output_norms:
            maps = (norm(map_) for norm, map_ in zip(self.output_norms, maps))
        if self.output_norms or self._channels_last:
            maps = (rearrange(map_, "n h w c -> n c h w") for map_ in maps)
        return tuple(maps)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode as usual, but frozen batch norms never use the statistics of a batch."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):     # synchronised ones too
                    module.eval()
        return self


def _set_batch_norms(network: nn.Module, config: BatchNormConfig) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = config.eps
            module.momentum = config.momentum


def _pad_patches(network: nn.Module) -> None:
    """Pad so that patches and windows cover the whole input.

    Swin pads its patches on the right and bottom by itself. Its windows are padded here before they are shifted; timm
    pads them afterwards, and then the two ends of a map share a window.
    ConvNeXt has strided convolutions without overlap. Down-sampling gets one row and column of zeros at the bottom
    right of odd maps, before the layer norm of that step. The stem gets one pixel on the left and top and two on the
    right and bottom of sides that are not a multiple of 4; other sides tile exactly and stay aligned with the labels of
    even inputs.
    """
    windowed = load_timm().models.swin_transformer.SwinTransformerBlock
    for module in network.modules():
        if hasattr(module, "dynamic_img_pad"):
            module.dynamic_img_pad = True
        if isinstance(module, windowed):
            module._attn = partial(_attend_in_full_windows, module)
        children = list(module.children()) if isinstance(module, nn.Sequential) else []
        if any(isinstance(child, nn.Conv2d) and child.kernel_size == child.stride == (2, 2) for child in children):
            module.register_forward_pre_hook(_pad_odd)
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    if stem.kernel_size == stem.stride == (4, 4) and stem.padding == (0, 0):
        stem.register_forward_pre_hook(_pad_stem)


def _attend_in_full_windows(block: nn.Module, x: Tensor) -> Tensor:
    """Apply timm's attention of a block to whole windows, which it need not pad. x: n h w c, normed."""
    height, width = x.shape[1:3]
    missing = [-side % window for side, window in zip((height, width), block.window_size)]
    return type(block)._attn(block, F.pad(x, (0, 0, 0, missing[1], 0, missing[0])))[:, :height, :width]


def _pad_odd(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    height, width = inputs[0].shape[-2:]
    return (F.pad(inputs[0], (0, width % 2, 0, height % 2)),)


def _pad_stem(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    height, width = inputs[0].shape[-2:]
    horizontal = (1, 2) if width % 4 else (0, 0)
    vertical = (1, 2) if height % 4 else (0, 0)
    return (F.pad(inputs[0], (*horizontal, *vertical)),)
