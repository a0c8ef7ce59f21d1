"""Class and mask logits -> scored tracks of a video: Mask2Former's instance rule, as Tube-Link applies it to videos.

The rule (lxtGH/Tube-Link, `instance_postprocess` and `mask2former_vis_tube.py`): the best (query, class) pairs of the
whole video are the candidates; in each frame a candidate scores class score times mean mask score inside its mask, and
the best few candidates of the frame are kept; a track is a candidate, its score the mean over the frames that kept it.

The class scores are known only after the last clip. What a frame needs from a query is its binary mask and one number,
so clips pass by once: every query's mask is run-length encoded at full size, some hundred bytes each, and the choice is
made at the end, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    per_frame: int = 30         # candidates kept in each frame

    def __post_init__(self) -> None:
        if min(self.candidates, self.per_frame) < 1:
            raise ValueError(f"tracks.candidates={self.candidates} and tracks.per_frame={self.per_frame} must be at "
                             "least 1; official: 100 and 30")


class TrackMerger:
    """One per video: `add` every clip in time, then `finish` once. Holds kilobytes per frame.

    is_thing: bool per class, in the order of the class logits; other classes make no tracks.
    """

    def __init__(self, config: TrackConfig, *, is_thing: Sequence[bool] | np.ndarray, geometry: Geometry) -> None:
        self.config, self.is_thing, self.geometry = config, np.asarray(is_thing, dtype=bool), geometry
        self._resizer: MaskResizer | None = None
        self._masks: list[list[dict | None]] = []       # T n    run lengths
        self._scores: list[np.ndarray] = []             # T n    mean of the mask score where the mask is

    @torch.no_grad()
    def add(self, mask_logits: Tensor) -> None:
        """mask_logits: n t h w at stride 4 of the padded network input; the next frames of the video."""
        if self._resizer is None:
            self._resizer = MaskResizer(self.geometry, size=tuple(mask_logits.shape[2:]), device=mask_logits.device)
        expected = (len(self._masks[0]) if self._masks else len(mask_logits), *self._resizer.size)
        if (mask_logits.shape[0], *mask_logits.shape[2:]) != expected:
            raise ValueError(f"mask logits {tuple(mask_logits.shape)} (queries, frames, h, w) follow clips with "
                             f"{expected} (queries, h, w); one segmenter at one size must make all clips of a video")
        with torch.autocast(mask_logits.device.type, enabled=False):
            for frame in mask_logits.float().unbind(1):
                if not frame.isfinite().all():
                    raise ValueError(f"the mask logits of frame {len(self._masks)} hold NaN or infinity; the network "
                                     "diverged or its checkpoint does not fit")
                masks, scores = zip(*(self._measure(query, box) for query, box in zip(frame, boxes(frame > 0))))
                self._masks.append(list(masks))
                self._scores.append(np.array(scores))

    def _measure(self, logits: Tensor, box: tuple[slice, slice] | None) -> tuple[dict | None, float]:
        """logits h w, positive in `box` only -> run lengths of the mask at full size (None: empty), its mean score.

        Resizing makes no pixel positive that no positive one has a part in, so the rest of the frame is never made.
        """
        if box is None:
            return None, 0.0
        place = self._resizer.reached(rows=box[0], columns=box[1])
        if any(part.start >= part.stop for part in place):      # in the padding only
            return None, 0.0
        tile = self._resizer.tile(logits, rows=place[0], columns=place[1])
        mask = tile > 0
        area = float(mask.sum())
        if not area:
            return None, 0.0
        whole = np.zeros(self._resizer.output, dtype=np.uint8, order="F")
        whole[place] = mask.cpu().numpy()
        return coco_mask.encode(whole), float(tile[mask].double().sigmoid().sum()) / (area + 1e-6)

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
        scores = of_class[queries, classes] * np.stack(self._scores)[:, queries]             # T candidates
        kept = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(kept, np.argsort(-scores, axis=1, kind="stable")[:, :self.config.per_frame], True, axis=1)
        tracks = []
        for candidate, (query, label) in enumerate(zip(queries.tolist(), classes.tolist())):
            masks = tuple(masks[query] if keep else None for masks, keep in zip(self._masks, kept[:, candidate]))
            if any(masks):
                tracks.append(Track(class_index=label, masks=masks,
                                    score=float(scores[kept[:, candidate], candidate].mean())))
        return tuple(tracks)


def boxes(masks: Tensor) -> list[tuple[slice, slice] | None]:
    """masks n h w bool -> the rows and columns around each, None where it is empty."""
    found = []
    for rows, columns in zip(masks.any(2).cpu().numpy(), masks.any(1).cpu().numpy()):
        if rows.any():
            high, wide = np.flatnonzero(rows), np.flatnonzero(columns)
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
