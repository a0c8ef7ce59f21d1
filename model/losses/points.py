"""Losses at sampled points instead of every pixel (PointRend, arXiv 1912.08193; Mask2Former, arXiv 2112.01527, 3.3).

A point is (x, y), each a share 0-1 of a map's width or height, so maps of different sizes are read at the same points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[..., Tensor]     # draw(*shape) -> uniform numbers in 0-1


@dataclass(frozen=True, kw_only=True)
class PointConfig:
    """How many points a mask is supervised at, and how they are chosen. Defaults: Mask2Former, Tube-Link, VITA."""

    count: int = 12_544         # points per mask (112 x 112)
    oversample: float = 3.0     # candidates per point, of which the most uncertain are kept
    importance: float = 0.75    # share of the points that are chosen by uncertainty; the rest are uniform

    def __post_init__(self) -> None:
        if self.count < 1 or self.oversample < 1 or not 0 <= self.importance <= 1:
            raise ValueError(f"points: count={self.count} must be at least 1, oversample={self.oversample} at least 1, "
                             f"and importance={self.importance} a share in 0 ... 1")


def uniform(device: torch.device | str, *, generator: torch.Generator | None = None) -> Draw:
    """Draws uniform numbers for `device`; the generator may live on the CPU."""
    source = generator.device if generator else device
    return lambda *shape: torch.rand(shape, generator=generator, device=source).to(device)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """maps b n h w at points b p 2 -> b n p in float32; bilinear between pixel centres, zero outside the map."""
    grid = 2 * points[:, None].float() - 1                                              # b 1 p 2
    return F.grid_sample(maps.float(), grid, align_corners=False)[:, :, 0]


@torch.no_grad()
def uncertain_points(mask_logits: Tensor, *, config: PointConfig, draw: Draw, avoided: Tensor | None = None) -> Tensor:
    """mask_logits b h w -> b p 2: each mask's own points, most of them where its logit is nearest to zero.

    avoided: b h w, above 0 where a candidate is chosen only if there are too few others; None: nowhere.
    There are two draws: the candidates, then the uniform points (none where `importance` is 1).
    """
    uniform_count = config.count - int(config.importance * config.count)
    candidates = draw(len(mask_logits), int(config.count * config.oversample), 2)
    certainty = sample_points(mask_logits[:, None], candidates)[:, 0].abs()             # b candidates
    if avoided is not None:
        certainty = certainty.masked_fill(sample_points(avoided[:, None], candidates)[:, 0] > 0, torch.inf)
    chosen = certainty.topk(config.count - uniform_count, largest=False).indices
    points = candidates.take_along_dim(chosen[..., None], 1)
    return torch.cat([points, draw(len(mask_logits), uniform_count, 2)], 1) if uniform_count else points


@torch.no_grad()
def expected_points(mask_logits: Tensor, weights: Tensor, *, config: PointConfig) -> Tensor:
    """mask_logits x p of weighted pixels, weights x p -> x p: how many points fall on each entry on average.

    This is what `uncertain_points` does to a map of which only a weighted sample of pixels is known, with the chance
    taken out of it: among many uniform candidates, `oversample` for each point, the share `importance / oversample`
    with logits nearest to zero is kept. Rows without any weight get no points.
    """
    share = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    order = mask_logits.abs().argsort(-1)
    ordered = share.take_along_dim(order, -1)
    before = ordered.cumsum(-1) - ordered                   # share of the map that is less certain
    kept = (config.importance / config.oversample - before).clamp(min=0).minimum(ordered)
    chosen = torch.zeros_like(share).scatter(-1, order, kept)
    return config.count * ((1 - config.importance) * share + config.oversample * chosen)
