"""Temporal-ASPP: dilated 1-D convolutions along the clips of one query (MaXTron, arXiv 2311.18537 v1, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig, ConvBN


class TemporalASPP(nn.Module):
    """Parallel convolutions over time at several rates, joined by a 1x1 convolution, norm and GELU.

    x: b c k, one sequence of k clips per query -> b out_dim k; out_dim defaults to c. The ends are repeated (replicate
    padding), so k may be any number from 1 up. The branches have neither norm nor activation, as in the public code
    (TACJu/MaXTron, class ASPP).
    """

    def __init__(self, dim: int, *, out_dim: int | None = None, rates: tuple[int, ...] = (1, 2, 3),
                 kernels: tuple[int, ...] = (3, 3, 3), norm: Literal["ln", "bn"] | None = "ln", dropout: float = 0.0,
                 batch_norm: BatchNormConfig | None = None) -> None:
        super().__init__()
        out_dim = out_dim or dim
        if len(rates) != len(kernels):
            raise ValueError(f"rates={rates} and kernels={kernels}: give one rate for each kernel")
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, out_dim, kernel, dilation=rate, padding="same", padding_mode="replicate")
            for rate, kernel in zip(rates, kernels))
        self.join = ConvBN(len(rates) * out_dim, out_dim, dims=1, norm=norm, activation="gelu", batch_norm=batch_norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.join(torch.cat([convolution(x) for convolution in self.convolutions], dim=1)))
