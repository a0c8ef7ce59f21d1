"""Stochastic depth: a residual branch is skipped for a whole item of the batch."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero the branch of each batch item with probability `rate` and scale the others by 1 / (1 - rate).

    arXiv 1603.09382, section 3. x: b ..., the output of a residual branch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate {rate} must be in [0, 1); the official decoder uses 0.2")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (keep / (1 - self.rate))
