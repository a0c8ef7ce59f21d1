"""The feed-forward block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.layers.mlp import FeedForward, mlp


@pytest.mark.parametrize(("name", "function"), [("relu", F.relu), ("gelu", F.gelu)])
def test_it_is_linear_activation_linear_on_every_token_alone(name, function):
    block = FeedForward(4, 8, activation=name)
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(block(x), block.linear2(function(block.linear1(x))))
    torch.testing.assert_close(block(x)[1, 2, 3], block(x[1, 2, 3]))


def test_linear_layers_in_a_row_have_relu_between_and_none_at_the_end():
    layers = mlp(4, 8, 6, 3)
    x = torch.randn(2, 5, 4)
    expected = layers[4](F.relu(layers[2](F.relu(layers[0](x)))))
    assert expected.min() < 0
    torch.testing.assert_close(layers(x), expected)
    torch.testing.assert_close(mlp(4, 3)[0].weight.shape, torch.Size((3, 4)))
