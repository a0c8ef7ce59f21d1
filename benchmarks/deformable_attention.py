"""Sampling of deformable attention, against `grid_sample` on every level with the weighted sum after it.

The maps are those of a frame at strides 8, 16 and 32, and every one of their pixels is a query whose points lie within
a few pixels of it. It runs on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from benchmarks.harness import Results
from model.layers.deformable_attention import reference_points, split_levels
from model.layers.deformable_sampling import Shapes, sample_deformable

HEADS = 8
POINTS = 4
DEPTH = 32                  # channels of a head
SPREAD = 3                  # pixels between a query and its points

MEASURES = ("model/layers/deformable_sampling.py",)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The heights and widths of the maps."""

    shapes: Shapes


SIZES = {"toy": Size(shapes=((2, 3), (4, 5))),
         "full": Size(shapes=((25, 43), (49, 85), (97, 169)))}          # a frame of 769 x 1345


def run(size: Size, results: Results) -> None:
    """Forward in float32 and bfloat16, and forward with backward in float32.

    In bfloat16 the plain formula must round its locations, and `grid_sample` of some versions of torch returns values
    that are no numbers on a CPU. Ours is therefore compared with float32 there.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = samples(size.shapes, device=device)
    half = {**inputs, "value": inputs["value"].bfloat16()}
    exact = forward(plain_sampling, half | {"value": half["value"].float()})
    sides = [("forward", forward, inputs, agree),
             ("forward, bfloat16", forward, half, lambda ours, _: agree(ours, exact, tolerance=8e-3)),
             ("forward and backward", forward_backward, inputs, agree)]
    pixels = " ".join(f"{height}x{width}" for height, width in size.shapes)
    for name, side, arguments, check in sides:
        results.compare(f"{name}, {pixels}", ours=partial(side, sample_deformable, arguments),
                        baseline=partial(side, plain_sampling, arguments), repeats=5, memory=True, device=device,
                        agree=check)


def plain_sampling(value: Tensor, *, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """The formula of Deformable DETR, arXiv 2010.04159, section 4.1. The arguments are those of `sample_deformable`."""
    heads = value.shape[2]
    grid = rearrange(2 * locations.to(value) - 1, "b n heads levels points xy -> levels (b heads) n points xy")
    weights = rearrange(weights.to(value), "b n heads levels points -> levels (b heads) 1 n points")
    result = 0
    for level, one in enumerate(split_levels(value, shapes)):
        one = rearrange(one, "b (h w) heads d -> (b heads) d h w", h=shapes[level][0])
        sampled = F.grid_sample(one, grid[level], padding_mode="zeros", align_corners=False)
        result = result + (sampled * weights[level]).sum(-1)                            # (b heads) d n
    return rearrange(result, "(b heads) d n -> b n (heads d)", heads=heads)


def samples(shapes: Shapes, *, device: str) -> dict[str, Tensor | Shapes]:
    """Random arguments of `sample_deformable` for one frame."""
    generator = torch.Generator().manual_seed(0)
    reference = reference_points(shapes)
    sizes = torch.tensor([(width, height) for height, width in shapes])
    shape = (1, len(reference), HEADS, len(shapes), POINTS)
    offsets = SPREAD * torch.randn(*shape, 2, generator=generator) / sizes[:, None]
    weights = torch.randn(*shape, generator=generator).flatten(3).softmax(-1).view(shape)
    value = torch.randn(1, len(reference), HEADS, DEPTH, generator=generator)
    return {"value": value.to(device), "shapes": shapes, "weights": weights.to(device),
            "locations": (reference[:, None, :, None] + offsets).to(device)}


@torch.no_grad()
def forward(sampling: Callable[..., Tensor], inputs: dict[str, Tensor | Shapes]) -> list[Tensor]:
    """The result."""
    return [sampling(**inputs)]


def forward_backward(sampling: Callable[..., Tensor], inputs: dict[str, Tensor | Shapes]) -> list[Tensor]:
    """The result and the gradients of value, locations and weights."""
    leaves = {name: inputs[name].detach().requires_grad_() for name in ("value", "locations", "weights")}
    result = sampling(**leaves, shapes=inputs["shapes"])
    return [result.detach(), *torch.autograd.grad(result, list(leaves.values()), torch.ones_like(result))]


def agree(ours: list[Tensor], plain: list[Tensor], *, tolerance: float = 1e-4) -> None:
    """Results and gradients agree to the tolerance, as a part of the largest value."""
    for one, other in zip(ours, plain, strict=True):
        gap = ((one.float() - other).abs().max() / other.abs().max()).item()
        assert gap < tolerance, f"results differ by {gap:.1e} of the largest value"
