"""Names of backbones in foreign checkpoints <-> timm's `features_only` names, which our `Backbone` carries.

Sources: detectron2's ResNet; facebookresearch/ConvNeXt and ConvNeXt-V2, whose names kmax-deeplab and MaXTron keep;
mmdetection's Swin, and Microsoft's, whose names detectron2's models keep; torchvision and timm, whose ResNets
mmdetection spells alike; MichaelFan01/STDC-Seg, and Tube-Link, which puts the same blocks into a module per stride. A
table holds for the backbone inside a whole checkpoint and for a file of ImageNet weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from einops import rearrange
from torch import Tensor

from model.converters.rename import Rules

BackboneNaming = Literal["detectron2_resnet", "convnext", "torchvision_convnext", "timm", "mmdet_swin", "swin", "stdc",
                         "tube_link_stdc1", "tube_link_stdc2"]

DETECTRON2_RESNET: Rules = (
    (r"stem\.conv1\.weight", "conv1.weight"),
    (r"stem\.conv1\.norm\.(.+)", r"bn1.\1"),
    *(rule for stage in range(1, 5) for rule in (
        (rf"res{stage + 1}\.(\d+)\.conv(\d)\.weight", rf"layer{stage}.\1.conv\2.weight"),
        (rf"res{stage + 1}\.(\d+)\.conv(\d)\.norm\.(.+)", rf"layer{stage}.\1.bn\2.\3"),
        (rf"res{stage + 1}\.(\d+)\.shortcut\.weight", rf"layer{stage}.\1.downsample.0.weight"),
        (rf"res{stage + 1}\.(\d+)\.shortcut\.norm\.(.+)", rf"layer{stage}.\1.downsample.1.\2"),
    )),
)

CONVNEXT: Rules = (      # gamma: first version only; grn: second version only
    (r"downsample_layers\.0\.(\d)\.(.+)", r"stem_\1.\2"),
    (r"downsample_layers\.(\d)\.(\d)\.(.+)", r"stages_\1.downsample.\2.\3"),
    (r"stages\.(\d)\.(\d+)\.dwconv\.(.+)", r"stages_\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.norm\.(.+)", r"stages_\1.blocks.\2.norm.\3"),
    (r"stages\.(\d)\.(\d+)\.pwconv(\d)\.(.+)", r"stages_\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.grn\.gamma", r"stages_\1.blocks.\2.mlp.grn.weight"),
    (r"stages\.(\d)\.(\d+)\.grn\.beta", r"stages_\1.blocks.\2.mlp.grn.bias"),
    (r"stages\.(\d)\.(\d+)\.gamma", r"stages_\1.blocks.\2.gamma"),
)

TORCHVISION_CONVNEXT: Rules = (
    (r"features\.0\.(\d)\.(.+)", r"stem_\1.\2"),
    *((rf"features\.{2 * stage}\.(\d)\.(.+)", rf"stages_{stage}.downsample.\1.\2") for stage in range(1, 4)),
    *(rule for stage in range(4) for rule in (
        (rf"features\.{2 * stage + 1}\.(\d+)\.layer_scale", rf"stages_{stage}.blocks.\1.gamma"),
        *((rf"features\.{2 * stage + 1}\.(\d+)\.block\.{place}\.(.+)", rf"stages_{stage}.blocks.\1.{module}.\2")
          for place, module in ((0, "conv_dw"), (2, "norm"), (3, "mlp.fc1"), (5, "mlp.fc2"))),
    )),
)

TIMM: Rules = (          # also torchvision's ResNets
    (r"(stem|stages|layers)\.(\d+)\.(.+)", r"\1_\2.\3"),
    (r"patch_embed\.(.+)", r"patch_embed.\1"),
    (r"(conv\d\..+)", r"\1"),
    (r"(bn\d\..+)", r"\1"),
    (r"(layer\d\..+)", r"\1"),
)

MMDET_SWIN: Rules = (    # timm's network lacks its norms of the four maps, which are `Backbone.output_norms`
    (r"patch_embed\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"patch_embed\.norm\.(.+)", r"patch_embed.norm.\1"),
    # mmdetection counts the step down to the stage above it, timm to the stage below
    *((rf"stages\.{stage - 1}\.downsample\.(.+)", rf"layers_{stage}.downsample.\1") for stage in range(1, 4)),
    (r"stages\.(\d)\.blocks\.(\d+)\.attn\.w_msa\.(.+)", r"layers_\1.blocks.\2.attn.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.+)", r"layers_\1.blocks.\2.mlp.fc1.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.ffn\.layers\.1\.(.+)", r"layers_\1.blocks.\2.mlp.fc2.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.(norm\d\..+)", r"layers_\1.blocks.\2.\3"),
)

SWIN: Rules = (          # Microsoft counts the step down as mmdetection does
    (r"patch_embed\.(.+)", r"patch_embed.\1"),
    *((rf"layers\.{stage - 1}\.downsample\.(.+)", rf"layers_{stage}.downsample.\1") for stage in range(1, 4)),
    (r"layers\.(\d)\.blocks\.(.+)", r"layers_\1.blocks.\2"),
)

STDC: Rules = ((r"features\.(\d+)\.(.+)", r"features_\1.\2"),)


def _by_stride(*blocks: str) -> Rules:
    """blocks: patterns of the numbers of the blocks in the modules x2, x4, x8, x16 and x32; an x may have several."""
    strides = (2, 4, 8, 16, 32)
    return tuple((rf"x{stride}\.0\.({pattern})\.(.+)", r"features_\1.\2")
                 for stride, patterns in zip(strides, blocks, strict=True) for pattern in patterns.split())


TUBE_LINK_STDC1 = _by_stride("0", "1", "[23]", "[45]", "[67]")
TUBE_LINK_STDC2 = _by_stride("0", "1", "[2-5]", "[6-9] 10", "1[1-3]")

BACKBONES: Mapping[BackboneNaming, Rules] = {
    "detectron2_resnet": DETECTRON2_RESNET, "convnext": CONVNEXT, "torchvision_convnext": TORCHVISION_CONVNEXT,
    "timm": TIMM, "mmdet_swin": MMDET_SWIN,
    "swin": SWIN, "stdc": STDC, "tube_link_stdc1": TUBE_LINK_STDC1, "tube_link_stdc2": TUBE_LINK_STDC2,
}

# ImageNet files also hold the last norm and the classifier.
CLASSIFIER: Rules = ((r"(stem\.)?fc\..+", None), (r"head\..+", None), (r"norm\..+", None), (r"classifier\..+", None),
                     (r"conv_last\..+", None), (r"bn\..+", None), (r"linear\..+", None))

# A name that tells a naming, most special first.
_SIGNS: tuple[tuple[str, BackboneNaming], ...] = (
    ("stem.conv1.weight", "detectron2_resnet"), ("downsample_layers.0.0.weight", "convnext"),
    ("features.0.0.weight", "torchvision_convnext"), ("stem.0.weight", "timm"), ("conv1.weight", "timm"),
    ("conv1.0.weight", "timm"), ("patch_embed.projection.weight", "mmdet_swin"),
    ("layers.0.downsample.reduction.weight", "swin"), ("layers.1.downsample.reduction.weight", "timm"),
    ("features.0.conv.weight", "stdc"), ("x8.0.5.conv_list.0.conv.weight", "tube_link_stdc2"),
    ("x2.0.0.conv.weight", "tube_link_stdc1"),
)

_MERGE = re.compile(r"\d\.downsample\.")


def backbone_naming(names: Iterable[str]) -> BackboneNaming | None:
    """Whose names these are, without the prefix of the model around it; None where no table fits."""
    names = set(names)
    return next((naming for sign, naming in _SIGNS if sign in names), None)


def usual_naming(names: Iterable[str], *, mmdet: bool = False) -> BackboneNaming:
    """The official naming for one of our backbones. names: ours, inside `Backbone.network`. mmdet: in mmdetection."""
    names = set(names)
    if "patch_embed.proj.weight" in names:
        return "mmdet_swin" if mmdet else "swin"
    if "features_0.conv.weight" in names:
        size = 2 if "features_8.conv_list.0.conv.weight" in names else 1
        return f"tube_link_stdc{size}" if mmdet else "stdc"
    if mmdet:
        return "timm"
    return "convnext" if "stem_0.weight" in names else "detectron2_resnet"


def our_shape(tensor: Tensor, *, name: str, naming: BackboneNaming | None = None) -> Tensor:
    """Layer scales and response norms are vectors here; others keep axes of length one around them. name: ours.

    Where Swin merges 2 x 2 patches, the order of their channels changes too: mmdetection has (channels, rows,
    columns), timm and Microsoft have (columns, rows, channels).
    """
    if naming == "mmdet_swin" and _MERGE.search(name):
        return rearrange(tensor, "... (c h w) -> ... (w h c)", h=2, w=2)
    return tensor.flatten() if name.endswith((".gamma", ".mlp.grn.weight", ".mlp.grn.bias")) else tensor


def their_shape(tensor: Tensor, *, name: str, naming: BackboneNaming | None = None) -> Tensor:
    """The other way. name: theirs."""
    if naming == "mmdet_swin" and _MERGE.search(name):
        return rearrange(tensor, "... (w h c) -> ... (c h w)", h=2, w=2)
    if name.endswith((".grn.gamma", ".grn.beta")):
        return tensor.reshape(1, 1, 1, -1)      # channels last
    if name.endswith(".layer_scale"):
        return tensor.reshape(-1, 1, 1)         # channels first
    return tensor
