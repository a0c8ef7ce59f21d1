"""The log-odds that two queries of different clips are one object: a small MLP on their relations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from model.association.links.relations import COUNT, relations
from model.association.links.tokens import Tokens, surest, tokens_of
from model.contracts import VideoQueries
from model.reads import Reads

UNLIKELY = -8.0     # log-odds of pairs that are not computed
AT_ONCE = 4096      # pairs, whose relations and hidden layers fit into the cache of a processor


@dataclass(frozen=True, kw_only=True)
class LinkNetworkConfig:
    """Sizes, and which queries are linked."""

    reads: ClassVar[Reads] = Reads(sizes={}, aligned=False,
                                   columns=("mask_embeddings", "class_logits", "places", "looks"))

    width: int = 48             # of both hidden layers
    tokens: int = 48            # of each clip that are linked, the surest ones
    least_sure: float = 0.1     # 1 - probability of "no object" from which pairs are computed

    def __post_init__(self) -> None:
        if self.width < 1 or self.tokens < 1 or not 0 <= self.least_sure < 1:
            raise ValueError(f"width={self.width}, tokens={self.tokens}, least_sure={self.least_sure}: width and "
                             "tokens must be at least 1, and least_sure at least 0 and below 1")

    def build(self, *, embedding: int) -> LinkNetwork:
        """The network, freshly initialised. embedding: channels of the mask embeddings."""
        return LinkNetwork(self, embedding=embedding)


class Links(NamedTuple):
    """The links of b videos. x = k m counts the m linked queries of every clip, clip after clip."""

    index: Tensor       # b k m   which queries they are
    sure: Tensor        # b x     0 for queries that are not linked
    logits: Tensor      # b x x   symmetric; UNLIKELY within a clip and where a query is not linked


class LinkNetwork(nn.Module):
    """Links the queries of whole videos. A batch of two equals two of one."""

    def __init__(self, config: LinkNetworkConfig, *, embedding: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(COUNT, config.width), nn.GELU(), nn.Linear(config.width, config.width),
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
        pairs = linked[:, :, None] & linked[:, None] & (clip[:, None] < clip)
        video, earlier, later = pairs.nonzero(as_tuple=True)
        parts = zip(video.split(AT_ONCE), earlier.split(AT_ONCE), later.split(AT_ONCE))
        values = torch.cat([self.pairs(chosen.at(item, one), chosen.at(item, other)) for item, one, other in parts])
        logits = values.new_full(pairs.shape, UNLIKELY)
        logits = logits.index_put((video, earlier, later), values).index_put((video, later, earlier), values)
        return Links(index=index, sure=chosen.sure * linked, logits=logits)

    def pairs(self, earlier: Tokens, later: Tokens) -> Tensor:
        """Pairs of tokens with *x = p -> log-odds p."""
        return self.layers(relations(earlier, later).to(self.mean.dtype))[:, 0]
