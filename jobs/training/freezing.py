"""Parts of a model that training leaves as they are.

Their parameters get no gradient, so they are outside the optimizer and the gradient norm, and their modules stay in
evaluation mode: no dropout, no drop path, and batch norms that use their running statistics. So mmdetection freezes the
first stages of Swin (`SwinTransformer._freeze_stages`), and detectron2 the norms of ResNet (`FrozenBatchNorm2d`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Freeze the parameters whose names hold one of `parts`, and the modules that have no other parameters.

    Call it before the optimizer and DDP see the model. Raises ValueError for a part that occurs in no name, and where
    nothing would be left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    unused = [part for part in parts if not any(part in name for name in names)]
    if unused:
        raise ValueError(f"optimizer.frozen: {unused} occur in the name of no parameter of this model; correct or "
                         "remove them")
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"optimizer.frozen={list(parts)} freezes all {len(names)} parameters, so nothing would be "
                         "trained; remove a part")
    _keep_in_evaluation_mode(model, "", parts)


def _keep_in_evaluation_mode(module: nn.Module, prefix: str, parts: Sequence[str]) -> None:
    """Walk down to the largest modules of which every parameter is frozen by name."""
    names = [prefix + name for name, _ in module.named_parameters()]
    if names and all(any(part in name for part in parts) for name in names):
        module.train = partial(_stay, module)
        module.eval()
        return
    for name, child in module.named_children():
        _keep_in_evaluation_mode(child, f"{prefix}{name}.", parts)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `module.train`: whatever the mode of the model is, this module stays in evaluation mode."""
    return type(module).train(module, False)
