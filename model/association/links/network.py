"""The log-odds that two queries of different clips are one object: a small MLP on their relations.

A second pass of the same MLP sees what the first one found (`tracks`): the relations of the two ends of the tracks that
face each other, how sure those are, and the log-odds of the first pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from model.association.links.relations import COUNT, LIMIT, relations
from model.association.links.tokens import Tokens, surest, tokens_of
from model.association.links.tracks import facing, partners, with_track_velocity
from model.contracts import VideoQueries
from model.reads import Reads

UNLIKELY = -8.0     # log-odds of pairs that are not computed
CONTEXT = 3         # numbers that the second pass sees beside the relations; the first pass sees zeros
SCALE = 4.0         # of the log-odds among them
AT_ONCE = 4096      # pairs, whose relations and hidden layers fit into the cache of a processor


@dataclass(frozen=True, kw_only=True)
class LinkNetworkConfig:
    """Sizes, and which queries are linked."""

    reads: ClassVar[Reads] = Reads(sizes={}, aligned=False,
                                   columns=("mask_embeddings", "class_logits", "places", "looks"))

    width: int = 48             # of both hidden layers
    tokens: int = 48            # of each clip that are linked, the surest ones
    least_sure: float = 0.1     # 1 - probability of "no object" from which pairs are computed
    passes: int = 1             # 2: a second pass compares tracks that the first one found

    def __post_init__(self) -> None:
        if self.passes not in (1, 2):
            raise ValueError(f"passes={self.passes}: give 1, or 2 for worlds in which objects hide for long")
        if self.width < 1 or self.tokens < 1 or not 0 <= self.least_sure < 1:
            raise ValueError(f"width={self.width}, tokens={self.tokens}, least_sure={self.least_sure}: width and "
                             "tokens must be at least 1, and least_sure at least 0 and below 1")

    def build(self, *, embedding: int) -> LinkNetwork:
        """The network, freshly initialised. embedding: channels of the mask embeddings."""
        return LinkNetwork(self, embedding=embedding)


Pairs = tuple[Tensor, Tensor, Tensor]       # video, earlier token, later token, each p


class Links(NamedTuple):
    """The links of b videos. x = k m counts the m linked queries of every clip, clip after clip."""

    index: Tensor       # b k m   which queries they are
    sure: Tensor        # b x     0 for queries that are not linked
    logits: Tensor      # b x x   symmetric; UNLIKELY within a clip and where a query is not linked
    first: Tensor | None = None     # b x x   those of the first pass, where there are two


class LinkNetwork(nn.Module):
    """Links the queries of whole videos. A batch of two equals two of one."""

    def __init__(self, config: LinkNetworkConfig, *, embedding: int) -> None:
        super().__init__()
        self.config = config
        inputs = COUNT + (CONTEXT if config.passes > 1 else 0)
        self.layers = nn.Sequential(nn.Linear(inputs, config.width), nn.GELU(), nn.Linear(config.width, config.width),
                                    nn.GELU(), nn.Linear(config.width, 1))
        self.register_buffer("mean", torch.zeros(embedding))
        self.register_buffer("deviation", torch.ones(embedding))

    def standardise_by(self, embeddings: Tensor) -> None:
        """Keep mean and deviation of mask embeddings, x d, by which all are standardised."""
        self.mean.copy_(embeddings.mean(0))
        self.deviation.copy_(embeddings.std(0, correction=0).clamp(min=1e-6))

    def tokens(self, queries: VideoQueries, *, start: int = 0) -> Tokens:
        """All queries as tokens, b k n."""
        return tokens_of(queries, mean=self.mean, deviation=self.deviation, start=start)

    def forward(self, queries: VideoQueries) -> Links:
        """queries: of b videos whose clips follow each other."""
        tokens = self.tokens(queries)
        index = surest(tokens, count=self.config.tokens)                        # b k m
        videos, clips, count = index.shape
        rows = torch.arange(videos, device=index.device)[:, None]
        chosen = tokens.at(rows, torch.arange(clips, device=index.device).repeat_interleave(count)[None],
                           index.flatten(1))                                    # b x
        linked = chosen.sure > self.config.least_sure
        clip = torch.arange(clips, device=index.device).repeat_interleave(count)
        pairs = (linked[:, :, None] & linked[:, None] & (clip[:, None] < clip)).nonzero(as_tuple=True)
        first = square(self._log_odds(chosen, pairs), pairs, shape=(videos, len(clip)))
        sure = chosen.sure * linked
        if self.config.passes == 1:
            return Links(index=index, sure=sure, logits=first)
        second = square(self.second(chosen, clip, pairs, first), pairs, shape=(videos, len(clip)))
        return Links(index=index, sure=sure, logits=second, first=first)

    def second(self, tokens: Tokens, clip: Tensor, pairs: Pairs, first: Tensor) -> Tensor:
        """The second pass: log-odds p of pairs of tokens b x. clip: x. first: b x x, log-odds of the first pass."""
        video, earlier, later = pairs
        with torch.no_grad():
            known = partners(first, clip)
            ends = facing(known, clip)
            tracks = with_track_velocity(tokens, known, clip)
            front = ends.index[video, earlier, clip[later]]
            back = ends.index[video, later, clip[earlier]]
            apart = clip[front] < clip[back]        # both tracks can reach into one clip
            context = torch.stack([ends.probability[video, earlier, clip[later]],
                                   ends.probability[video, later, clip[earlier]],
                                   (first[pairs] / SCALE).clamp(-LIMIT, LIMIT)], -1)
        return self._log_odds(tracks, (video, torch.where(apart, front, earlier), torch.where(apart, back, later)),
                              context)

    def _log_odds(self, tokens: Tokens, pairs: Pairs, context: Tensor | None = None) -> Tensor:
        video, earlier, later = (part.split(AT_ONCE) for part in pairs)
        contexts = repeat(None) if context is None else context.split(AT_ONCE)
        return torch.cat([self.pairs(tokens.at(item, one), tokens.at(item, other), part)
                          for item, one, other, part in zip(video, earlier, later, contexts)])

    def pairs(self, earlier: Tokens, later: Tokens, context: Tensor | None = None) -> Tensor:
        """Pairs of tokens with *x = p -> log-odds p. context: p 3 in the second pass."""
        inputs = [relations(earlier, later)]
        if self.config.passes > 1:
            inputs.append(inputs[0].new_zeros(len(inputs[0]), CONTEXT) if context is None else context)
        return self.layers(torch.cat(inputs, -1).to(self.mean.dtype))[:, 0]


def square(values: Tensor, pairs: Pairs, *, shape: tuple[int, int]) -> Tensor:
    """Log-odds p of pairs -> b x x, symmetric, UNLIKELY where there is no pair. shape: b x."""
    video, earlier, later = pairs
    logits = values.new_full((*shape, shape[1]), UNLIKELY)
    return logits.index_put((video, earlier, later), values).index_put((video, later, earlier), values)
