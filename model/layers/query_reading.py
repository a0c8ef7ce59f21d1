"""Attention of queries to the pixels of a clip, with which Video-kMaX compares k-means (arXiv 2304.04694, supplement,
section A).

As in the attention between queries of kMaX-DeepLab, a batch norm stands in place of the 1/sqrt(d) factor, and keys have
half the channels. Neither variant was released; their sizes are those of the decoder around them.
"""

from __future__ import annotations

from dataclasses import asdict

from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig, ConvBN


class SoftmaxReading(nn.Module):
    """Every query takes a mean of the values of all positions; the softmax is over positions."""

    def __init__(self, dim: int, *, heads: int, batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.heads = heads
        options = {"dims": 1, "init": ("truncated", dim ** -0.5), "batch_norm": batch_norm}
        self.query = ConvBN(dim, dim // 2, **options)
        self.key = ConvBN(dim, dim // 2, **options)
        self.similarity_norm = nn.BatchNorm2d(heads, **asdict(batch_norm))

    def forward(self, queries: Tensor, pixels: Tensor, values: Tensor, *, frames: int = 1) -> Tensor:
        """queries: b c n. pixels, values: b c p, of all frames. Returns b c n; frames are not told apart."""
        query, key, value = (rearrange(part, "b (heads d) x -> b heads d x", heads=self.heads)
                             for part in (self.query(queries), self.key(pixels), values))
        similarity = self.similarity_norm(einsum(query, key, "b heads d n, b heads d p -> b heads n p"))
        weights = similarity.float().softmax(dim=-1).to(value.dtype)
        mixed = einsum(weights, value, "b heads n p, b heads d p -> b heads d n")
        return rearrange(mixed, "b heads d n -> b (heads d) n")


class LatentReading(nn.Module):
    """Latent memory: a copy of the queries reads every frame by itself, and the queries read the copies of all frames.

    The two steps of TubeFormer-DeepLab (arXiv 2205.15361, section 3.3) between which messages of frames are passed on.
    """

    def __init__(self, dim: int, *, heads: int, batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.of_frames = SoftmaxReading(dim, heads=heads, batch_norm=batch_norm)
        self.of_latents = SoftmaxReading(dim, heads=heads, batch_norm=batch_norm)

    def forward(self, queries: Tensor, pixels: Tensor, values: Tensor, *, frames: int) -> Tensor:
        """queries: b c n. pixels, values: b c (t p), frame after frame. Returns b c n."""
        start = repeat(queries, "b c n -> (b t) c n", t=frames)
        pixels, values = (rearrange(part, "b c (t p) -> (b t) c p", t=frames) for part in (pixels, values))
        latents = start + self.of_frames(start, pixels, values)
        latents = rearrange(latents, "(b t) c n -> b c (t n)", t=frames)
        return self.of_latents(queries, latents, latents)
