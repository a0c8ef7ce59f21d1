"""VITA: predictions for a video from the queries of its frames, without reading its pixels (arXiv 2206.04403).

Section 3.2: frame queries become object tokens. In the encoder the tokens of neighbouring frames attend to each other,
in windows that shift from layer to layer. In the decoder learned video queries attend to the tokens of all frames. One
class and one mask embedding per video query hold for the whole video. Behaviour follows sukjunhwang/VITA,
`vita/modeling/transformer_decoder/vita.py`; its clip is our whole video, and our clips have one frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from model.contracts import VideoPrediction, VideoQueries
from model.cross_clip.base import HeadConfig
from model.layers.attention import DecoderLayer, EncoderLayer
from model.layers.convolution import before_pointwise, dot_pixels
from model.layers.mlp import mlp
from model.reads import Reads


@dataclass(frozen=True, kw_only=True)
class VitaTestConfig:
    """How VITA is tested where that differs from its training; None: as `VitaHeadConfig` says."""

    kind: Literal["vita"] = "vita"
    window: int | None = None       # frames whose tokens meet in the encoder; 0: all frames of the video
    keep: float | None = None       # share of each frame's queries that is read, the surest objects first

    def applied_to(self, config: VitaHeadConfig) -> VitaHeadConfig:
        """The config of the head at test time."""
        changes = {"window": self.window, "keep": self.keep}
        return replace(config, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class VitaHeadConfig(HeadConfig):
    """Sizes and switches. Defaults are the released R50 models; the paper has 3 encoder and 6 decoder layers."""

    reads: ClassVar[Reads] = Reads(columns=("queries", "class_logits"), aligned=False, sizes={
        "num_classes": "num_classes", "dim": "dim", "pixel_dim": "pixel_dim", "frame_queries": "num_queries"})
    at_test_time: ClassVar[type] = VitaTestConfig

    kind: Literal["vita"] = "vita"
    num_classes: int                        # without "no object"
    dim: int = 256                          # c, channels of a query
    embedding: int = 256                    # d, channels of a mask embedding
    pixel_dim: int = 256                    # channels of the segmenter's pixel features
    frame_queries: int = 100                # of the frame detector; each has a learned position
    num_queries: int = 100                  # of the video
    heads: int = 8
    ffn: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 3
    window: int = 6                         # frames that attend to each other in the encoder; 0: all
    shift_in_training: bool = False         # shift the windows of every second layer, as at inference
    pre_norm: bool = False                  # norms before attention and feed-forward, not after
    project: bool = True                    # a linear layer turns frame queries into object tokens
    similarity: Literal["all", "frames"] | None = "all"     # queries that the similarity loss compares; None: no loss
    keep: float = 1.0                       # share of each frame's queries read at inference, best first

    def __post_init__(self) -> None:
        sizes = (self.num_classes, self.dim, self.embedding, self.pixel_dim, self.frame_queries, self.num_queries,
                 self.heads, self.ffn, self.decoder_layers)
        if min(sizes) < 1 or min(self.encoder_layers, self.window) < 0:
            raise ValueError(f"VITA with {self}: sizes and decoder_layers must be above 0, encoder_layers and window "
                             "not negative")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} does not split into heads={self.heads}; choose a divisor of dim")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep}, the share of frame queries to read, must be above 0 and at most 1")
        if self.similarity not in ("all", "frames", None):
            raise ValueError(f"similarity={self.similarity!r} does not exist; choose 'all', 'frames' or None")

    def build(self) -> VitaHead:
        """The head, freshly initialised."""
        return VitaHead(self)


class VitaHead(nn.Module):
    """The head for a frame detector. Its clips are single frames, and their queries are read in their own order."""

    def __init__(self, config: VitaHeadConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        sizes = {"heads": config.heads, "ffn": config.ffn, "pre_norm": config.pre_norm}
        self.project = nn.Linear(dim, dim) if config.project else nn.Identity()
        self.encoder = nn.ModuleList(EncoderLayer(dim, **sizes) for _ in range(config.encoder_layers))
        self.frame_query_positions = nn.Parameter(torch.randn(config.frame_queries, dim))
        self.initial_queries = nn.Parameter(torch.randn(config.num_queries, dim))
        self.query_positions = nn.Parameter(torch.randn(config.num_queries, dim))
        self.decoder = nn.ModuleList(DecoderLayer(dim, **sizes) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, config.num_classes + 1)
        self.mask_head = mlp(dim, dim, dim, config.embedding)
        self.mask_features = nn.Conv2d(config.pixel_dim, config.embedding, 1)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        nn.init.zeros_(self.mask_features.bias)
        self.frame_similarity = nn.Linear(dim, dim) if config.similarity else None
        self.video_similarity = nn.Linear(dim, dim) if config.similarity == "all" else None

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """VITA copies nothing; the weights of a pre-trained head come from a start of their own."""

    def forward(self, queries: VideoQueries) -> tuple[VideoPrediction, ...]:
        """One prediction per decoder layer, from shared heads and all supervised alike; the last is the result.

        queries: of clips of one frame, k frames of each video, in the segmenter's own order.
        """
        b, frames, n, _ = queries.queries.shape
        if n != self.config.frame_queries:
            raise ValueError(f"frames of {n} queries were given to a head with frame_queries="
                             f"{self.config.frame_queries}")
        read = queries.queries
        positions = repeat(self.frame_query_positions, "n c -> b k n c", b=b, k=frames)
        if self.config.keep < 1 and not self.training:
            read, positions = self._surest(queries, positions)
        tokens = self.encode(self.project(read))                                                 # b k n c
        compared = None if self.frame_similarity is None else self.frame_similarity(tokens)
        values = rearrange(tokens, "b k n c -> b (k n) c")
        keys = values + rearrange(positions, "b k n c -> b (k n) c")
        x = repeat(self.initial_queries, "n c -> b n c", b=b)
        predictions = []
        for layer in self.decoder:
            x = layer(x, keys, values, position=self.query_positions)
            predictions.append(self._predict(self.norm(x), compared, frames=frames))
        return tuple(predictions)

    def _surest(self, queries: VideoQueries, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and positions, b k n c, of the queries with the lowest "no object" score (pruning, table 6)."""
        no_object = queries.class_logits.softmax(-1)[..., -1]
        kept = max(round(self.config.keep * no_object.shape[-1]), 1)
        chosen = no_object.topk(kept, largest=False).indices.sort().values[..., None]
        return queries.queries.take_along_dim(chosen, 2), positions.take_along_dim(chosen, 2)

    def encode(self, tokens: Tensor) -> Tensor:
        """Object encoder: tokens b k n c attend to each other in windows of frames, without position embeddings."""
        shifts = self.config.shift_in_training or not self.training
        for index, layer in enumerate(self.encoder):
            first = self.config.window // 2 if shifts and index % 2 else 0
            tokens = in_windows(layer, tokens, window=self.config.window, first=first)
        return tokens

    def _predict(self, x: Tensor, compared: Tensor | None, *, frames: int) -> VideoPrediction:
        embeddings, shown = (repeat(part, "b n c -> b k n c", k=frames) for part in (self.mask_head(x), x))
        return VideoPrediction(
            class_logits=self.class_head(x), mask_embeddings=embeddings, queries=shown, clip_similarity=compared,
            video_similarity=None if self.video_similarity is None else self.video_similarity(x))

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """mask_embeddings: b k n d, pixel_features: b k c *pixels (the segmenter's) -> b k n *pixels."""
        logits = dot_pixels(before_pointwise(mask_embeddings, self.mask_features), pixel_features.flatten(3))
        return logits.unflatten(3, pixel_features.shape[3:])


def in_windows(layer: EncoderLayer, tokens: Tensor, *, window: int, first: int) -> Tensor:
    """Apply a layer to the tokens of each window of frames; b k n c -> b k n c.

    window: in frames; 0: one window over all. first: frames of the first window if windows are shifted; 0: a whole one.
    The public code rolls time by half a window, and masks the halves of the wrapped window from each other by -1000 and
    padded frames by -1000 or -inf. In float32 both get weight 0 exactly, so cutting time elsewhere gives the same.
    """
    frames = tokens.shape[1]
    if not window or frames <= (first or window):
        return rearrange(layer(rearrange(tokens, "b k n c -> b (k n) c")), "b (k n) c -> b k n c", k=frames)
    before = -first % window
    after = -(before + frames) % window
    padded = rearrange(F.pad(tokens, (0, 0, 0, 0, before, after)), "b (w k) n c -> (b w) (k n) c", k=window)
    allowed = None
    if before or after:
        is_real = F.pad(torch.ones(frames, dtype=torch.bool, device=tokens.device), (before, after))
        allowed = repeat(is_real, "(w k) -> (b w) 1 (k n)", b=len(tokens), k=window, n=tokens.shape[2])
    met = rearrange(layer(padded, allowed=allowed), "(b w) (k n) c -> b (w k) n c", b=len(tokens), k=window)
    return met[:, before:before + frames]
