"""Class and mask logits -> scored tracks of a video: Mask2Former's instance rule, as Tube-Link or VITA applies it.

The best (query, class) pairs of the whole video are the candidates. The score of a candidate is its class score times
the mean mask score inside its mask. Tube-Link (lxtGH/Tube-Link, `instance_postprocess` and `mask2former_vis_tube.py`)
scores each frame by itself and keeps the best candidates of the frame; the score of a track is the mean over the frames
that kept it. VITA (sukjunhwang/VITA, `inference` in `vita/vita_model.py`) scores the video: the mean runs over all
pixels of the mask in all frames, at the size of the network input without padding, and a track is present in every
frame where its mask is not empty.

The class scores are known only after the last clip. Each clip is still read only once: a frame keeps two numbers per
query and its mask as run lengths at full size, some hundred bytes, and the exact choice is made at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from model.contracts import Geometry, Track, Tracks
from model.postprocess.resize import MaskResizer


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """How candidates are chosen. The defaults are those of Tube-Link and MaXTron on YouTube-VIS and OVIS."""

    candidates: int = 100       # (query, class) pairs of a video
    per_frame: int = 30         # candidates kept in each frame, for scored="frames"
    scored: Literal["frames", "video"] = "frames"       # the mean mask score is over a frame, or the video (VITA)

    def __post_init__(self) -> None:
        if min(self.candidates, self.per_frame) < 1:
            raise ValueError(f"tracks.candidates={self.candidates} and tracks.per_frame={self.per_frame} must be at "
                             "least 1; official: 100 and 30")
        if self.scored not in ("frames", "video"):
            raise ValueError(f"tracks.scored={self.scored!r} does not exist; choose 'frames' or 'video'")


class TrackMerger:
    """Merges one video: `add` every clip in order of time, then `finish` once. It holds kilobytes per frame.

    is_thing: bool per class, in the order of the class logits; only things get tracks.
    """

    def __init__(self, config: TrackConfig, *, is_thing: Sequence[bool] | np.ndarray, geometry: Geometry) -> None:
        self.config = config
        self.is_thing = np.asarray(is_thing, dtype=bool)
        self.geometry = geometry
        self._resizer: MaskResizer | None = None        # to the size of the result
        self._measurer: MaskResizer | None = None       # to the size at which mask scores are averaged
        self._masks: list[list[dict | None]] = []       # T n      run lengths
        self._sums: list[np.ndarray] = []               # T n 2    sum of mask scores in the mask; its pixels

    @torch.no_grad()
    def add(self, mask_logits: Tensor) -> None:
        """mask_logits: n t h w at stride 4 of the padded network input; the next frames of the video."""
        if self._resizer is None:
            options = {"size": tuple(mask_logits.shape[2:]), "device": mask_logits.device}
            self._resizer = self._measurer = MaskResizer(self.geometry, **options)
            if self.config.scored == "video":
                self._measurer = MaskResizer(replace(self.geometry, source=self.geometry.resized), **options)
        expected = (len(self._masks[0]) if self._masks else len(mask_logits), *self._resizer.size)
        if (mask_logits.shape[0], *mask_logits.shape[2:]) != expected:
            raise ValueError(f"mask logits {tuple(mask_logits.shape)} (queries, frames, h, w) follow clips with "
                             f"{expected} (queries, h, w); one segmenter at one size must make all clips of a video")
        with torch.autocast(mask_logits.device.type, enabled=False):
            for frame in mask_logits.float().unbind(1):
                if not frame.isfinite().all():
                    raise ValueError(f"the mask logits of frame {len(self._masks)} hold NaN or infinity; the network "
                                     "diverged or its checkpoint does not fit")
                masks, sums = zip(*(self._measure(query, box) for query, box in zip(frame, boxes(frame > 0))))
                self._masks.append(list(masks))
                self._sums.append(np.array(sums))

    def _measure(self, logits: Tensor, box: tuple[slice, slice] | None) -> tuple[dict | None, tuple[float, float]]:
        """logits h w, positive in `box` only -> run lengths of the mask at full size (None: empty), and its `_sums`."""
        region, tile = resized(logits, box, self._resizer)
        mask = None
        if (tile > 0).any():
            whole = np.zeros(self._resizer.output, dtype=np.uint8, order="F")
            whole[region] = (tile > 0).cpu().numpy()
            mask = coco_mask.encode(whole)
        if self._measurer is not self._resizer:
            _, tile = resized(logits, box, self._measurer)
        inside = tile[tile > 0]
        return mask, (float(inside.double().sigmoid().sum()), float(len(inside)))

    def finish(self, class_logits: Tensor) -> tuple[Track, ...]:
        """class_logits: n classes+1 for the whole video (last class: no object) -> tracks, the best class first."""
        if not self._masks:
            raise ValueError("no clip was added, so there is nothing to merge; the video has no frames")
        if tuple(class_logits.shape) != (len(self._masks[0]), len(self.is_thing) + 1):
            raise ValueError(f"class logits {tuple(class_logits.shape)} do not fit {len(self._masks[0])} queries and "
                             f"{len(self.is_thing)} classes (plus one for no object); is this the right class table?")
        class_scores = class_logits.detach().cpu().double().softmax(-1)[:, :-1].numpy()
        best = np.argsort(-class_scores, axis=None, kind="stable")[:self.config.candidates]
        queries, classes = np.unravel_index(best[self.is_thing[best % class_scores.shape[1]]], class_scores.shape)
        scores, kept = self._score(class_scores[queries, classes], queries)
        tracks = []
        for candidate, (query, label) in enumerate(zip(queries.tolist(), classes.tolist())):
            masks = tuple(masks[query] if keep else None for masks, keep in zip(self._masks, kept[:, candidate]))
            if any(masks):
                tracks.append(Track(class_index=label, masks=masks, query=query,
                                    score=float(scores[kept[:, candidate], candidate].mean())))
        return tuple(tracks)

    def _score(self, class_scores: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class scores and queries of the candidates -> their scores, and whether they are kept; T candidates each."""
        sums = np.stack(self._sums)[:, queries]                                             # T candidates 2
        if self.config.scored == "video":
            sums = np.broadcast_to(sums.sum(0), sums.shape)
        scores = class_scores * sums[..., 0] / (sums[..., 1] + 1e-6)
        kept = np.full(scores.shape, self.config.scored == "video")
        if self.config.scored == "frames":
            best = np.argsort(-scores, axis=1, kind="stable")[:, :self.config.per_frame]
            np.put_along_axis(kept, best, True, axis=1)
        return scores, kept


def resized(logits: Tensor, box: tuple[slice, slice] | None, resizer: MaskResizer
            ) -> tuple[tuple[slice, slice] | None, Tensor]:
    """logits h w, positive in `box` only -> the region that holds all positive pixels after resizing, and its logits.

    A pixel is positive after resizing only if a positive pixel contributes to it, so the rest is never computed.
    """
    region = None if box is None else resizer.reached(rows=box[0], columns=box[1])
    if region is None or any(part.start >= part.stop for part in region):     # nowhere, or in the padding only
        return None, logits.new_empty(0)
    return region, resizer.tile(logits, rows=region[0], columns=region[1])


def boxes(masks: Tensor) -> list[tuple[slice, slice] | None]:
    """masks n h w bool -> the rows and columns that enclose each mask, None for an empty one."""
    enclosing = []
    for rows, columns in zip(masks.any(2).cpu().numpy(), masks.any(1).cpu().numpy()):
        enclosing.append((_span(rows), _span(columns)) if rows.any() else None)
    return enclosing


def _span(is_set: np.ndarray) -> slice:
    """From the first to the last true entry."""
    indices = np.flatnonzero(is_set)
    return slice(int(indices[0]), int(indices[-1]) + 1)


def tracks_video(tracks: tuple[Track, ...], *, video_id: str, frame_names: tuple[str, ...],
                 size: tuple[int, int]) -> Tracks:
    """Attach the names of the video and its frames. size: height and width of the source frames in pixels."""
    for track in tracks:
        if len(track.masks) != len(frame_names):
            raise ValueError(f"video {video_id!r} has {len(frame_names)} frames but {len(track.masks)} were segmented; "
                             "every frame must be part of a clip")
    return Tracks(video_id=video_id, frame_names=tuple(frame_names), size=size, tracks=tracks)
