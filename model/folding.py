"""Convolutions that do the work of the batch norms behind them: a frozen network in fewer steps, for test time."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbone import KNOWN_NETWORKS, Backbone
from model.layers.convolution import ConvBN

_FOLDED = {nn.BatchNorm1d, nn.BatchNorm2d}      # not their subclasses, which may activate too


def fold_norms(network: nn.Module) -> nn.Module:
    """The network itself, for inference alone: batch norms that follow a convolution become part of it, and the weights
    of convolutions lie channels last in memory, as the features do.

    A norm in evaluation is a fixed scale and shift of each channel, so results differ by rounding only. Weights get
    other values, and those of the norms are gone: a folded network must not be trained or saved. In a backbone that no
    recipe names, norms stay where they are, since the order of its layers is not known.
    Raises ValueError for a network that is in training.
    """
    if network.training:
        raise ValueError("batch norms are folded into convolutions only once they are frozen; call eval() first")
    foreign = {id(module) for backbone in network.modules() if _is_foreign(backbone) for module in backbone.modules()}
    for module in list(network.modules()):
        if id(module) not in foreign:
            for convolution, norm in _neighbours(module):
                folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, folded.requires_grad_(False))
                setattr(module, norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _is_foreign(module: nn.Module) -> bool:
    return isinstance(module, Backbone) and module.name.partition(".")[0] not in KNOWN_NETWORKS


def _neighbours(module: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions of a block and of the batch norms behind them: by the block's own rule, or timm's."""
    children = dict(module.named_children())
    if isinstance(module, ConvBN):
        pairs = [("conv", "norm")]
    elif isinstance(module, nn.Sequential):
        pairs = list(pairwise(children))
    else:
        pairs = [(name, name.replace("conv", "bn")) for name in children if name.startswith("conv")]
    return [(one, other) for one, other in pairs
            if isinstance(children[one], nn.Conv1d | nn.Conv2d) and type(children.get(other)) in _FOLDED]
