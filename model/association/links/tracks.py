"""What a first pass over the links tells a second one: where the track of each token goes on, and how it moves.

Two sightings far apart say little about each other when the object was seen between them. The second pass compares the
ends of both tracks that face each other instead, and a token that is seen in a single frame takes its velocity from
its partner in a neighbouring clip. `clip` (x) is the clip of each token, counted from 0 in the order of the tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.association.links.tokens import Tokens

LEAST_LIKELY = 0.5      # probability, seen from both, from which two tokens count as partners
LARGEST = 30.0          # log-odds, beyond which a probability is 1


class Partners(NamedTuple):
    """For every token and every clip, a token of the same track."""

    index: Tensor           # b x k   its position among x
    probability: Tensor     # b x k   0 where there is none


def partners(logits: Tensor, clip: Tensor) -> Partners:
    """The likeliest partner of each token in each other clip. logits: b x x, the log-odds of the first pass."""
    clips = int(clip[-1]) + 1
    columns = clip.expand_as(logits)
    odds = logits.clamp(max=LARGEST).exp()
    of_clip = odds.new_zeros(*logits.shape[:2], clips).scatter_add(-1, columns, odds)
    share = odds / (of_clip.gather(-1, columns) + 1)
    mutual = torch.minimum(share, share.transpose(1, 2))
    probability = torch.zeros_like(of_clip).scatter_reduce(-1, columns, mutual, "amax")
    position = torch.arange(len(clip), device=clip.device)
    best = torch.where(mutual == probability.gather(-1, columns), position, len(clip))
    index = torch.full_like(probability, len(clip), dtype=torch.long).scatter_reduce(-1, columns, best, "amin")
    likely = (clip[:, None] != torch.arange(clips, device=clip.device)) & (probability > LEAST_LIKELY)
    return Partners(index=index.clamp(max=len(clip) - 1), probability=probability * likely)


def facing(known: Partners, clip: Tensor) -> Partners:
    """The end of each token's track that faces each clip: the partner nearest to it in the clips between.

    Where there is no such partner, it is the token itself, with probability 0.
    """
    clips = known.index.shape[-1]
    target = torch.arange(clips, device=clip.device)
    own = clip[:, None]
    there = known.probability > 0
    before = torch.where(there & (target > own), target, -1).cummax(-1).values.roll(1, -1)
    after = torch.where(there & (target < own), target, clips).flip(-1).cummin(-1).values.flip(-1).roll(-1, -1)
    nearest = torch.where(target > own, before, torch.where(target < own, after, -1))       # b x k
    between = (nearest >= 0) & (nearest < clips)
    nearest = nearest.clamp(0, clips - 1)
    itself = torch.arange(len(clip), device=clip.device)[:, None]
    return Partners(index=torch.where(between, known.index.gather(-1, nearest), itself),
                    probability=known.probability.gather(-1, nearest) * between)


def velocity_between(earlier: Tokens, later: Tokens) -> Tensor:
    """Tokens *x -> *x 2, a frame."""
    gap = (later.first_time - earlier.last_time).clamp(min=1)
    return (later.first_place - earlier.last_place) / gap[..., None]


def with_track_velocity(tokens: Tokens, known: Partners, clip: Tensor) -> Tokens:
    """Tokens b x that are seen in one frame get the mean velocity to their partners in the clips beside theirs."""
    videos, _, clips = known.index.shape
    rows = torch.arange(videos, device=clip.device)[:, None]
    total = torch.zeros_like(tokens.velocity)
    certainty = torch.zeros_like(tokens.moves)
    for step in (-1, 1):
        beside = (clip + step).clamp(0, clips - 1).expand(videos, -1)[..., None]
        neighbours = tokens.at(rows, known.index.gather(-1, beside)[..., 0])
        weight = known.probability.gather(-1, beside)[..., 0]
        velocity = velocity_between(neighbours, tokens) if step < 0 else velocity_between(tokens, neighbours)
        total = total + weight[..., None] * velocity
        certainty = certainty + weight
    missing = (tokens.moves == 0) & (certainty > 0)
    velocity = total / certainty.clamp(min=1e-6)[..., None]
    return tokens.moving(torch.where(missing[..., None], velocity, tokens.velocity),
                         torch.where(missing, certainty.clamp(max=1), tokens.moves))
