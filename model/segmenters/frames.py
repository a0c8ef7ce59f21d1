"""Frames as they enter a segmenter: checked, then normalised with exact zeros in the padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

IMAGENET_MEAN = (123.675, 116.28, 103.53)      # r, g, b of values 0 to 255
IMAGENET_STD = (58.395, 57.12, 57.375)


def check_std(std: Sequence[float]) -> None:
    """Refuse to divide by nothing. std: of r, g and b."""
    if min(std) <= 0:
        raise ValueError(f"pixel_std={std} must be above 0; ImageNet's is {IMAGENET_STD}")


def check_frames(frames: Tensor, real_pixels: Tensor | None) -> int:
    """Refuse clips of another layout than b t 3 H W; returns the number of frames."""
    if frames.ndim != 5 or frames.shape[2] != 3 or frames.shape[1] < 1:
        raise ValueError(f"frames of shape {tuple(frames.shape)}: a segmenter takes b t 3 height width, colour third. "
                         "A single image is a clip of one frame: image[None, None]")
    expected = (*frames.shape[:2], *frames.shape[3:])
    if real_pixels is not None and tuple(real_pixels.shape) != expected:
        raise ValueError(f"real_pixels of shape {tuple(real_pixels.shape)} do not belong to frames of shape "
                         f"{tuple(frames.shape)}; expected b t height width = {expected}")
    return frames.shape[1]


def normalise(frames: Tensor, real_pixels: Tensor | None, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Frames as a backbone wants them: (b t) 3 H W, zero mean, padding exactly zero.

    frames: b t 3 H W, values 0 to 255. real_pixels: b t H W bool; None: all real. mean, std: of r, g and b.
    """
    mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    frames = (frames.float() - mean) / std
    if real_pixels is not None:
        frames = frames * rearrange(real_pixels, "b t h w -> b t 1 h w")
    # channels last: convolutions and pooling of the backbone run about twice as fast on a CPU this way
    return rearrange(frames, "b t c h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
