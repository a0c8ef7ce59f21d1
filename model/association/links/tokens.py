"""What is known of one clip query for linking: when and where its mask was seen, how it moved, and what it covers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.contracts import VideoQueries

EMBEDDING = 16      # position of the embedding among the values of a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Clip queries, with any leading dimensions *x. Times are frames of the video; places are parts of the frame.

    The numbers of a token lie side by side, since tokens are picked out far more often than they are made.
    """

    times: Tensor           # *x 2    whole numbers: the first and the last frame in which the mask is seen
    values: Tensor          # *x f    all that follows, in this order
    channels: int           # d of the embedding

    @classmethod
    def of(cls, *, times: Tensor, sure: Tensor, first_place: Tensor, last_place: Tensor, first_area: Tensor,
           last_area: Tensor, velocity: Tensor, moves: Tensor, looks: Tensor, embedding: Tensor, classes: Tensor
           ) -> Tokens:
        """Tokens of their numbers, which have the shapes of the properties below."""
        values = torch.cat([sure[..., None], first_place, last_place, first_area[..., None], last_area[..., None],
                            velocity, moves[..., None], looks, embedding, classes], -1)
        return cls(times=times, values=values, channels=embedding.shape[-1])

    @property
    def first_time(self) -> Tensor:
        """Frame in which the mask is first seen, *x."""
        return self.times[..., 0]

    @property
    def last_time(self) -> Tensor:
        """Frame in which the mask is last seen, *x."""
        return self.times[..., 1]

    @property
    def sure(self) -> Tensor:
        """1 - probability of "no object", *x; 0 where no mask is seen."""
        return self.values[..., 0]

    @property
    def first_place(self) -> Tensor:
        """Centroid y x in the first of these frames, *x 2."""
        return self.values[..., 1:3]

    @property
    def last_place(self) -> Tensor:
        """Centroid y x in the last one, *x 2."""
        return self.values[..., 3:5]

    @property
    def first_area(self) -> Tensor:
        """Part of the frame that the mask covers in the first one, *x."""
        return self.values[..., 5]

    @property
    def last_area(self) -> Tensor:
        """The same in the last one, *x."""
        return self.values[..., 6]

    @property
    def velocity(self) -> Tensor:
        """Motion in a frame, *x 2; 0 where the mask is seen in one frame only."""
        return self.values[..., 7:9]

    @property
    def moves(self) -> Tensor:
        """1 where the mask is seen in several frames, else 0, *x."""
        return self.values[..., 9]

    @property
    def looks(self) -> Tensor:
        """What the mask covers looks like, *x 6."""
        return self.values[..., 10:EMBEDDING]

    @property
    def embedding(self) -> Tensor:
        """The mask embedding, standardised, of unit length, *x d."""
        return self.values[..., EMBEDDING:EMBEDDING + self.channels]

    @property
    def classes(self) -> Tensor:
        """Probabilities of the classes without "no object", *x classes."""
        return self.values[..., EMBEDDING + self.channels:]

    def at(self, *index: Tensor | None) -> Tokens:
        """The tokens at some positions of the leading dimensions."""
        return replace(self, times=self.times[index], values=self.values[index])

    def joined(self, others: Tokens) -> Tokens:
        """These tokens and others behind them, along the first dimension."""
        return replace(self, times=torch.cat([self.times, others.times]),
                       values=torch.cat([self.values, others.values]))

    def moving(self, velocity: Tensor, moves: Tensor) -> Tokens:
        """The same tokens with another velocity *x 2, and *x whether it is known."""
        values = self.values.clone()
        values[..., 7:9] = velocity
        values[..., 9] = moves
        return replace(self, values=values)


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
    return Tokens.of(
        times=begin[..., None] + torch.stack([first, last], -1), sure=(1 - probability[..., -1]) * seen.any(-1),
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
