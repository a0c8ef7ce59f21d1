"""The feed-forward block of a transformer layer, and a stack of linear layers."""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear layer, activation, linear layer, without residual and norm. x: ... c.

    The weights start Xavier uniform, like all transformer matrices of the within-clip module.
    """

    def __init__(
        self, dim: int, hidden: int, *, activation: Literal["relu", "gelu"] = "relu", dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.activation = {"relu": nn.ReLU(inplace=True), "gelu": nn.GELU()}[activation]
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them; widths: of the input, of every hidden layer, of the output."""
    layers = [nn.Linear(into, out) for into, out in itertools.pairwise(widths)]
    return nn.Sequential(layers[0], *(part for layer in layers[1:] for part in (nn.ReLU(inplace=True), layer)))
