"""What the rooms hand to each other, with the shape of every field.

Letters have one meaning in the whole project: b videos in a batch, k clips of a video, t frames of a clip, T frames of
the whole video, n object queries, m ground-truth tubes, c query channels, d mask-embedding channels, h w at stride 4,
H W network input, p sampled pixels of a clip. Clips and videos never share an axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from torch import Tensor

Result = Literal["panoptic", "tracks", "semantic"]      # what can be made of a video


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a source frame lies inside the network input: scaled, then padded right and bottom. All in pixels."""

    source: tuple[int, int]     # height, width of the source frame
    resized: tuple[int, int]    # height, width after scaling; equal to source when the frame already fits
    padded: tuple[int, int]     # height, width of the network input

    @classmethod
    def fit(cls, source: tuple[int, int], *, padded: tuple[int, int], enlarge: bool = False) -> Geometry:
        """How a frame of `source` enters a network of input size `padded`: scaled down if needed, up only to `enlarge`.

        The scale is common to both sides and sizes are rounded to the nearest pixel, halves to the even one, as in
        MaXTron's evaluation code.
        """
        if min(*source, *padded) < 1:
            raise ValueError(f"frame {source} and network input {padded} must both be at least one pixel high and wide")
        scale = min(padded[0] / source[0], padded[1] / source[1])
        scale = scale if enlarge else min(1.0, scale)
        height, width = (max(1, round(side * scale)) for side in source)
        return cls(source=source, resized=(height, width), padded=padded)


def smallest_canvas(sizes: Iterable[tuple[int, int]], *, multiple: int) -> tuple[int, int]:
    """The smallest height and width, multiples of `multiple`, in which frames of all these sizes lie. Pixels."""
    height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*sizes))
    return height, width


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTargets:
    """Ground truth of one clip at stride 4: every fourth pixel of the label map, never interpolated."""

    masks: Tensor       # m t h w   bool; panoptic tubes do not overlap, instance tubes may
    classes: Tensor     # m         int64
    track_ids: Tensor   # m         int64, unique in the video
    void: Tensor        # t h w     bool; no tube, crowd or padding
    unlabelled: Tensor | None = None    # t  bool; frames that nobody labelled: void, and no loss reads them; None: none

    def to(self, device) -> ClipTargets:
        """The same targets on another device."""
        return ClipTargets(masks=self.masks.to(device), classes=self.classes.to(device),
                           track_ids=self.track_ids.to(device), void=self.void.to(device),
                           unlabelled=None if self.unlabelled is None else self.unlabelled.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """Training input of stage one. H W: the canvas of the batch, on which clips may differ in size."""

    frames: Tensor                      # b t 3 H W   uint8 RGB; the segmenter normalises
    real_pixels: Tensor                 # b t H W     bool; false in padding
    targets: tuple[ClipTargets, ...]    # b of them
    videos: tuple[str, ...]             # b names, for messages
    samples: tuple[int, ...]            # b positions in the sample plan, for accounting

    def to(self, device) -> ClipBatch:
        """The same batch on another device."""
        return ClipBatch(frames=self.frames.to(device, non_blocking=True),
                         real_pixels=self.real_pixels.to(device, non_blocking=True),
                         targets=tuple(t.to(device) for t in self.targets), videos=self.videos, samples=self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrediction:
    """What one decoder layer says; supervised like the last one, never used at inference."""

    class_logits: Tensor                     # b n classes+1    last class: no object
    mask_logits: Tensor                      # b n t h w
    pixel_features: Tensor | None = None     # b d t h w        L2-normalised (kMaX); None where no loss reads it
    queries: Tensor | None = None            # b n c            as in `ClipPrediction`; of a frame detector, for VITA


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPrediction:
    """What a segmenter says about clips. Stage one ends here; stage two starts here."""

    class_logits: Tensor       # b n classes+1    last class: no object
    mask_logits: Tensor        # b n t h w        stride 4
    queries: Tensor            # b n c            raw decoder output; a cross-clip head starts from these
    mask_embeddings: Tensor    # b n d            their dot products with pixel features are the masks
    pixel_features: Tensor     # b d t h w        stride 4; by far the largest field
    alignment: Tensor | None = None                # b n a    neighbouring clips are aligned by; None: own order is kept
    appearance: Tensor | None = None               # b n c    what mask embeddings are projected from (Video-kMaX)
    places: Tensor | None = None                   # b n t 5  as in `VideoQueries`; None until `with_places`
    looks: Tensor | None = None                    # b n 6
    auxiliary: tuple[LayerPrediction, ...] = ()    # one per decoder layer; only when supervised
    semantic_logits: Tensor | None = None          # b classes+1 t h w, stride 4; only when supervised and configured


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoQueries:
    """The clip queries of whole videos, aligned: query n is the same object in every clip.

    Where a segmenter states no alignment (VITA's frame detector), queries keep the order of their clip.
    """

    queries: Tensor                     # b k n c
    class_logits: Tensor                # b k n classes+1 of the segmenter
    mask_embeddings: Tensor | None      # b k n d         of the segmenter; None where nobody reads them
    # Of the segmenter's masks, see `model.inference.places`; None: of predictions or caches that do not have them.
    places: Tensor | None = None        # b k n t 5       area, centroid y x, deviation y x, all as parts of the frame;
                                        #                 0 in frames without the mask, and in repeats of the last frame
    looks: Tensor | None = None         # b k n 6         mean and deviation of r g b inside the mask, from 0 to 1

    def to(self, device) -> VideoQueries:
        """The same queries on another device."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in parts.items()}
        return VideoQueries(**moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPrediction:
    """What a cross-clip head says about whole videos. Masks are made per clip, by the head's `mask_logits`."""

    class_logits: Tensor        # b n classes+1   one class for the whole video
    mask_embeddings: Tensor     # b k n d
    queries: Tensor             # b k n c         refined
    # VITA's embeddings whose dot products say "the same object"
    clip_similarity: Tensor | None = None       # b k n c         of the queries of the clips, n as in `VideoQueries`
    video_similarity: Tensor | None = None      # b n c           of the queries of the video


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelEvidence:
    """The pixels of each clip a stage-two loss sees: all of them, or a weighted sample that gives unbiased sums."""

    pixel_features: Tensor              # b k p d
    tubes: Tensor                       # b k p    int64 position in `classes` of the video; -1: void; -2 - s: overlap s
    weights: Tensor                     # b k p    pixels each sample stands for; 1 everywhere when dense, 0: ignore
    classes: tuple[Tensor, ...]         # b of m   int64, class of each tube of the video
    areas: tuple[Tensor, ...]           # b of k m float, exact pixels of each tube in each clip, stride 4
    overlaps: tuple[Tensor, ...] = ()   # b of s m bool, tubes that share a pixel; () where none do, as in panoptic data

    def to(self, device) -> PixelEvidence:
        """The same evidence on another device."""
        return PixelEvidence(pixel_features=self.pixel_features.to(device), tubes=self.tubes.to(device),
                             weights=self.weights.to(device), classes=tuple(c.to(device) for c in self.classes),
                             areas=tuple(a.to(device) for a in self.areas),
                             overlaps=tuple(o.to(device) for o in self.overlaps))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSegments:
    """The m segments of one merged clip, before its things are linked to the tracks of the video."""

    frames: Sequence[np.ndarray]    # t maps H W of positions 0 ... m-1, VOID elsewhere; may be painted when asked for
    shared: int                     # first frames that are also the last ones of the clip before; 0: none
    classes: np.ndarray             # m      int64
    is_thing: np.ndarray            # m      bool
    embeddings: np.ndarray          # m d    float64; how each segment looks
    boxes: np.ndarray               # m 4    x1 y1 x2 y2 around the segment in all frames, parts of width and height


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSegment:
    """One segment of a panoptic video."""

    class_index: int
    track: int              # 0 for stuff
    score: float = 1.0
    is_crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticVideo:
    """A panoptic result or the ground truth of one video. Metrics and pictures take only this."""

    video_id: str
    frame_names: tuple[str, ...]               # T
    frames: Iterable[np.ndarray]               # T maps H W int32 of panoptic ids; may be lazy, can be iterated again
    segments: Mapping[int, VideoSegment]       # panoptic id -> what it is; every id in the maps is listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One object through a video; unlike segments of a panoptic video, tracks may overlap."""

    class_index: int
    masks: tuple[Mapping[str, object] | None, ...]    # T    COCO run lengths (size, counts as bytes); None: not there
    score: float = 1.0
    is_crowd: bool = False
    query: int | None = None            # of the network, the same for one object in all parts of a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryShapes:
    """What a segmenter, or the query cache that it filled, hands to a cross-clip head."""

    num_classes: int            # without "no object"
    num_queries: int            # n
    dim: int                    # c, channels of a query
    pixel_dim: int              # channels of the pixel features
    aligned: bool = True        # query n is one object in all clips; False: queries keep the order of their clip
    decoder: str = ""           # kind of query decoder, whose last heads a head may copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """An instance segmentation result or the ground truth of one video."""

    video_id: str
    frame_names: tuple[str, ...]    # T
    size: tuple[int, int]           # H W
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticVideo:
    """A semantic segmentation result or the ground truth of one video: classes without objects."""

    video_id: str
    frame_names: tuple[str, ...]    # T
    frames: Iterable[np.ndarray]    # T maps H W int32 of classes, VOID where unlabelled; may be lazy, iterable again


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResults:
    """Everything one run of a system says about one video, or everything its annotation does; None: not made."""

    panoptic: PanopticVideo | None = None
    tracks: Tracks | None = None
    semantic: SemanticVideo | None = None
