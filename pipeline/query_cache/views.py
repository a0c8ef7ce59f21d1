"""The views of a video in the query cache, read clip by clip. An augmented one is drawn once for the whole video.

The official training of a cross-clip head draws a window of frames, an augmentation and, on VIPSeg, a donor of
copy-paste at every step (TACJu/MaXTron, the dataset mapper of MaXTron on VIPSeg). A view is one such draw for all
frames of a video:

* The first frame of a window is drawn as there, and the clips of the view are cut so that one of them begins at it. A
  window of the view may begin at any of its clips; over many views every first frame is equally likely.
* Copy-paste takes one other video with one transform and pastes the same segments into every frame. The donor's frames
  are a window as long as the view, or the whole donor with its last frame repeated if it is shorter. The released code
  does this for the frames of one training window; only in longer videos do the windows of a view share a donor. The
  defects of that code (`training_input/copy_paste.py`) are always corrected here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.contracts import Geometry
from model.labels import ClassTable
from pipeline.clips import (
    AugmentConfig,
    Transform,
    VideoClip,
    color_frames,
    count_windows,
    draw_transform,
    sample_clip,
    split_clips,
)
from pipeline.shards import StoredVideo, StoredVideos
from pipeline.training_input import (
    CopyPasteConfig,
    Fetch,
    Part,
    at_stride_4,
    choose_segments,
    decode_part,
    draw_donor,
    paste,
    renumber,
    stride_4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """How augmented views are drawn."""

    augment: AugmentConfig
    copy_paste: CopyPasteConfig | None = None
    window_frames: int = 0      # of a training window, whose first frame is drawn; 0: clips are cut from frame 0 on


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything about an augmented view of a video that does not depend on pixels."""

    clip: Part              # all frames of the video from the first clip on
    donor: Part | None      # as many frames of the video from which copy-paste takes segments
    all_things: bool = True     # of the donor are pasted; False: only those of the random part


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewClip:
    """One clip of a view as network input, with its labels."""

    frames: Tensor          # 1 t 3 H W    uint8 RGB
    real_pixels: Tensor     # 1 t H W      bool
    ids: np.ndarray         # t h w        ids at stride 4, also those of pasted segments; where there is a `geometry`,
                            #              those of all real pixels of the network input
    start: int              # frame of the video
    valid: int              # number of frames that are not repeats
    geometry: Geometry | None = None        # of the real pixels in the network input


def draw_view(rng: np.random.Generator, video: StoredVideo, videos: StoredVideos, config: ViewConfig, *,
              clip_frames: int) -> View:
    """Draw one view of a video. videos: the whole shard set; a donor is drawn from those of them that have labels."""
    total = len(video.frames)
    transform = draw_transform(rng, config.augment, (video.height, video.width))
    start = draw_start(rng, total, config.window_frames) % clip_frames
    clip = _part(rng, video, tuple(range(start, total)), transform, config.augment)
    paste_config = config.copy_paste
    if paste_config is None or rng.random() >= paste_config.probability:
        return View(clip=clip, donor=None)
    donors = np.flatnonzero(videos.labels > 0).tolist()
    other = videos[draw_donor(rng, donors, video.index)]
    augment = replace(paste_config.of_donor(config.augment), size=transform.padded)
    frames = sample_clip(len(other.frames), total - start, rng, reverse=augment.reverse, labelled=other.labelled)
    donor = _part(rng, other, frames, draw_transform(rng, augment, (other.height, other.width)), augment)
    return View(clip=clip, donor=donor, all_things=paste_config.all_things)


def _part(rng: np.random.Generator, video: StoredVideo, frames: tuple[int, ...], transform: Transform,
          augment: AugmentConfig) -> Part:
    return Part(video=video, frames=frames, transforms=color_frames(rng, augment, (transform,) * len(frames)))


def draw_start(rng: np.random.Generator, num_frames: int, window_frames: int) -> int:
    """The first frame of a random window inside a video. It is 0 without windows, and where the video is too short."""
    return int(rng.integers(max(count_windows(num_frames, window_frames), 1))) if window_frames else 0


class PlainReader:
    """Reads the view of test time.

    clips: of the video, as inference cuts them. whole: the ids of all real pixels are kept, not those at stride 4.
    """

    def __init__(self, video: StoredVideo, clips: Iterable[VideoClip], *, whole: bool) -> None:
        self.segments = video.segments
        self.overlaps = video.overlaps
        self._clips = clips
        self._whole = whole

    def clips(self) -> Iterator[ViewClip]:
        """The clips of the view, once. Raises BadInput, which names video and frame, if an image cannot be decoded."""
        for clip in self._clips:
            height, width = clip.geometry.resized
            yield ViewClip(frames=clip.frames, real_pixels=clip.real_pixels, start=clip.indices[0], valid=clip.valid,
                           ids=clip.ids[:, :height, :width] if self._whole else at_stride_4(clip.ids),
                           geometry=clip.geometry if self._whole else None)


class ViewReader:
    """Reads an augmented view clip by clip. The segments to paste are chosen first, from all frames of the donor.

    segments, overlaps: those in the id maps; pasted ones have ids above those of the video. Raises BadInput, which
    names video and frame, if an image cannot be decoded.
    """

    def __init__(self, view: View, fetch: Fetch, classes: ClassTable, rng: np.random.Generator, *,
                 clip_frames: int) -> None:
        self.view = view
        self.fetch = fetch
        self.clip_frames = clip_frames
        video = view.clip.video
        self.segments = video.segments
        self.overlaps = video.overlaps
        if view.donor is not None:
            donor = view.donor.video
            chosen = choose_segments(self._donor_ids(), donor.segments, classes, rng, overlaps=donor.overlaps,
                                     all_things=view.all_things)
            moved, shared, self.new_ids = renumber(chosen, after=video.highest_id, highest=donor.highest_id,
                                                   overlaps=donor.overlaps)
            self.segments = (*video.segments, *moved)
            self.overlaps = {**video.overlaps, **shared}

    def clips(self) -> Iterator[ViewClip]:
        """The clips of the view in the order of time; the last one repeats the last frame if it is too short."""
        for positions, valid in split_clips(len(self.view.clip.frames), self.clip_frames):
            yield self._clip(positions, valid)

    def _clip(self, positions: tuple[int, ...], valid: int) -> ViewClip:
        part = self.view.clip.at(positions)
        size = part.transforms[0].padded
        frames = torch.empty((len(positions), 3, *size), dtype=torch.uint8)
        real_pixels = torch.zeros((len(positions), *size), dtype=torch.bool)
        for real, transform in zip(real_pixels, part.transforms):
            height, width = transform.resized
            real[:height, :width] = True
        ids = np.stack(decode_part(part, self.fetch, out=frames.numpy(), at=stride_4(size))).astype(np.uint16)
        if self.view.donor is not None:
            self._paste(positions, frames.numpy(), ids, real_pixels.numpy())
        ids[part.unlabelled] = 0        # also where something was pasted: nothing is learnt there
        return ViewClip(frames=frames[None], real_pixels=real_pixels[None], ids=ids, start=part.frames[0], valid=valid)

    def _paste(self, positions: tuple[int, ...], frames: np.ndarray, ids: np.ndarray, real_pixels: np.ndarray) -> None:
        part = self.view.donor.at(positions)
        height, width = part.transforms[0].resized
        donor_frames = np.empty((len(positions), 3, height, width), dtype=np.uint8)
        donor_ids = decode_part(part, self.fetch, out=donor_frames, at=(slice(height), slice(width)))
        for frame in zip(frames, ids, real_pixels, donor_frames, donor_ids):
            paste(*frame, self.new_ids)

    def _donor_ids(self) -> Iterator[np.ndarray]:
        """The id map of every frame of the donor, decoded clip by clip."""
        donor = self.view.donor
        height, width = donor.transforms[0].resized
        for positions, valid in split_clips(len(donor.frames), self.clip_frames):
            yield from decode_part(donor.at(positions[:valid]), self.fetch, out=None,
                                   at=(slice(height), slice(width)))
