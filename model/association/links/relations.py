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
    forward = moved - earlier.velocity * gap        # what each velocity, and both together, leave unexplained
    backward = moved - later.velocity * gap
    between = moved - (earlier.velocity + later.velocity) * gap / 2
    change = earlier.velocity - later.velocity
    product = earlier.velocity * later.velocity
    speeds = length(earlier.velocity) + length(later.velocity)
    motion = [4 * moved, 4 * forward, 4 * backward, 20 * change, 20 * product.sign() * product.abs().sqrt(),
              (earlier.last_area / later.first_area)[:, None].log(), earlier.moves[:, None], later.moves[:, None],
              gap / 4, 1 / gap, 10 * speeds]
    distances = [((length(vector) + 0.01) / 0.1).log() for vector in (moved, forward, backward, between)]
    others = [((length(change) + 0.003) / 0.1).log() + 2, 5 * (earlier.looks - later.looks).abs(),
              (earlier.embedding * later.embedding).sum(-1, keepdim=True),
              (earlier.classes * later.classes).sum(-1, keepdim=True), (earlier.sure * later.sure)[:, None]]
    return torch.cat([*motion, *distances, *others], -1).clamp(-LIMIT, LIMIT)


def length(vectors: Tensor) -> Tensor:
    """p 2 -> p 1."""
    return vectors.norm(dim=-1, keepdim=True)
