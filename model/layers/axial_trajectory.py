"""Trajectory attention down columns, then along rows: what makes it affordable for pixels.

MaXTron, arXiv 2311.18537v1, section 3.2 and figure 3. Behaviour follows TACJu/MaXTron,
`maxtron_deeplab/modeling/within_clip_tracking_module/temporal_attention.py`: one norm after both passes.
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

# The sequences each pass cuts the clip into, frame by frame.
_SEQUENCES = {"height": "(b w) (t h) c", "width": "(b h) (t w) c", "space": "b (t h w) c"}
_KINDS = {"axial": ("height", "width"), "full": ("space",)}


class TrajectoryLayer(nn.Module):
    """Trajectory attention with residual per pass, one norm, feed-forward, residual, norm.

    kind: "axial" makes a pass along height and one along width; "full" attends over all pixels at once, the paper's
    ablation (table 5), quadratic in the number of pixels.
    residual_dropout: after each pass. attention_dropout: inside the softmax over positions.
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

    def forward(
        self, x: Tensor, position: Tensor, *, return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """x: b t h w c. position: the same or without b; queries and keys see it, values do not. Returns b t h w c.

        return_attention: also the maps over positions of each pass: "height" (b w) heads (t h) t h,
        "width" (b h) heads (t w) t w, "space" b heads (t h w) t (h w).
        """
        maps = {}
        sizes = dict(zip("bthw", x.shape))
        for name, attention in self.passes.items():
            sequences = _SEQUENCES[name]
            query, value = (rearrange(y, f"b t h w c -> {sequences}") for y in (x + position, x))
            attended = attention(query, query, value, frames=sizes["t"], return_attention=return_attention)
            if return_attention:
                attended, both = attended
                maps[name] = both["space"]
            x = x + self.residual_dropout(rearrange(attended, f"{sequences} -> b t h w c", **sizes))
        x = self.attention_norm(x)
        x = self.ffn_norm(x + self.dropout(self.ffn(x)))
        return (x, maps) if return_attention else x


class TrajectoryStack(nn.Module):
    """Several layers one after the other; the attention returned is the last layer's."""

    def __init__(self, dim: int, *, layers: int, **options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TrajectoryLayer(dim, **options) for _ in range(layers))

    def forward(
        self, x: Tensor, position: Tensor, *, return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """x: b t h w c. position: the same or without b. Same result as `TrajectoryLayer`."""
        for layer in self.layers[:-1]:
            x = layer(x, position)
        return self.layers[-1](x, position, return_attention=return_attention)


class TrajectoryBranch(nn.Module):
    """A stack beside the identity, x + scale * stack(x): what was trained without it stays as it was at the start.

    start: of the scale, one number per channel; None: no identity, stack(x) replaces x. options: of `TrajectoryStack`.
    """

    def __init__(self, dim: int, *, start: float | None = 1e-6, **options) -> None:
        super().__init__()
        self.stack = TrajectoryStack(dim, **options)
        self.scale = None if start is None else nn.Parameter(torch.full((dim,), start))

    def forward(
        self, x: Tensor, position: Tensor, *, return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """x: b t h w c. position: the same or without b. Same result as `TrajectoryLayer`."""
        tracked, maps = self.stack(x, position, return_attention=True) if return_attention else (
            self.stack(x, position), None)
        tracked = tracked if self.scale is None else x + self.scale * tracked
        return (tracked, maps) if return_attention else tracked


def track_levels(
    stack: TrajectoryStack | TrajectoryBranch, x: Tensor, shapes: Shapes, *, strides: Sequence[int],
    positions: Mapping[int, Tensor], frames: int, attention: dict[str, Tensor] | None = None,
) -> Tensor:
    """Trajectory layers on the levels whose frames meet; the same weights serve every level.

    x: (b t) (levels h w) c, its levels of sizes `shapes` at `strides`. positions: stride -> t h w c; the levels of
    other strides stay as they are. attention: filled with the maps, "stride16.height" and so on; None: no maps.
    """
    levels = []
    for stride, shape, one in zip(strides, shapes, split_levels(x, shapes)):
        if stride in positions:
            one = rearrange(one, "(b t) (h w) c -> b t h w c", t=frames, h=shape[0])
            one = stack(one, positions[stride], return_attention=attention is not None)
            if attention is not None:
                one, maps = one
                attention.update({f"stride{stride}.{name}": value for name, value in maps.items()})
            one = rearrange(one, "b t h w c -> (b t) (h w) c")
        levels.append(one)
    return torch.cat(levels, dim=1)
