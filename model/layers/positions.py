"""Sine positions in two and three dimensions, channels last.

Behaviour follows TACJu/MaXTron, `maxtron_deeplab/modeling/within_clip_tracking_module/pos_embeddings.py`: coordinates
count from 1 and are divided by the last one, so that every map ends at 2 pi whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor

_EPSILON = 1e-6     # keeps the division defined on fully padded rows


def sine_positions_2d(
    height: int, width: int, *, channels: int, padding: Tensor | None = None, device: torch.device | None = None,
) -> Tensor:
    """h w c: the first half of the channels encodes the row, the second half the column.

    padding: b h w bool, true where padded; rows and columns then count the real pixels of each image, and the result is
    b h w c. Raises ValueError when the channels do not divide by four (two axes, each in pairs of sine and cosine).
    """
    _check(channels)
    if padding is None:
        real = torch.ones(height, width, device=device)
    else:
        _check_padding(padding, height, width)
        real = (~padding).float()
    rows = real.cumsum(-2)
    columns = real.cumsum(-1)
    return torch.cat([
        _waves(rows / (rows[..., -1:, :] + _EPSILON), channels // 2),
        _waves(columns / (columns[..., :, -1:] + _EPSILON), channels // 2),
    ], dim=-1)


def sine_positions_3d(
    frames: int, height: int, width: int, *, channels: int, padding: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """t h w c: the two-dimensional position plus the position of the frame, which takes all channels.

    padding: b t h w bool, true where padded; the frames of a pixel are then counted where it is real, and the result is
    b t h w c.
    """
    if padding is None:
        space = sine_positions_2d(height, width, channels=channels, device=device)
        count = torch.arange(1, frames + 1, device=device, dtype=torch.float32)
        return rearrange(_waves(count / (frames + _EPSILON), channels), "t c -> t 1 1 c") + space
    _check_padding(padding, frames, height, width)
    space = sine_positions_2d(height, width, channels=channels, padding=rearrange(padding, "b t h w -> (b t) h w"))
    count = (~padding).float().cumsum(1)
    return _waves(count / (count[:, -1:] + _EPSILON), channels) + rearrange(space, "(b t) h w c -> b t h w c", t=frames)


def level_positions(sizes: Iterable[tuple[int, int]], embeddings: Tensor) -> Tensor:
    """(levels h w) c: the position in the map plus the learned embedding of the level, level after level.

    sizes: height and width of each level. embeddings: levels c.
    """
    sines = (sine_positions_2d(*size, channels=embeddings.shape[-1], device=embeddings.device) for size in sizes)
    return torch.cat([rearrange(sine, "h w c -> (h w) c") + embedding for sine, embedding in zip(sines, embeddings)])


def _waves(fraction: Tensor, channels: int) -> Tensor:
    """Fractions (0 to 1) to interleaved sine and cosine of falling frequency, temperature 10000."""
    pair = torch.arange(0, channels, 2, device=fraction.device, dtype=torch.float32)
    angles = (fraction * 2 * math.pi)[..., None] / 10_000 ** (pair / channels)
    return rearrange([angles.sin(), angles.cos()], "two ... pair -> ... (pair two)")


def _check_padding(padding: Tensor, *sides: int) -> None:
    if padding.shape[-len(sides):] != sides:
        raise ValueError(f"padding {tuple(padding.shape)} must end in {sides}, the sides of the features")


def _check(channels: int) -> None:
    if channels % 4:
        raise ValueError(f"sine positions cannot have {channels} channels, because each of two axes needs pairs of "
                         "sine and cosine; choose a multiple of 4")
