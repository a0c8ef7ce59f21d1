"""What the pixels in the box around each mask look like, as trackers of boxes describe an object.

QDTrack (arXiv 2006.06664, section 3.1) pools the features in a box into a grid and projects the grid. Here a box lies
around a mask, one in each frame of a clip, and a mask that leaves the picture is described by the frames that show it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from model.layers.mlp import mlp

SIDE = 7        # cells along each side of a box


class RegionFeatures(nn.Module):
    """A grid of samples in each box, projected, and averaged over the frames in which the mask is not empty."""

    def __init__(self, dim: int, *, channels: int) -> None:
        """dim: of the output. channels: of the pixel features."""
        super().__init__()
        self.project = mlp(channels * SIDE ** 2, dim, dim)

    def forward(self, mask_logits: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_logits b n t h w, pixel_features b d t h w -> b n dim; zeros for a mask that is empty in all frames."""
        boxes, is_present = boxes_of(mask_logits > 0)
        looks = self.project(grids(pixel_features, boxes))                                      # b n t dim
        weights = is_present.float()
        total = einsum(looks, weights, "b n t c, b n t -> b n c")
        return total / weights.sum(-1, keepdim=True).clamp(min=1)


def boxes_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """masks b n t h w bool -> boxes b n t 4 (top, left, bottom, right; parts of the frame), whether there is one b n t.

    The box of an empty mask is the whole frame.
    """
    ends = []
    for along in (masks.any(-1), masks.any(-2)):                                                # b n t h, b n t w
        size = along.shape[-1]
        occupied = along.float()
        first = occupied.argmax(-1) / size
        last = 1 - occupied.flip(-1).argmax(-1) / size
        ends.append((first, last))
    (top, bottom), (left, right) = ends
    return torch.stack([top, left, bottom, right], -1), masks.flatten(3).any(-1)


def grids(pixel_features: Tensor, boxes: Tensor) -> Tensor:
    """pixel_features b d t h w, boxes b n t 4 -> b n t (SIDE SIDE d): the features at the centres of the cells."""
    centres = (torch.arange(SIDE, device=boxes.device) + 0.5) / SIDE
    top, left, bottom, right = (edge[..., None] for edge in boxes.unbind(-1))
    y = top + (bottom - top) * centres                                                          # b n t rows
    x = left + (right - left) * centres
    places = torch.stack([repeat(x, "b n t x -> b n t y x", y=SIDE), repeat(y, "b n t y -> b n t y x", x=SIDE)], -1)
    sampled = F.grid_sample(rearrange(pixel_features, "b d t h w -> (b t) d h w"),
                            rearrange(2 * places - 1, "b n t y x two -> (b t) (n y) x two"), align_corners=False)
    return rearrange(sampled, "(b t) d (n y) x -> b n t (y x d)", t=boxes.shape[2], y=SIDE)
