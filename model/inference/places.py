"""Where the mask of each query lies in every frame of a clip, and which colours it covers: `places` and `looks`.

A segmenter is trained to tell objects apart inside a clip, so its queries carry neither velocity nor colour. The masks
and the frames do. Learned links (`model.association.links`) read both, at inference and from the query cache.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from model.contracts import ClipPrediction

SHARE = 0.3         # of a pixel, above which it belongs to a query whose masks compete in a softmax
STRIDE = 4


def with_places(clip: ClipPrediction, frames: Tensor, real_pixels: Tensor, *, compete: bool) -> ClipPrediction:
    """The same clips with `places` and `looks`.

    frames: b t 3 H W RGB, 0 to 255. real_pixels: b t H W bool, false in padding. compete: the masks share each pixel by
    a softmax over queries; False: each mask is a sigmoid of its own.
    """
    logits = clip.mask_logits
    inside = logits > (logits.logsumexp(1, keepdim=True) + math.log(SHARE) if compete else 0)
    moments = _moments(inside, frames[..., ::STRIDE, ::STRIDE], real_pixels[..., ::STRIDE, ::STRIDE])
    return replace(clip, places=_places(moments[..., :5]), looks=_looks(moments.sum(2)))


def without_repeats(clip: ClipPrediction, frames: int) -> ClipPrediction:
    """The clip with no mask seen from frame `frames` on, where its last frame is repeated."""
    if frames == clip.places.shape[2]:
        return clip
    return replace(clip, places=F.pad(clip.places[:, :, :frames], (0, 0, 0, clip.places.shape[2] - frames)))


def _moments(inside: Tensor, frames: Tensor, real: Tensor) -> Tensor:
    """inside b n t h w bool, frames b t 3 h w, real b t h w -> b n t 11: sums over each mask, as parts of the frame.

    The summands are 1, y, x, their squares, and r, g, b with their squares. y and x are measured from the middle of the
    real pixels in parts of their height and width, so that a mirrored mask has exactly negated sums.
    """
    height = real.any(-1).sum(-1).clamp(min=1)[..., None, None]                 # b t 1 1
    width = real.any(-2).sum(-1).clamp(min=1)[..., None, None]
    rows = torch.arange(real.shape[-2], device=real.device)[:, None]
    columns = torch.arange(real.shape[-1], device=real.device)
    y = ((2 * rows + 1 - height) / (2 * height)).expand(real.shape)             # b t h w
    x = ((2 * columns + 1 - width) / (2 * width)).expand(real.shape)
    colours = frames.float() / 255
    summands = torch.cat([torch.stack([torch.ones_like(y), y, x, y ** 2, x ** 2], 2), colours, colours ** 2], 2)
    summands = summands * (real / (height * width))[:, :, None]
    masks = rearrange(inside.float(), "b n t h w -> b t n (h w)")
    return einsum(masks, rearrange(summands, "b t s h w -> b t (h w) s"), "b t n p, b t p s -> b n t s")


def _places(moments: Tensor) -> Tensor:
    """moments ... 5 (area, sums of y, x and of their squares) -> ... 5: area, centroid, deviation; 0 without a mask."""
    area = moments[..., :1]
    mean, deviation = _mean_and_deviation(moments[..., 1:], area)
    return torch.cat([area, torch.where(area > 0, mean + 0.5, 0), deviation], -1)


def _looks(moments: Tensor) -> Tensor:
    """moments ... 11, summed over the frames of the clip -> ... 6: mean and deviation of r, g, b, from 0 to 1."""
    return torch.cat(_mean_and_deviation(moments[..., 5:], moments[..., :1]), -1)


def _mean_and_deviation(sums: Tensor, area: Tensor) -> tuple[Tensor, Tensor]:
    """sums ... 2s of values, then of their squares."""
    first, second = (sums / area.clamp(min=torch.finfo(area.dtype).tiny)).chunk(2, -1)
    return first, (second - first ** 2).clamp(min=0).sqrt()
