"""Class and mask logits -> scored tracks of a video: Mask2Former's instance rule, as Tube-Link or VITA applies it.

The best (query, class) pairs of the whole video are the candidates, and a candidate scores class score times mean mask
score inside its mask. Tube-Link (lxtGH/Tube-Link, `instance_postprocess` and `mask2former_vis_tube.py`) looks at each
frame: the best few candidates of the frame are kept; a track is a candidate, its score the mean over the frames that
kept it. VITA (sukjunhwang/VITA, `inference` in `vita/vita_model.py`) looks at the video: the mean runs over all pixels
of the mask in all frames, as large as the network saw them, and a track is in every frame where its mask is.

The class scores are known only after the last clip. What a frame needs from a query is its binary mask and two numbers,
so clips pass by once: every query's mask is run-length encoded at full size, some hundred bytes each, and the choice is
made at the end, exactly.
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
    """How many candidates are considered. Defaults: Tube-Link and MaXTron on YouTube-VIS and OVIS."""

    candidates: int = 100       # (query, class) pairs of a video
    per_frame: int = 30         # candidates kept in each frame, where each is scored by itself
    scored: Literal["frames", "video"] = "frames"       # the mean mask score: of each frame, or of the video (VITA)

    def __post_init__(self) -> None:
        if min(self.candidates, self.per_frame) < 1:
            raise ValueError(f"tracks.candidates={self.candidates} and tracks.per_frame={self.per_frame} must be at "
                             "least 1; official: 100 and 30")
        if self.scored not in ("frames", "video"):
            raise ValueError(f"tracks.scored={self.scored!r} does not exist; choose 'frames' or 'video'")


class TrackMerger:
    """One per video: `add` every clip in time, then `finish` once. Holds kilobytes per frame.

    is_thing: bool per class, in the order of the class logits; other classes make no tracks.
    """

    def __init__(self, config: TrackConfig, *, is_thing: Sequence[bool] | np.ndarray, geometry: Geometry) -> None:
        self.config = config
        self.is_thing = np.asarray(is_thing, dtype=bool)
        self.geometry = geometry
        self._resizer: MaskResizer | None = None        # to the size of the result
        self._measurer: MaskResizer | None = None       # to the size at which mask scores are taken
        self._masks: list[list[dict | None]] = []       # T n      run lengths
        self._sums: list[np.ndarray] = []               # T n 2    of the mask score where the mask is; its pixels

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
        """logits h w, positive in `box` only -> run lengths of the mask at full size (None: empty), and its sums."""
        place, tile = resized(logits, box, self._resizer)
        mask = None
        if (tile > 0).any():
            whole = np.zeros(self._resizer.output, dtype=np.uint8, order="F")
            whole[place] = (tile > 0).cpu().numpy()
            mask = coco_mask.encode(whole)
        if self._measurer is not self._resizer:
            _, tile = resized(logits, box, self._measurer)
        inside = tile[tile > 0]
        return mask, (float(inside.double().sigmoid().sum()), float(len(inside)))

    def finish(self, class_logits: Tensor) -> tuple[Track, ...]:
        """class_logits: n classes+1 for the whole video (last class: no object) -> tracks, the surest class first."""
        if not self._masks:
            raise ValueError("no clip was added, so there is nothing to merge; the video has no frames")
        if tuple(class_logits.shape) != (len(self._masks[0]), len(self.is_thing) + 1):
            raise ValueError(f"class logits {tuple(class_logits.shape)} do not fit {len(self._masks[0])} queries and "
                             f"{len(self.is_thing)} classes (plus one for no object); is this the right class table?")
        of_class = class_logits.detach().cpu().double().softmax(-1)[:, :-1].numpy()
        best = np.argsort(-of_class, axis=None, kind="stable")[:self.config.candidates]
        queries, classes = np.unravel_index(best[self.is_thing[best % of_class.shape[1]]], of_class.shape)
        scores, kept = self._score(of_class[queries, classes], queries)
        tracks = []
        for candidate, (query, label) in enumerate(zip(queries.tolist(), classes.tolist())):
            masks = tuple(masks[query] if keep else None for masks, keep in zip(self._masks, kept[:, candidate]))
            if any(masks):
                tracks.append(Track(class_index=label, masks=masks,
                                    score=float(scores[kept[:, candidate], candidate].mean())))
        return tuple(tracks)

    def _score(self, of_class: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class scores and queries of the candidates -> their scores T candidates, and the frames they are kept in."""
        sums = np.stack(self._sums)[:, queries]                                             # T candidates 2
        if self.config.scored == "video":
            sums = np.broadcast_to(sums.sum(0), sums.shape)
        scores = of_class * sums[..., 0] / (sums[..., 1] + 1e-6)
        kept = np.full(scores.shape, self.config.scored == "video")
        if self.config.scored == "frames":
            best = np.argsort(-scores, axis=1, kind="stable")[:, :self.config.per_frame]
            np.put_along_axis(kept, best, True, axis=1)
        return scores, kept


def resized(logits: Tensor, box: tuple[slice, slice] | None, resizer: MaskResizer
            ) -> tuple[tuple[slice, slice] | None, Tensor]:
    """logits h w, positive in `box` only -> the place that is positive after resizing lies in, and its logits.

    Resizing makes no pixel positive that no positive one has a part in, so the rest of the frame is never made.
    """
    place = None if box is None else resizer.reached(rows=box[0], columns=box[1])
    if place is None or any(part.start >= part.stop for part in place):      # nowhere, or in the padding only
        return None, logits.new_empty(0)
    return place, resizer.tile(logits, rows=place[0], columns=place[1])


def boxes(masks: Tensor) -> list[tuple[slice, slice] | None]:
    """masks n h w bool -> the rows and columns around each, None where it is empty."""
    found = []
    for rows, columns in zip(masks.any(2).cpu().numpy(), masks.any(1).cpu().numpy()):
        if rows.any():
            high = np.flatnonzero(rows)
            wide = np.flatnonzero(columns)
            found.append((slice(int(high[0]), int(high[-1]) + 1), slice(int(wide[0]), int(wide[-1]) + 1)))
        else:
            found.append(None)
    return found


def tracks_video(tracks: tuple[Track, ...], *, video_id: str, frame_names: tuple[str, ...],
                 size: tuple[int, int]) -> Tracks:
    """Give the result its names. size: height and width of the source frames, pixels."""
    for track in tracks:
        if len(track.masks) != len(frame_names):
            raise ValueError(f"video {video_id!r} has {len(frame_names)} frames but {len(track.masks)} were segmented; "
                             "every frame must be part of a clip")
    return Tracks(video_id=video_id, frame_names=tuple(frame_names), size=size, tracks=tracks)
