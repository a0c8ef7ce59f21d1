"""Convolution, norm and activation as one block, from which pixel and query decoders are built.

Behaviour follows bytedance/kmax-deeplab, `kmax_deeplab/modeling/pixel_decoder/kmax_pixel_decoder.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Initialisation = Literal["he", "xavier"] | tuple[Literal["truncated"], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNormConfig:
    """Settings of all batch norms of a network. The defaults suit kMaX's 150k steps; short runs need momentum 0.1."""

    eps: float = 1e-3
    momentum: float = 0.01    # as in PyTorch: the weight of the newest batch in the running statistics

    def __post_init__(self) -> None:
        if self.eps <= 0 or not 0 < self.momentum <= 1:
            raise ValueError(f"batch norm with eps={self.eps}, momentum={self.momentum}: eps must be above 0 and "
                             "momentum in (0, 1]; the official values are 1e-3 and 0.01")


class ChannelsFirstLayerNorm(nn.Module):
    """Layer norm over the channels of maps `b c h w` or sequences `b c n`.

    It computes and returns float32 even under autocast, because half-precision means of large activations drift.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = rearrange(x.float(), "b c ... -> b ... c")
            x = F.layer_norm(x, self.weight.shape, self.weight.float(), self.bias.float(), self.eps)
            return rearrange(x, "b ... c -> b c ...")


class ConvBN(nn.Module):
    """Convolution with "same" padding, then norm, then activation; the last two are optional.

    dims: 2 for maps `b c h w`, 1 for sequences `b c n`. norm: "bn" batch norm, "ln" layer norm over channels, "gn"
    group norm of 32 groups, or of the largest common divisor with 32.
    norm_scale: first scale of the norm; 0 for the last norm of a residual branch, so that the branch starts at zero.
    init: "he" has std sqrt(2 / in_channels), deliberately without the kernel area; "xavier" is for depthwise
    convolutions; ("truncated", std) is any other truncated normal. All normals are cut at two standard deviations.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, dims: Literal[1, 2] = 2, groups: int = 1,
        stride: int = 1, dilation: int = 1, bias: bool = False, norm: Literal["bn", "ln", "gn"] | None = "bn",
        activation: Literal["gelu", "relu"] | None = None, norm_scale: float = 1.0, init: Initialisation = "he",
        batch_norm: BatchNormConfig | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: an even kernel has no 'same' padding; choose an odd one")
        convolution = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
        self.conv = convolution(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, groups=groups,
                                padding=dilation * (kernel_size // 2), bias=bias)
        self.norm = _norm(norm, out_channels, dims, batch_norm or BatchNormConfig())
        self.activation = {"gelu": nn.GELU, "relu": nn.ReLU, None: nn.Identity}[activation]()
        _initialise(self.conv.weight, init, in_channels)
        if bias:
            nn.init.zeros_(self.conv.bias)
        if norm is not None:
            nn.init.constant_(self.norm.weight, norm_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


def _norm(norm: str | None, channels: int, dims: int, batch_norm: BatchNormConfig) -> nn.Module:
    match norm:
        case "bn":
            kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
            return kind(channels, eps=batch_norm.eps, momentum=batch_norm.momentum)
        case "ln":
            return ChannelsFirstLayerNorm(channels)
        case "gn":
            return nn.GroupNorm(math.gcd(32, channels), channels)
        case None:
            return nn.Identity()
    raise ValueError(f"norm {norm!r} does not exist; choose 'bn', 'ln', 'gn' or None")


def _initialise(weight: Tensor, init: Initialisation, in_channels: int) -> None:
    match init:
        case "he":
            truncated_normal_(weight, std=math.sqrt(2 / in_channels))
        case "xavier":
            nn.init.xavier_uniform_(weight)
        case ("truncated", std):
            truncated_normal_(weight, std=std)
        case _:
            raise ValueError(f"initialisation {init!r} does not exist; choose 'he', 'xavier' or ('truncated', std)")


def truncated_normal_(weight: Tensor, *, std: float) -> Tensor:
    """Fill with a normal cut at two standard deviations, without rescaling afterwards (its own std is 0.88 `std`)."""
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def before_pointwise(embeddings: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Embeddings ... n d of pixels behind a 1x1 convolution -> ... n c+1 of the pixels before it; see `dot_pixels`.

    e (W x + b) = (e W) x + e b, so a few embeddings go through the convolution instead of many pixels.
    """
    constant = embeddings @ convolution.bias
    return torch.cat([embeddings @ convolution.weight.flatten(1), constant[..., None]], -1)


def dot_pixels(embeddings: Tensor, pixels: Tensor) -> Tensor:
    """Dot products of embeddings ... n c+1, whose last entry is a constant, and pixels ... c p -> ... n p."""
    return embeddings[..., :-1] @ pixels + embeddings[..., -1:]
