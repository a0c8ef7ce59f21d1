"""Batch norms that read the gradient of a batch of one item in its own memory layout, on a CPU.

In a batch of one, the stride of the batch means nothing, and einsum and unsqueeze leave any number there. PyTorch 2.13
then takes a tensor whose channels are innermost for one whose channels are outermost, if the other of input and
gradient is of that kind, and the gradient of a batch norm is that of other pixels. No error is raised.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def settle_norm_layouts(model: nn.Module) -> nn.Module:
    """The model itself; on a CPU, its batch norms and their gradients now see tensors of an unmistakable layout."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_settle_input)
            module.register_forward_hook(_settle_gradient)
    return model


def unmistakable(x: Tensor) -> Tensor:
    """The same values, copied to rows of channels first if x is one item whose stride of the batch is not its size."""
    if x.shape[0] != 1 or x.stride(0) == x[0].numel():
        return x
    return x.contiguous()


def _settle_input(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return tuple(map(unmistakable, inputs)) if inputs[0].device.type == "cpu" else inputs


def _settle_gradient(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Any:
    if output.requires_grad and output.shape[0] == 1 and output.device.type == "cpu":
        output.register_hook(unmistakable)
