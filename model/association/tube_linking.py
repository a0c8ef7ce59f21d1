"""Tube-Link's learned association (arXiv 2303.12782, section 3.2): the queries of a clip attend to those of the clip
before, and an embedding head gives the vectors that a tracker compares.

Details follow `models/video/tube_link_vps/tube_link_vps.py` and `track_heads.py` in lxtGH/Tube-Link. The other kinds of
tracking in table 8f are not in the released code: queries that are compared as they are, and features of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from model.contracts import ClipPrediction
from model.layers.mlp import FeedForward
from model.layers.region_features import RegionFeatures


@dataclass(frozen=True, kw_only=True)
class TubeLinkingConfig:
    """Sizes. The defaults are those of every Tube-Link model for panoptic video."""

    dim: int = 256              # of the queries
    heads: int = 8
    ffn: int = 1024
    link: bool = True           # queries attend to the clip before; false: only the embedding head
    head: bool = True           # an embedding head; false: what is linked is compared as it is
    reads: Literal["queries", "regions"] = "queries"    # what is linked; regions: the pixels in the boxes of the masks

    def __post_init__(self) -> None:
        if self.reads not in ("queries", "regions"):
            raise ValueError(f"linking.reads={self.reads!r} does not exist; choose 'queries' or 'regions'")
        if self.dim % self.heads:
            raise ValueError(f"linking.dim={self.dim} must be a multiple of linking.heads={self.heads}")


class TubeLinking(nn.Module):
    """Cross-attention and a feed-forward block, each with residual and norm, and then the embedding head."""

    def __init__(self, config: TubeLinkingConfig, *, channels: int | None = None) -> None:
        """channels: of the pixel features; None: those of the queries. Only regions need them."""
        super().__init__()
        dim = config.dim
        self.config = config
        if config.reads == "regions":
            self.regions = RegionFeatures(dim, channels=channels or dim)
        if config.link:
            self.attention = nn.MultiheadAttention(dim, config.heads, batch_first=True)
            self.attention_norm = nn.LayerNorm(dim)
            self.ffn = FeedForward(dim, config.ffn)
            self.ffn_norm = nn.LayerNorm(dim)
        if config.head:
            self.embed = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU(),
                                       nn.Linear(dim, dim))
            self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(),
                                      nn.Linear(dim, dim))
            self._initialise_head()

    def _initialise_head(self) -> None:
        for layer in (self.head[0], self.head[2]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head[4].weight, std=0.01)
        nn.init.zeros_(self.head[4].bias)

    def tokens(self, clip: ClipPrediction) -> Tensor:
        """b n c in float32: what is linked and compared, one vector for each query of the clips."""
        if self.config.reads == "regions":
            return self.regions(clip.mask_logits.float(), clip.pixel_features.float())
        return clip.queries.float()

    def forward(self, queries: Tensor, reference: Tensor, *, official_compat: bool = False) -> Tensor:
        """queries b n c of a clip, reference b x c of the clip before, both `tokens` -> linked queries b n c.

        official_compat: the released test code swaps two axes, so that each query attends only to the reference query
        of the same index, and both clips need the same number of queries. Without link the queries stay as they are.
        """
        if not self.config.link:
            return queries
        if official_compat and queries.shape != reference.shape:
            raise ValueError(f"official_compat pairs queries by their index, but there are {tuple(queries.shape)} "
                             f"queries and {tuple(reference.shape)} of the clip before; set official_compat=False")
        if official_compat:
            pairs = (rearrange(part, "b n c -> (b n) 1 c") for part in (queries, reference))
            return rearrange(self._link(*pairs), "(b n) 1 c -> b n c", b=len(queries))
        return self._link(queries, reference)

    def _link(self, queries: Tensor, reference: Tensor) -> Tensor:
        read, _ = self.attention(queries, reference, reference, need_weights=False)
        queries = self.attention_norm(queries + read)
        return self.ffn_norm(queries + self.ffn(queries))

    def embeddings(self, queries: Tensor) -> Tensor:
        """queries ... c, linked or not -> ... c: the vectors that are compared between clips by dot product."""
        return self.head(self.embed(queries)) if self.config.head else queries
