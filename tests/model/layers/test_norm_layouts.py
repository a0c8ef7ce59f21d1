"""The gradient of a batch norm does not depend on how its input and its gradient lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from model.layers.norm_layouts import settle_norm_layouts

NORMS = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def layouts(x: Tensor) -> list[Tensor]:
    """The same values with channels outermost and with channels innermost, where the stride of the batch varies."""
    innermost = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return [x, innermost, *(innermost.as_strided(x.shape, (stride, *innermost.stride()[1:]))
                            for stride in (1, x.shape[1]))]


def gradients(norm: nn.Module, x: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Of the input, the scale and the shift."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(norm(leaf), (leaf, norm.weight, norm.bias), gradient)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 6, 4, 5), (1, 3, 2, 4, 5), (1, 4, 1, 7)])
def test_the_gradient_of_one_item_is_the_same_in_every_layout(shape: Sequence[int], training: bool):
    torch.manual_seed(0)
    x, gradient = torch.randn(2, *shape)
    norm = settle_norm_layouts(NORMS[len(shape)](shape[1]).train(training))
    whole = gradients(norm, x, gradient)
    for stored, arriving in product(layouts(x), layouts(gradient)):
        assert_close(gradients(norm, stored, arriving), whole)


def test_a_batch_of_several_items_is_not_copied():
    x = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    seen = []
    norm = settle_norm_layouts(nn.BatchNorm2d(6))
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    norm(x)
    assert seen[0] is x
