"""30 numbers about an earlier and a later token: motion, size, looks, embedding, class and sureness.

There is no absolute place and no absolute time among them, so links do not depend on where in the frame or in the video
something happens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.association.links.tokens import Tokens

COUNT = 30
LIMIT = 3.0     # residuals of motion grow with the gap; unlimited, they are worse on longer videos


def relations(earlier: Tokens, later: Tokens) -> Tensor:
    """Pairs of tokens, with *x = p -> p 30, within +-3."""
    gap = (later.first_time - earlier.last_time).float()[:, None]               # frames, at least 1
    moved = later.first_place - earlier.last_place
    change = earlier.velocity - later.velocity
    product = earlier.velocity * later.velocity
    mean = (earlier.velocity + later.velocity) / 2
    explained = torch.stack([torch.zeros_like(moved), earlier.velocity, later.velocity, mean], 1) * gap[..., None]
    left = moved[:, None] - explained       # p 4 2   what nothing, each velocity and both together do not explain
    speeds = torch.stack([earlier.velocity, later.velocity, change], 1).norm(dim=-1)                # p 3
    motion = [4 * left[:, :3].flatten(1), 20 * change, 20 * product.sign() * product.abs().sqrt(),
              (earlier.last_area / later.first_area)[:, None].log(), earlier.moves[:, None], later.moves[:, None],
              gap / 4, 1 / gap, 10 * speeds[:, :2].sum(-1, keepdim=True)]
    distances = [((left.norm(dim=-1) + 0.01) / 0.1).log(), ((speeds[:, 2:] + 0.003) / 0.1).log() + 2]
    others = [5 * (earlier.looks - later.looks).abs(), (earlier.embedding * later.embedding).sum(-1, keepdim=True),
              (earlier.classes * later.classes).sum(-1, keepdim=True), (earlier.sure * later.sure)[:, None]]
    return torch.cat([*motion, *distances, *others], -1).clamp(-LIMIT, LIMIT)
