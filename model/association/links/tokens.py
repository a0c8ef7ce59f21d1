"""What is known of one clip query for linking: when and where its mask was seen, how it moved, and what it covers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from model.contracts import VideoQueries


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Clip queries, with any leading dimensions *x. Times are frames of the video; places are parts of the frame."""

    sure: Tensor            # *x      1 - probability of "no object"; 0 where no mask is seen
    first_time: Tensor      # *x      of the frames in which the mask is seen
    last_time: Tensor       # *x
    first_place: Tensor     # *x 2    centroid y x
    last_place: Tensor      # *x 2
    first_area: Tensor      # *x
    last_area: Tensor       # *x
    velocity: Tensor        # *x 2    a frame; 0 where the mask is seen in one frame only
    moves: Tensor           # *x      1 where it is seen in several frames, else 0
    looks: Tensor           # *x 6
    embedding: Tensor       # *x d    standardised, unit length
    classes: Tensor         # *x classes   probabilities without "no object"

    def at(self, *index: Tensor) -> Tokens:
        """The tokens at some positions of the leading dimensions."""
        return Tokens(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def joined(self, others: Tokens) -> Tokens:
        """These tokens and others behind them, along the first dimension."""
        return Tokens(**{field.name: torch.cat([getattr(self, field.name), getattr(others, field.name)])
                         for field in fields(self)})


def tokens_of(queries: VideoQueries, *, mean: Tensor, deviation: Tensor, start: int = 0) -> Tokens:
    """Every query of b videos, *x = b k n.

    mean, deviation: d of the mask embeddings. start: frames of the video before the first clip. The clips follow each
    other. Raises ValueError for queries without places, looks or mask embeddings.
    """
    if missing := [name for name in ("places", "looks", "mask_embeddings") if getattr(queries, name) is None]:
        raise ValueError(f"the queries have no {' and no '.join(missing)}, which links read; predictions get them in "
                         "pipeline.system, and caches by running jobs.cache_queries again")
    places = queries.places.float()                                             # b k n t 5
    clips, _, frames = places.shape[1:4]
    seen = places[..., 0] > 0
    position = torch.arange(frames, device=seen.device)
    first = torch.where(seen, position, frames).amin(-1).clamp(max=frames - 1)      # b k n
    last = torch.where(seen, position, -1).amax(-1).clamp(min=0)
    at_first = _frame(places, first)
    at_last = _frame(places, last)
    elapsed = (last - first).clamp(min=0)[..., None]
    begin = start + frames * torch.arange(clips, device=seen.device)[:, None]
    probability = queries.class_logits.float().softmax(-1)
    embedding = (queries.mask_embeddings.float() - mean) / deviation
    return Tokens(
        sure=(1 - probability[..., -1]) * seen.any(-1), first_time=begin + first, last_time=begin + last,
        first_place=at_first[..., 1:3], last_place=at_last[..., 1:3], first_area=at_first[..., 0],
        last_area=at_last[..., 0], velocity=(at_last - at_first)[..., 1:3] / elapsed.clamp(min=1),
        moves=(elapsed[..., 0] > 0).float(), looks=queries.looks.float(), embedding=F.normalize(embedding, dim=-1),
        classes=queries.class_logits[..., :-1].float().softmax(-1))


def _frame(places: Tensor, frame: Tensor) -> Tensor:
    """places b k n t 5 at the frame b k n of the clip -> b k n 5."""
    return places.take_along_dim(frame[..., None, None], -2)[..., 0, :]


def surest(tokens: Tokens, *, count: int) -> Tensor:
    """The `count` surest queries of each clip -> positions b k m, surest first.

    Equally sure ones are ordered by what is seen of them, so that the result does not depend on the order of queries.
    """
    keys = [*tokens.first_place.unbind(-1), tokens.first_area, -tokens.sure]
    order = torch.arange(tokens.sure.shape[-1], device=tokens.sure.device).expand(tokens.sure.shape)
    for key in keys:        # the last key counts most
        order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, stable=True))
    return order[..., :count]
