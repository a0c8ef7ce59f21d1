"""Trajectory attention along columns, then along rows, which makes it affordable for pixels.

MaXTron, arXiv 2311.18537v1, section 3.2 and figure 3. Behaviour follows TACJu/MaXTron,
`maxtron_deeplab/modeling/within_clip_tracking_module/temporal_attention.py`: there is one norm after both passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from model.layers.deformable_attention import Shapes, split_levels
from model.layers.mlp import FeedForward
from model.layers.trajectory_attention import TrajectoryAttention

# The sequences into which each pass cuts the clip, frame by frame.
_SEQUENCES = {"height": "(b w) (t h) c", "width": "(b h) (t w) c", "space": "b (t h w) c"}
_KINDS = {"axial": ("height", "width"), "full": ("space",)}


class TrajectoryLayer(nn.Module):
    """Trajectory attention with a residual per pass, then a norm, a feed-forward block with residual, and a norm.

    kind: "axial" makes a pass along height and one along width. "full" attends to all pixels at once, which is the
    paper's ablation (table 5) and quadratic in the number of pixels.
    residual_dropout: after each pass. attention_dropout: on the attention over positions.
    """

    def __init__(
        self, dim: int, *, heads: int = 8, ffn: int = 1024, kind: Literal["axial", "full"] = "axial",
        activation: Literal["relu", "gelu"] = "relu", dropout: float = 0.0, attention_dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(f"trajectory attention of kind {kind!r} does not exist; choose 'axial' or 'full'")
        self.passes = nn.ModuleDict({name: TrajectoryAttention(dim, heads, dropout=attention_dropout)
                                     for name in _KINDS[kind]})
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn, activation=activation, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.residual_dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, position: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        """x: b t h w c. position: the same or without b, added to queries and keys only. Returns b t h w c.

        attention: a dict is filled with the maps over positions of each pass: "height" (b w) heads (t h) t h,
        "width" (b h) heads (t w) t w, "space" b heads (t h w) t (h w).
        """
        sizes = dict(zip("bthw", x.shape))
        for name, attend in self.passes.items():
            sequences = _SEQUENCES[name]
            query, value = (rearrange(y, f"b t h w c -> {sequences}") for y in (x + position, x))
            maps = None if attention is None else {}
            attended = attend(query, query, value, frames=sizes["t"], attention=maps)
            if attention is not None:
                attention[name] = maps["space"]
            x = x + self.residual_dropout(rearrange(attended, f"{sequences} -> b t h w c", **sizes))
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class TrajectoryStack(nn.Module):
    """Several layers, one after the other. The attention maps are those of the last layer."""

    def __init__(self, dim: int, *, layers: int, **options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TrajectoryLayer(dim, **options) for _ in range(layers))

    def forward(self, x: Tensor, position: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        """The arguments and the result have the shapes of `TrajectoryLayer`."""
        for layer in self.layers[:-1]:
            x = layer(x, position)
        return self.layers[-1](x, position, attention=attention)


class TrajectoryBranch(nn.Module):
    """A residual stack, x + scale * stack(x), whose small scale hardly changes a network that was trained without it.

    start: first value of the scale, which has one entry per channel; None: stack(x) replaces x.
    options: of `TrajectoryStack`.
    """

    def __init__(self, dim: int, *, start: float | None = 1e-6, **options) -> None:
        super().__init__()
        self.stack = TrajectoryStack(dim, **options)
        self.scale = None if start is None else nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor, position: Tensor, *, attention: dict[str, Tensor] | None = None) -> Tensor:
        """The arguments and the result have the shapes of `TrajectoryLayer`."""
        tracked = self.stack(x, position, attention=attention)
        return tracked if self.scale is None else x + self.scale * tracked


def track_levels(
    stack: TrajectoryStack | TrajectoryBranch, x: Tensor, shapes: Shapes, *, strides: Sequence[int],
    positions: Mapping[int, Tensor], frames: int, attention: dict[str, Tensor] | None = None,
) -> Tensor:
    """Apply the stack to each level whose frames shall attend to each other; the levels share its weights.

    x: (b t) (levels h w) c, with levels of sizes `shapes` at `strides`. positions: stride -> t h w c; the levels of
    other strides are returned unchanged. attention: a dict is filled with the maps, "stride16.height" and so on.
    """
    levels = []
    for stride, shape, one in zip(strides, shapes, split_levels(x, shapes)):
        if stride in positions:
            one = rearrange(one, "(b t) (h w) c -> b t h w c", t=frames, h=shape[0])
            maps = None if attention is None else {}
            one = stack(one, positions[stride], attention=maps)
            if attention is not None:
                attention.update({f"stride{stride}.{name}": value for name, value in maps.items()})
            one = rearrange(one, "b t h w c -> (b t) (h w) c")
        levels.append(one)
    return torch.cat(levels, dim=1)
