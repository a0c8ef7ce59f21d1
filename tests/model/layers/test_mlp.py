"""The feed-forward block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.layers.mlp import FeedForward


@pytest.mark.parametrize(("name", "function"), [("relu", F.relu), ("gelu", F.gelu)])
def test_it_is_linear_activation_linear_on_every_token_alone(name, function):
    block, x = FeedForward(4, 8, activation=name), torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(block(x), block.linear2(function(block.linear1(x))))
    torch.testing.assert_close(block(x)[1, 2, 3], block(x[1, 2, 3]))
