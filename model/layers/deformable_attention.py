"""Multi-scale deformable attention in plain PyTorch.

Deformable DETR, arXiv 2010.04159, section 4.1. Each query samples a few points near its own position on every level.
The offsets of the points and their weights are linear in the query.

Letters here: n queries, heads, d channels of one head, levels and points per level. The maps of all levels lie in one
sequence `b (levels h w) c`, level after level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from model.layers.deformable_sampling import Shapes, sample_deformable
from model.layers.mlp import FeedForward

Refine = Callable[[Tensor], Tensor]   # sampled values b n c -> the same


def split_levels(x: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    """Split x, b (levels h w) ..., into its levels."""
    return x.split([height * width for height, width in shapes], dim=1)


def join_levels(maps: Sequence[Tensor], projections: Iterable[nn.Module], *, frames: int
                ) -> tuple[Tensor, Shapes]:
    """maps: (b t) c h w of each level, clips of `frames` one after the other -> x, (b t) (levels h w) c, and the sizes.

    projections: one per level, to a common c. Raises ValueError when the maps do not divide into clips.
    """
    if len(maps[0]) % frames:
        raise ValueError(f"{len(maps[0])} frames do not divide into clips of {frames}; give maps of whole clips, "
                         "one after the other")
    x = torch.cat([rearrange(project(one), "n c h w -> n (h w) c") for one, project in zip(maps, projections)], dim=1)
    return x, [tuple(one.shape[-2:]) for one in maps]


def reference_points(shapes: Shapes, *, device: torch.device | None = None) -> Tensor:
    """Pixel centres of all levels, repeated for every sampled level: (levels h w) levels 2, (x, y) as fractions."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        centres.append(torch.stack([repeat(x, "w -> (h w)", h=height), repeat(y, "h -> (h w)", w=width)], dim=-1))
    return repeat(torch.cat(centres), "n xy -> n levels xy", levels=len(shapes))


class DeformableAttention(nn.Module):
    """Deformable attention with its projections. Weight names are those of the official code."""

    def __init__(self, dim: int, *, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"deformable attention of {dim} channels cannot have {heads} heads; "
                             "choose a number of heads that divides the channels")
        self.heads = heads
        self.levels = levels
        self.points = points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each head starts with its own direction, each point further away than the last, all with equal weights."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)               # onto the unit square
        steps = torch.arange(1.0, self.points + 1)
        offsets = directions[:, None, None] * repeat(steps, "points -> levels points 1", levels=self.levels)
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.data.copy_(offsets.flatten())
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(
        self, query: Tensor, *, reference: Tensor, memory: Tensor, shapes: Shapes, padding: Tensor | None = None,
        refine: Refine | None = None,
    ) -> Tensor:
        """query: b n c. memory: b (levels h w) c. padding: b (levels h w) bool, true where the memory counts as zero.

        reference: [b] n levels 2 are points (x, y) as fractions, with offsets in pixels of the sampled level;
        [b] n levels 4 are boxes (x, y, w, h), with offsets in half the box size over the number of points.
        refine: is applied to the sampled values, b n c, before the output projection. Returns b n c.
        Raises ValueError when the memory does not fit the shapes.
        """
        if memory.shape[1] != (length := sum(height * width for height, width in shapes)):
            raise ValueError(f"memory of {memory.shape[1]} tokens does not fit maps of {list(shapes)}: "
                             f"level after level they hold {length}; pass the shapes of these very maps")
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0)
        value = rearrange(value, "b n (heads d) -> b n heads d", heads=self.heads)
        offsets = rearrange(self.sampling_offsets(query), "b n (heads levels points xy) -> b n heads levels points xy",
                            heads=self.heads, levels=self.levels, points=self.points)
        weights = rearrange(self.attention_weights(query), "b n (heads p) -> b n heads p", heads=self.heads).softmax(-1)
        weights = rearrange(weights, "b n heads (levels points) -> b n heads levels points", levels=self.levels)
        locations = self._locations(offsets.float(), reference=reference, shapes=shapes)
        sampled = sample_deformable(value, shapes=shapes, locations=locations, weights=weights)
        return self.output_proj(sampled if refine is None else refine(sampled))

    def _locations(self, offsets: Tensor, *, reference: Tensor, shapes: Shapes) -> Tensor:
        reference = rearrange(reference, "... n levels coordinates -> ... n 1 levels 1 coordinates")
        if reference.shape[-1] == 4:
            return reference[..., :2] + offsets / self.points * reference[..., 2:] * 0.5
        sizes = offsets.new_tensor([(width, height) for height, width in shapes])
        return reference + offsets / sizes[:, None]


class DeformableLayer(nn.Module):
    """One deformable encoder layer: attention and a feed-forward block, each with a residual and then a norm."""

    def __init__(
        self, dim: int, *, heads: int = 8, levels: int = 3, points: int = 4, ffn: int = 1024, dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(dim, heads=heads, levels=levels, points=points)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, *, position: Tensor, reference: Tensor, shapes: Shapes, padding: Tensor | None = None,
        refine: Refine | None = None,
    ) -> Tensor:
        """x: b (levels h w) c. position: the same or without b; added to the query, not to the values.

        refine: see `DeformableAttention`.
        """
        attended = self.attention(x + position, reference=reference, memory=x, shapes=shapes, padding=padding,
                                  refine=refine)
        x = self.attention_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))
