"""Bilinear resizing of maps by kMaX's rule of corners, in one place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool | None = None) -> Tensor:
    """Bilinear resizing of x, b c h w, to the height and width `size`.

    Corners are aligned exactly when the width of `x` is odd (kmax-deeplab: inputs of 1 + 32 k pixels keep the first
    and the last pixel of every map at the same place), unless `align_corners` says otherwise.
    """
    if align_corners is None:
        align_corners = is_odd(x.shape[-1])
    # PyTorch's CPU code interpolates channels last and copies other layouts there and back: 7 times as slow, 20 times
    # with the backward pass
    x = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def is_odd(pixels: int) -> bool:
    """Whether a width has the centre pixel that corner alignment is about."""
    return pixels % 2 == 1
