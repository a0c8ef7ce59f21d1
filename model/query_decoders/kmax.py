"""k-means query decoder: object queries against the pixels of a whole clip.

kMaX-DeepLab (arXiv 2207.04044), section 4.1, with the frames of a clip stacked along height as in Video-kMaX
(arXiv 2304.04694) and MaXTron (arXiv 2311.18537). Details follow bytedance/kmax-deeplab,
`kmax_deeplab/modeling/transformer_decoder/kmax_transformer_decoder.py`, which calls a query *cluster center* and a mask
embedding *mask kernel*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from model.contracts import ClipPrediction, LayerPrediction
from model.layers.convolution import BatchNormConfig, ConvBN, truncated_normal_
from model.layers.drop_path import DropPath
from model.layers.kmeans_attention import assign_pixels, sum_pixels
from model.layers.query_reading import LatentReading, SoftmaxReading
from model.layers.resize import is_odd, resize

CrossAttention = Literal["kmeans", "normal", "latent"]
HEAD_STD = 0.01    # of the last pixel convolution and the class head, so that the first predictions are almost uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class KMaxDecoderConfig:
    """Widths and depths of the decoder. The defaults are official; comments name what short runs must change."""

    layers: tuple[int, int, int] = (2, 2, 2)    # at strides 32, 16, 8
    num_queries: int = 128
    dim: int = 256
    embedding: int = 128                    # channels of mask embeddings and pixel features
    ffn: int = 2048
    heads: int = 8
    drop_path: float = 0.2
    pixel_depthwise: int | None = 5         # kernel of the predictors' depthwise convolution; None: no such convolution
    depthwise_crosses_frames: bool = True   # official: at frame borders it reads two rows of the next frame
    void_prior: float = 0.9                 # probability of "no object" at the start
    mask_norm_scale: float = 0.1            # first scale of the mask logits; short runs need 1
    residual_norm_scale: float = 0.0        # first scale of the last norm in each residual branch
    corners_by: Literal["width", "height"] = "width"    # which side aligns corners if odd; image code: height
    # How queries read pixels: by k-means; or, for comparison, by attention, directly or through a latent memory
    cross_attention: CrossAttention = "kmeans"
    supervise_pixels: bool = True           # layers return pixel features too; only the discrimination loss reads them

    def __post_init__(self) -> None:
        if len(self.layers) != 3 or min(self.layers) < 0 or sum(self.layers) == 0:
            raise ValueError(f"decoder layers={self.layers}: give three numbers, for the strides 32, 16 and 8, at "
                             "least one of them above 0")
        if min(self.num_queries, self.dim, self.embedding, self.ffn, self.heads) < 1:
            raise ValueError(f"decoder with num_queries={self.num_queries}, dim={self.dim}, ffn={self.ffn}, "
                             f"embedding={self.embedding}, heads={self.heads}: all must be above 0")
        if self.dim % (2 * self.heads):
            raise ValueError(f"decoder of dim {self.dim} with {self.heads} heads: keys take half the channels, so dim "
                             f"must be a multiple of {2 * self.heads}")
        if self.pixel_depthwise is not None and self.pixel_depthwise % 2 == 0:
            raise ValueError(f"pixel_depthwise={self.pixel_depthwise} must be odd, or None for no such convolution")
        if self.corners_by not in ("width", "height"):
            raise ValueError(f"corners_by={self.corners_by!r} must be 'width' (Video-kMaX, MaXTron) or 'height' (the "
                             "image decoder of kMaX-DeepLab); they differ when one side of the stride-4 maps is even")
        if not 0 < self.void_prior < 1:
            raise ValueError(f"void_prior={self.void_prior} must lie between 0 and 1; the official value is 0.9")


class Prediction(NamedTuple):
    """The output of a predictor. The pixels of all frames form one tall image."""

    class_logits: Tensor | None    # b n classes+1
    mask_logits: Tensor            # b n (t h) w
    pixel_features: Tensor         # b d (t h) w, of length 1 along d
    mask_embeddings: Tensor        # b d n


class KMaxPredictor(nn.Module):
    """Class and mask of every query: a linear head on queries, and mask embeddings dotted with pixel features."""

    def __init__(self, config: KMaxDecoderConfig, *, pixel_channels: int, num_classes: int,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.crosses_frames = config.depthwise_crosses_frames
        self.pixel_depthwise = nn.Identity() if config.pixel_depthwise is None else ConvBN(
            pixel_channels, pixel_channels, config.pixel_depthwise, groups=pixel_channels, activation="gelu",
            init="xavier", batch_norm=batch_norm)
        self.pixel_hidden = ConvBN(pixel_channels, config.dim, activation="gelu", batch_norm=batch_norm)
        self.pixel_out = ConvBN(config.dim, config.embedding, bias=True, init=("truncated", HEAD_STD),
                                batch_norm=batch_norm)
        self.mask_head = ConvBN(config.dim, config.embedding, dims=1, batch_norm=batch_norm)
        self.mask_norm = nn.BatchNorm3d(1, **asdict(batch_norm))
        nn.init.constant_(self.mask_norm.weight, config.mask_norm_scale)
        self.class_head = ConvBN(config.dim, num_classes + 1, dims=1, bias=True, norm=None,
                                 init=("truncated", HEAD_STD))
        self.no_object_bias = math.log(num_classes * config.void_prior / (1 - config.void_prior))

    def forward(self, pixels: Tensor, *, mask_queries: Tensor, class_queries: Tensor | None, frames: int) -> Prediction:
        """pixels: b c (t h) w. mask_queries, class_queries: b c n; class_queries None: no class logits."""
        pixel_features = F.normalize(self.pixel_out(self.pixel_hidden(self._mix_neighbours(pixels, frames))), dim=1)
        mask_embeddings = self.mask_head(mask_queries)                              # b d n
        # queries are innermost in memory, because later steps take maxima over them and resize in channels-last layout
        mask_logits = einsum(pixel_features, mask_embeddings, "b d h w, b d n -> b h w n")
        mask_logits = self.mask_norm(mask_logits[:, None])[:, 0]                    # one scale for all queries
        mask_logits = rearrange(mask_logits, "b h w n -> b n h w")
        class_logits = None if class_queries is None else self.classify(class_queries)
        return Prediction(class_logits, mask_logits, pixel_features, mask_embeddings)

    def classify(self, queries: Tensor) -> Tensor:
        """queries: b c n. Returns b n classes+1, with the constant prior added to "no object"."""
        logits = rearrange(self.class_head(queries), "b classes n -> b n classes")
        return logits + F.pad(logits.new_full((1,), self.no_object_bias), (logits.shape[-1] - 1, 0))

    def _mix_neighbours(self, pixels: Tensor, frames: int) -> Tensor:
        if self.crosses_frames:
            return self.pixel_depthwise(pixels)
        single = rearrange(pixels, "b c (t h) w -> (b t) c h w", t=frames)
        return rearrange(self.pixel_depthwise(single), "(b t) c h w -> b c (t h) w", t=frames)


class QuerySelfAttention(nn.Module):
    """Multi-head attention between the queries of a clip, with batch norms and without the 1/sqrt(d) factor."""

    def __init__(self, dim: int, *, heads: int, batch_norm: BatchNormConfig) -> None:
        super().__init__()
        self.heads = heads
        self.depths = (dim // 2, dim // 2, dim)     # of queries, keys and values
        self.project = ConvBN(dim, sum(self.depths), dims=1, init=("truncated", dim ** -0.5), batch_norm=batch_norm)
        self.similarity_norm = nn.BatchNorm2d(heads, **asdict(batch_norm))
        self.output_norm = nn.BatchNorm1d(dim, **asdict(batch_norm))

    def forward(self, queries: Tensor) -> Tensor:
        """queries: b c n. Returns b c n."""
        projected = self.project(queries).split(self.depths, dim=1)
        query, key, value = (rearrange(part, "b (heads d) n -> b heads d n", heads=self.heads) for part in projected)
        similarity = self.similarity_norm(einsum(query, key, "b heads d n, b heads d m -> b heads n m"))
        weights = similarity.float().softmax(dim=-1).to(value.dtype)
        mixed = einsum(weights, value, "b heads n m, b heads d m -> b heads d n")
        return F.gelu(self.output_norm(rearrange(mixed, "b heads d n -> b (heads d) n")))


class KMaxDecoderLayer(nn.Module):
    """A reading of the pixels, self-attention between queries, and a feed-forward block.

    The masks are predicted first, because they define the assignment of k-means.
    """

    def __init__(self, config: KMaxDecoderConfig, *, pixel_channels: int, num_classes: int,
                 batch_norm: BatchNormConfig) -> None:
        super().__init__()
        dim = config.dim
        last = {"dims": 1, "norm_scale": config.residual_norm_scale, "batch_norm": batch_norm}
        self.query_in = ConvBN(dim, dim, dims=1, activation="gelu", batch_norm=batch_norm)
        self.pixel_in = ConvBN(pixel_channels, dim, activation="gelu", batch_norm=batch_norm)
        self.pixel_value = ConvBN(dim, dim, init=("truncated", dim ** -0.5), batch_norm=batch_norm)
        self.predictor = KMaxPredictor(config, pixel_channels=dim, num_classes=num_classes, batch_norm=batch_norm)
        reading = {"kmeans": None, "normal": SoftmaxReading, "latent": LatentReading}[config.cross_attention]
        self.reading = reading and reading(dim, heads=config.heads, batch_norm=batch_norm)
        self.kmeans_norm = nn.BatchNorm1d(dim, **asdict(batch_norm))
        self.kmeans_out = ConvBN(dim, dim, **last)
        self.attention = QuerySelfAttention(dim, heads=config.heads, batch_norm=batch_norm)
        self.attention_out = ConvBN(dim, dim, **last)
        self.ffn_in = ConvBN(dim, config.ffn, dims=1, activation="gelu", batch_norm=batch_norm)
        self.ffn_out = ConvBN(config.ffn, dim, **last)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, queries: Tensor, pixels: Tensor, *, frames: int, supervise: bool) -> tuple[Tensor, Prediction]:
        """queries: b c n. pixels: (b t) c h w, after GELU. Returns the updated queries and the prediction."""
        entry = self.query_in(queries)                                              # b c n
        pixels = rearrange(self.pixel_in(pixels), "(b t) c h w -> b c (t h) w", t=frames)
        prediction = self.predictor(pixels, mask_queries=entry, class_queries=entry if supervise else None,
                                    frames=frames)
        values = self.pixel_value(pixels).flatten(2)
        if self.reading is None:
            assignment = assign_pixels(prediction.mask_logits.flatten(2))           # b (t h w)
            update = sum_pixels(values, assignment, queries=queries.shape[-1])
        else:
            update = self.reading(entry, pixels.flatten(2), values, frames=frames)
        queries = queries + self.drop_path(self.kmeans_out(self.kmeans_norm(update)))
        # self-attention reads the queries as they were before the update, as the released weights expect
        queries = F.gelu(queries + self.drop_path(self.attention_out(self.attention(entry))))
        queries = F.gelu(queries + self.drop_path(self.ffn_out(self.ffn_in(queries))))
        return queries, prediction


class KMaxDecoder(nn.Module):
    """Learned queries -> layers at strides 32, 16, 8 -> classes and masks at stride 4.

    channels: of the pixel decoder's maps at strides 4, 8, 16, 32.
    A cross-clip head starts from copies of `class_projection`, `mask_projection`, `predictor.mask_head`,
    `predictor.class_head` and `predictor.mask_norm`.
    """

    def __init__(self, config: KMaxDecoderConfig, *, channels: Sequence[int], num_classes: int,
                 batch_norm: BatchNormConfig | None = None) -> None:
        super().__init__()
        batch_norm = batch_norm or BatchNormConfig()
        self.depths = config.layers
        self.supervise_pixels = config.supervise_pixels
        self.corner_axis = {"height": 0, "width": 1}[config.corners_by]
        self.initial_queries = nn.Parameter(truncated_normal_(torch.empty(config.dim, config.num_queries), std=1.0))
        self.layers = nn.ModuleList([
            KMaxDecoderLayer(config, pixel_channels=width, num_classes=num_classes, batch_norm=batch_norm)
            for count, width in zip(config.layers, reversed(channels[1:])) for _ in range(count)
        ])
        self.class_projection, self.mask_projection = (
            ConvBN(config.dim, config.dim, dims=1, activation="gelu", batch_norm=batch_norm) for _ in range(2)
        )
        self.predictor = KMaxPredictor(config, pixel_channels=channels[0], num_classes=num_classes,
                                       batch_norm=batch_norm)

    def forward(self, maps: Sequence[Tensor], *, frames: int, supervise: bool = False) -> ClipPrediction:
        """maps: four of (b t) channels[i] h w, at strides 4, 8, 16, 32. frames: t. supervise: also fill `auxiliary`."""
        finest, *others = maps
        queries = repeat(self.initial_queries, "c n -> b c n", b=finest.shape[0] // frames)
        layers = iter(self.layers)
        predictions = []
        for pixels, depth in zip(reversed(others), self.depths):
            activated = F.gelu(pixels) if depth else pixels
            for layer in islice(layers, depth):
                queries, prediction = layer(queries, activated, frames=frames, supervise=supervise)
                if supervise:
                    predictions.append(prediction)
        mask_queries = self.mask_projection(queries)                                # b c n
        final = self.predictor(rearrange(finest, "(b t) c h w -> b c (t h) w", t=frames), frames=frames,
                               mask_queries=mask_queries, class_queries=self.class_projection(queries))
        mask_embeddings = rearrange(final.mask_embeddings, "b d n -> b n d")
        return ClipPrediction(
            class_logits=final.class_logits,
            mask_logits=_fold(final.mask_logits, frames),
            queries=rearrange(queries, "b c n -> b n c"),
            mask_embeddings=mask_embeddings,
            alignment=mask_embeddings,
            pixel_features=_fold(final.pixel_features, frames),
            appearance=rearrange(mask_queries, "b c n -> b n c"),
            auxiliary=tuple(self._supervised(p, finest.shape[-2:], frames) for p in predictions),
        )

    def _supervised(self, prediction: Prediction, size: Sequence[int], frames: int) -> LayerPrediction:
        """The prediction of a layer at stride 4. An odd *target* size aligns corners, as in the released decoders."""
        corners = is_odd(size[self.corner_axis])
        pixels = prediction.pixel_features if self.supervise_pixels else None
        return LayerPrediction(
            class_logits=prediction.class_logits,
            mask_logits=_resize_frames(prediction.mask_logits, size, frames, align_corners=corners),
            pixel_features=None if pixels is None else _resize_frames(pixels, size, frames, align_corners=corners),
        )


def _resize_frames(tall: Tensor, size: Sequence[int], frames: int, *, align_corners: bool) -> Tensor:
    """b c (t h) w -> b c t *size."""
    resized = resize(rearrange(tall, "b c (t h) w -> (b t) c h w", t=frames), size, align_corners=align_corners)
    return rearrange(resized, "(b t) c h w -> b c t h w", t=frames)


def _fold(tall: Tensor, frames: int) -> Tensor:
    return rearrange(tall, "b c (t h) w -> b c t h w", t=frames)
