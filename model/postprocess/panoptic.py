"""Class and mask logits -> panoptic video: kMaX's mask-wise merging, one decision per query for the whole video.

The rule (bytedance/kmax-deeplab and TACJu/MaXTron, `panoptic_inference`; arXiv 2207.04044): at every pixel, a softmax
over the queries gives each query a share. A query claims the pixels where its share exceeds the pixel threshold. The
queries are visited by class score times mean share. A query is accepted when its class score is high enough and more
than `overlap` of its claimed pixels, counted over all frames, is still free.

The public code keeps `n T H W` values for this. Here each clip is read once. A pixel matters only through the set of
queries that claim it, its *combination*. The shares add up to one, so few queries can claim the same pixel and few
combinations occur. The first pass counts the pixels of each combination and keeps a compressed map of combinations per
frame, some kilobytes. All areas, overlaps and decisions follow exactly from the counts, and frames are painted from the
maps on access.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.contracts import Geometry, PanopticVideo, VideoSegment
from model.labels import VOID, panoptic_id
from model.postprocess.resize import MaskResizer

# Height and width of a tile. 128 queries of a small tile take 1 MB, which stays in the cache of a CPU core and in
# memory that the allocator reuses (tiles of 4 MB took twice as long); a GPU is faster with few, large tiles.
TILE_CPU = (32, 64)
TILE_GPU = (512, 1024)
OFFICIAL_DIVISOR = 100      # MaXTron's `label_divisor`; ours is `model.labels.DIVISOR`


@dataclass(frozen=True, kw_only=True)
class PanopticConfig:
    """Thresholds of mask-wise merging. The defaults are those of MaXTron near-online with ResNet-50 on VIPSeg."""

    kind: Literal["mask_wise"] = "mask_wise"
    thing: float = 0.2          # class score that a thing needs
    stuff: float = 0.3          # class score that stuff needs
    pixel: float = 0.3          # share of a pixel that a query needs to claim it
    overlap: float = 0.8        # more than this part of its claimed pixels must be free
    sure_first: bool = False    # queries without that class score share no pixel; only for clips merged one by one
    class_power: float = 1.0    # queries are visited by class score ** class_power * mean share ** mask_power
    mask_power: float = 1.0
    # As in the public code: after 100 things of one class, further ones are written as the next class; and near-online
    # merging counts the repeated frames of the last clip.
    official_compat: bool = False

    def __post_init__(self) -> None:
        for name in ("thing", "stuff", "pixel", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"panoptic.{name}={getattr(self, name)} is not a fraction; choose a value from 0 to 1")
        if self.pixel < 0.05:
            raise ValueError(f"panoptic.pixel={self.pixel} lets more than twenty queries claim one pixel, and merging "
                             "a whole video may then not fit into memory; choose 0.05 or more (official: 0.2 - 0.4)")


@dataclass(frozen=True)
class PaintedFrames(Sequence):
    """T maps H W int32 of panoptic ids, painted on access. It holds kilobytes per frame."""

    maps: tuple[tuple[np.dtype, bytes], ...]     # combination at every pixel, compressed
    size: tuple[int, int]                        # H W
    palette: np.ndarray                          # combination -> panoptic id, int32

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, frame: int | slice) -> np.ndarray | PaintedFrames:
        if isinstance(frame, slice):
            return PaintedFrames(self.maps[frame], self.size, self.palette)
        dtype, packed = self.maps[frame]
        return self.palette[np.frombuffer(zlib.decompress(packed), dtype=dtype).reshape(self.size)]


def packed(numbers: np.ndarray, *, largest: int) -> tuple[np.dtype, bytes]:
    """One map of `PaintedFrames`; numbers from 0 to `largest`."""
    dtype = np.min_scalar_type(largest)
    return dtype, zlib.compress(np.ascontiguousarray(numbers, dtype=dtype), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedVideo:
    """The result of merging one video, before its names are attached."""

    frames: PaintedFrames
    segments: Mapping[int, VideoSegment]     # panoptic id -> class, track, score; in order of acceptance
    queries: Mapping[int, int]               # panoptic id -> the query that started the segment


def panoptic_video(merged: MergedVideo, *, video_id: str, frame_names: tuple[str, ...]) -> PanopticVideo:
    """Give the result its names. Frames beyond the last name are repeats and are dropped."""
    if len(merged.frames) < len(frame_names):
        raise ValueError(f"video {video_id!r} has {len(frame_names)} frames but {len(merged.frames)} were segmented; "
                         "every frame must be part of a clip")
    return PanopticVideo(video_id=video_id, frame_names=tuple(frame_names), segments=merged.segments,
                         frames=merged.frames[:len(frame_names)])


class PanopticMerger:
    """Merges one video: `add` every clip in order of time, then `finish` once. An image is a video of one frame.

    is_thing: bool per class, in the order of the class logits.
    """

    def __init__(self, config: PanopticConfig, *, is_thing: Sequence[bool] | np.ndarray, geometry: Geometry) -> None:
        self.config = config
        self.is_thing = np.asarray(is_thing, dtype=bool)
        self.geometry = geometry
        self._resizer: MaskResizer | None = None
        self._queries = 0                                       # n, known after the first clip
        self._shared: dict[tuple[int, ...], int] = {}           # queries that share a pixel -> combination
        self._counts = np.zeros(0, dtype=np.int64)              # combination -> pixels of the video
        self._shares: Tensor | None = None                      # n float64, sum of shares in the claimed pixels
        self._maps: list[tuple[np.dtype, bytes]] = []

    @torch.no_grad()
    def add(self, mask_logits: Tensor) -> None:
        """mask_logits: n t h w at stride 4 of the padded network input; the next frames of the video."""
        if self._resizer is None:
            self._queries, _, *size = mask_logits.shape
            self._resizer = MaskResizer(self.geometry, size=tuple(size), device=mask_logits.device)
            self._shares = mask_logits.new_zeros(self._queries, dtype=torch.float64)
            self._counts = np.zeros(1 + self._queries, dtype=np.int64)
        expected = (self._queries, *self._resizer.size)
        if (mask_logits.shape[0], *mask_logits.shape[2:]) != expected:
            raise ValueError(f"mask logits {tuple(mask_logits.shape)} (queries, frames, h, w) follow clips with "
                             f"{expected} (queries, h, w); one segmenter at one size must make all clips of a video")
        with torch.autocast(mask_logits.device.type, enabled=False):
            for frame in mask_logits.unbind(1):
                self._add_frame(frame.float())

    def _add_frame(self, logits: Tensor) -> None:
        """logits: n h w. Combination 0 is nobody, 1 + n is query n alone, higher ones are in `_shared`."""
        height, width = self._resizer.output
        combinations = torch.empty(height, width, dtype=torch.int32, device=logits.device)
        pixels = []
        claimants = []
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        tile_height, tile_width = TILE_CPU if logits.device.type == "cpu" else TILE_GPU
        for rows, columns in self._resizer.tiles(height=tile_height, width=tile_width):
            tile = self._resizer.tile(logits, rows=rows, columns=columns)
            claims = claim(tile.flatten(1), threshold=self.config.pixel)
            combinations[rows, columns] = claims.alone.view(tile.shape[1:])
            self._shares += claims.shares
            total += claims.checksum
            shared = claims.shared_pixels
            pixels.append((rows.start + shared // tile.shape[2]) * width + columns.start + shared % tile.shape[2])
            claimants.append(claims.shared_queries)
        if not total.isfinite():
            raise ValueError(f"the mask logits of frame {len(self._maps)} hold NaN or infinity; the network diverged "
                             "or its checkpoint does not fit")
        flat = combinations.flatten().cpu().numpy()
        self._name_shared(flat, torch.cat(pixels).cpu().numpy(), torch.cat(claimants).cpu().numpy())
        self._counts += np.bincount(flat, minlength=len(self._counts))
        self._maps.append(packed(flat, largest=len(self._counts) - 1))

    def _name_shared(self, flat: np.ndarray, pixels: np.ndarray, queries: np.ndarray) -> None:
        """Write the combination of every shared pixel into `flat`; the pairs (pixel, query) are grouped by pixel."""
        if not len(pixels):
            return
        starts = np.flatnonzero(np.diff(pixels, prepend=-1))
        sizes = np.diff(starts, append=len(pixels))
        members = np.full((len(starts), sizes.max()), -1)
        rank = np.arange(len(pixels)) - np.repeat(starts, sizes)
        members[np.repeat(np.arange(len(starts)), sizes), rank] = queries
        key = np.zeros(len(starts), dtype=np.int64)
        for column in members.T:     # folding one member at a time keeps the keys small for any number of queries
            _, first, key = np.unique(key * (self._queries + 1) + column + 1, return_index=True, return_inverse=True)
        sets = [tuple(row[row >= 0].tolist()) for row in members[first]]
        names = [self._shared.setdefault(s, 1 + self._queries + len(self._shared)) for s in sets]
        flat[pixels[starts]] = np.array(names)[key]
        self._counts = np.pad(self._counts, (0, 1 + self._queries + len(self._shared) - len(self._counts)))

    def finish(self, class_logits: Tensor) -> MergedVideo:
        """class_logits: n classes+1 for the whole video (last class: no object) -> segments and frames."""
        if self._resizer is None:
            raise ValueError("no clip was added, so there is nothing to merge; the video has no frames")
        if tuple(class_logits.shape) != (self._queries, len(self.is_thing) + 1):
            raise ValueError(f"class logits {tuple(class_logits.shape)} do not fit {self._queries} queries and "
                             f"{len(self.is_thing)} classes (plus one for no object); is this the right class table?")
        owners, segments, queries = self._decide(*_classified(class_logits))
        frames = PaintedFrames(tuple(self._maps), self._resizer.output, owners.astype(np.int32))
        return MergedVideo(frames=frames, segments=segments, queries=queries)

    def sure_queries(self, class_logits: Tensor) -> list[int]:
        """The queries with the class score that a segment needs; where none has it, the one with the highest."""
        scores, classes = _classified(class_logits)
        return np.flatnonzero(self._enough(scores, classes)).tolist() or [int(scores.argmax())]

    def _enough(self, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return scores > np.where(self.is_thing[classes], self.config.thing, self.config.stuff)

    def _decide(self, scores: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, dict, dict]:
        """Visit the queries. Returns combination -> panoptic id, the segments, and the query of each segment."""
        config = self.config
        counts = self._counts
        claimed = self._claimed()
        areas = np.array([counts[c].sum() for c in claimed])
        mean_shares = self._shares.cpu().numpy() / np.maximum(areas, 1)
        ranks = scores ** config.class_power * mean_shares ** config.mask_power
        enough = self._enough(scores, classes)
        owners = np.full(len(counts), VOID, dtype=np.int64)
        tracks = np.zeros(len(self.is_thing), dtype=np.int64)
        segments = {}
        queries = {}
        for query in np.argsort(-ranks, kind="stable"):
            free = claimed[query][owners[claimed[query]] == VOID]
            if not enough[query] or counts[free].sum() <= config.overlap * areas[query]:
                continue
            label = int(classes[query])
            tracks[label] += self.is_thing[label]
            track = int(tracks[label])
            if config.official_compat and track > OFFICIAL_DIVISOR:
                label, track = self._spilled(label, track)
            owner = int(panoptic_id(label, track))
            owners[free] = owner
            if owner not in segments:     # later stuff of the same class joins this segment
                segments[owner] = VideoSegment(class_index=label, track=track, score=float(ranks[query]))
                queries[owner] = int(query)
        return owners, segments, queries

    def _spilled(self, label: int, track: int) -> tuple[int, int]:
        """The class and track that official tools read from `class * 100 + track`; the last class keeps its tracks."""
        ahead, rest = divmod(track - 1, OFFICIAL_DIVISOR)
        if label + ahead >= len(self.is_thing):
            return label, track
        return label + ahead, rest + 1 if self.is_thing[label + ahead] else 0

    def _claimed(self) -> list[np.ndarray]:
        """Query -> the combinations that contain it."""
        claimed = [[1 + query] for query in range(self._queries)]
        for members, combination in self._shared.items():
            for query in members:
                claimed[query].append(combination)
        return [np.array(c) for c in claimed]


def _classified(class_logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """n classes+1 -> score and index of the best class of each query, "no object" aside."""
    scores, classes = class_logits.detach().cpu().double().softmax(-1)[:, :-1].max(-1)
    return scores.numpy(), classes.numpy()


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims on the p pixels of a tile."""

    alone: Tensor             # p int32     0: nobody; 1 + n: query n and nobody else
    shares: Tensor            # n float64   sum of a query's shares over the pixels it claims
    shared_pixels: Tensor     # s int64     pixel of each pair (pixel, query) where several claim, grouped by pixel
    shared_queries: Tensor    # s int64
    checksum: Tensor          # NaN or infinite if and only if a logit is


def claim(logits: Tensor, *, threshold: float) -> Claims:
    """logits: n p. Find the queries with a share above the threshold; the shares are a softmax over queries.

    The shares are never stored: a share exceeds the threshold when exp(logit - best) exceeds the threshold times the
    sum of exponentials, and a query that is alone above the threshold is the best one, with share 1 / sum.
    """
    n = len(logits)
    best = logits.amax(0)
    strength = (logits - best).exp_()                                               # n p
    sums = strength.sum(0)                                                          # p
    above = torch.gt(strength, threshold * sums, out=torch.empty_like(strength))    # 1.0 where claimed
    labels = torch.arange(1.0, n + 1, device=logits.device)
    claimants, label_sum = torch.stack([torch.ones_like(labels), labels]) @ above   # p each, exact in float32
    single = claimants == 1
    alone = torch.where(single, label_sum, 0).int()
    shares = torch.bincount(alone, weights=(single / sums).double(), minlength=n + 1)[1:]

    several = (claimants > 1).nonzero()[:, 0]
    indices, queries = above[:, several].T.nonzero(as_tuple=True)
    pixels = several[indices]
    shares.index_add_(0, queries, (strength[queries, pixels] / sums[pixels]).double())
    return Claims(alone, shares, pixels, queries, sums.sum())
