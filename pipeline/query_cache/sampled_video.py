"""The videos of a query cache as inference sees them, with the stored pixels in place of the frames.

A frame is a map one pixel high: the stored pixels of that frame, in prediction and truth alike, so that merging,
association and metrics work on it as on any map. Its pixels have to stand for equally many pixels of the clip, as
those of `evidence.strategy` uniform and dense do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from pycocotools import mask as run_lengths
from torch import Tensor, nn

from model.contracts import ClipPrediction, PanopticVideo, Result, Track, Tracks, VideoResults, VideoSegment
from model.labels import FIRST_OVERLAP, VOID, ClassTable, panoptic_id
from pipeline.errors import BadInput
from pipeline.query_cache.cache import QueryCache
from pipeline.query_cache.columns import SEEN, CachedClip

EVEN = ("uniform", "dense")     # strategies whose pixels stand for equally many


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledClip:
    """One clip, and which of its stored pixels stand for its frames."""

    clip: CachedClip
    pixels: np.ndarray          # t P    rows of the stored pixels; without repeats of the last frame


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledVideo:
    """One video. P, the width of its maps, is the same for all its frames."""

    video_id: str
    clips: tuple[SampledClip, ...]
    width: int                  # P

    @classmethod
    def from_clips(cls, clips: Sequence[CachedClip]) -> SampledVideo:
        """All clips of a view. Raises BadInput "too-few-pixels" where a frame has no stored pixel."""
        rows = [_rows_of_frames(clip) for clip in clips]
        width = min(len(frame) for frames in rows for frame in frames)
        if not width:
            raise BadInput("too-few-pixels", "a frame has no stored pixel, so nothing can be scored from the cache.",
                           video=clips[0].video_id, cure="Set stage_two.validation.pixels to 256 or more, and run "
                           "jobs.cache_queries again.")
        return cls(video_id=clips[0].video_id, width=width, clips=tuple(
            SampledClip(clip=clip, pixels=np.stack([frame[np.arange(width) * len(frame) // width] for frame in frames]))
            for clip, frames in zip(clips, rows)))

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The frames of the video, by their number."""
        return tuple(f"{one.clip.start_frame + frame:06d}" for one in self.clips for frame in range(len(one.pixels)))

    @property
    def labelled(self) -> set[int]:
        """The frames that somebody labelled."""
        known = [frame for one in self.clips for frame in (one.clip.pixel_weights[one.pixels] > 0).any(1)]
        return set(np.flatnonzero(known).tolist())

    def predictions(self, segmenter: nn.Module, *, frames: int) -> Iterator[tuple[ClipPrediction, int]]:
        """The clips with the segmenter's own masks, b = 1, and how many frames of each are real.

        frames: of a clip; a clip at the end repeats its last frame. Queries are in the order of the cache.
        """
        device = next(segmenter.parameters()).device
        for one in self.clips:
            shown = one.pixels[np.minimum(np.arange(frames), len(one.pixels) - 1)]              # t P
            features = rearrange(_tensor(one.clip.pixel_features[shown], device), "t p d -> 1 d t 1 p")
            of_queries = {name: None if (part := getattr(one.clip, name)) is None else _tensor(part, device)[None]
                          for name in ("class_logits", "queries", "mask_embeddings", *SEEN)}
            with torch.no_grad():
                masks = segmenter.mask_logits(of_queries["mask_embeddings"][:, None],
                                              rearrange(features, "b d t 1 p -> b 1 d (t p)"))
            masks = rearrange(masks, "b 1 n (t p) -> b n t 1 p", t=frames)
            yield ClipPrediction(pixel_features=features, mask_logits=masks, **of_queries), len(one.pixels)

    def truth(self, classes: ClassTable, results: Sequence[Result]) -> VideoResults:
        """The labels of the stored pixels; crowd is void."""
        tubes = np.concatenate([one.clip.pixel_tubes[one.pixels] for one in self.clips])        # T P
        return VideoResults(panoptic=self._panoptic(tubes, classes) if "panoptic" in results else None,
                            tracks=self._tracks(tubes, classes) if "tracks" in results else None)

    def _panoptic(self, tubes: np.ndarray, classes: ClassTable) -> PanopticVideo:
        """Each tube under its own track; pixels that tubes share are void."""
        tube_classes = self.clips[0].clip.tube_classes
        tracks = np.where(classes.is_thing[tube_classes], np.arange(len(tube_classes)) + 1, 0)
        ids = np.append(panoptic_id(tube_classes, tracks), VOID).astype(np.int32)
        frames = tuple(ids[frame][None] for frame in tubes.clip(min=VOID))
        shown = np.unique(tubes[tubes >= 0]).tolist()
        segments = {int(ids[tube]): VideoSegment(class_index=int(tube_classes[tube]), track=int(tracks[tube]))
                    for tube in shown}
        return PanopticVideo(video_id=self.video_id, frame_names=self.frame_names, frames=frames, segments=segments)

    def _tracks(self, tubes: np.ndarray, classes: ClassTable) -> Tracks:
        clip = self.clips[0].clip
        tracks = []
        for tube, label in enumerate(clip.tube_classes.tolist()):
            values = [tube, *(FIRST_OVERLAP - index for index, members in enumerate(clip.tube_overlaps)
                              if tube in members)]
            inside = np.isin(tubes, values)
            if classes.is_thing[label] and inside.any():
                tracks.append(Track(class_index=label, masks=tuple(map(_run_lengths, inside))))
        return Tracks(video_id=self.video_id, frame_names=self.frame_names, size=(1, self.width), tracks=tuple(tracks))


def sampled_videos(cache: QueryCache) -> list[SampledVideo]:
    """The videos of a cache at test time, in memory. Raises ValueError where pixels do not stand for equally many."""
    strategy = cache.manifest["made_from"]["cache"]["evidence"]["strategy"]
    if strategy not in EVEN:
        raise ValueError(f"{cache.folder} holds pixels that stand for unequal parts of a clip (cache.evidence.strategy="
                         f"{strategy}), so heads cannot be scored from it; set stage_two.validation={{}} and run "
                         "jobs.cache_queries, which makes a cache for scores")
    return [SampledVideo.from_clips(cache.read(views[0])) for views in cache.videos.values()]


def _rows_of_frames(clip: CachedClip) -> list[np.ndarray]:
    """The rows of the stored pixels of each frame that is no repeat; rows that fill up the column are left out."""
    frame, row, column = clip.pixel_positions.astype(np.int64).T
    raster = (frame << 32) + (row << 16) + column
    real = np.append(True, np.diff(raster) > 0).cumprod().astype(bool)      # filled up with zeros, behind the pixels
    return [np.flatnonzero(real & (frame == index)) for index in range(clip.num_frames)]


def _run_lengths(inside: np.ndarray) -> dict | None:
    """P bool -> the mask of a frame; None where it is empty."""
    return run_lengths.encode(np.asfortranarray(inside[None], dtype=np.uint8)) if inside.any() else None


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(device)
