"""A video -> the clips that a segmenter reads at test time, one after the other, never the whole video at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.contracts import Geometry
from model.inference.resize import FixedCanvas, Interpolation, ResizeConfig
from pipeline.clips.augment import Transform
from pipeline.clips.sampling import split_clips, split_tubes
from pipeline.errors import BadInput
from pipeline.file_names import PICTURES, composed, frame_name, is_companion, naturally
from pipeline.foreign_files import read_file
from pipeline.frame_order import in_order_of_time
from pipeline.images import decode_image, decode_jpeg
from pipeline.shards import ShardSet, StoredVideo

T = TypeVar("T")

_END = object()


class VideoSource(Protocol):
    """A video whose frames can be read in the order of time."""

    video_id: str
    frame_names: tuple[str, ...]    # T
    size: tuple[int, int]           # height, width of every frame, pixels

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each. Raises BadInput, which names the file."""


class StoredVideoSource:
    """A video of a shard set, with its labels."""

    def __init__(self, shards: ShardSet, video: StoredVideo) -> None:
        self.shards = shards
        self.video = video
        self.video_id = video.video_id
        self.frame_names = tuple(frame.name for frame in video.frames)
        self.size = (video.height, video.width)

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each. Raises BadInput, which names video and frame."""
        images = []
        for index, (jpeg, _) in enumerate(self.shards.read(self.video, start, stop), start):
            try:
                images.append(decode_jpeg(jpeg))
            except BadInput as error:
                raise BadInput(error.reason, f"frame {self.frame_names[index]!r}: {error.what}", video=self.video_id,
                               cure="Verify the shards and make the damaged ones again.") from error
        return images

    def ids(self, frame: int) -> np.ndarray:
        """H W ids of `video.segments`, 0 void. Raises ValueError if the video has no label maps."""
        return self.shards.ids(self.video, frame)


class FolderSource:
    """A folder of frames, in the order of the numbers in their names (frame2 before frame10), or one picture.

    Frames are set upright. places: of each frame among all that the folder has.
    Raises FileNotFoundError if there are no frames, and BadInput if two share a name, differ in size, or cannot be
    decoded, and if their names tell no order.
    """

    def __init__(self, path: Path | str, *, faults: list[BadInput] | None = None,
                 counted: Callable[[int], None] = lambda _: None) -> None:
        """faults: all pictures are decoded, those that cannot be read are left out of a folder, and this list gets the
        reasons; without it, they raise. counted: is told the number of decoded pictures.
        """
        path = Path(path)
        is_folder = path.is_dir()
        self.files = pictures_in(path) if is_folder else [path]
        if not self.files:
            raise FileNotFoundError(f"no frames in {path}: it needs files ending in {', '.join(PICTURES)}")
        self.video_id = path.name if is_folder else path.stem
        stems = {composed(file.stem): file for file in self.files}
        if len(stems) < len(self.files):
            twice = [file.stem for file in self.files if stems[composed(file.stem)] != file]
            raise BadInput("frame-mismatch", f"{len(twice)} frames have two files, such as {twice[0]!r}.",
                           video=self.video_id, file=path, cure="Keep one picture of each frame in the folder.")
        try:
            ordered = in_order_of_time(stems)
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=self.video_id, file=path, cure=error.cure) from None
        self.files = [stems[stem] for stem in ordered]
        self.places = list(range(len(self.files)))
        if faults is not None and is_folder:
            self._keep_readable(faults, counted)
        self.frame_names = tuple(frame_name(ordered[place]) for place in self.places)
        self.size = self._read(self.files[0]).shape[:2]

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each."""
        images = [self._read(file) for file in self.files[start:stop]]
        for file, image in zip(self.files[start:stop], images):
            if image.shape[:2] != self.size:
                raise BadInput("size-differs", f"the frame has {image.shape[:2]} (height, width), the first frame has "
                               f"{self.size}.", video=self.video_id, file=file, cure="Bring all frames to one size.")
        return images

    def _keep_readable(self, faults: list[BadInput], counted: Callable[[int], None]) -> None:
        readable = []
        lost = []
        for place, file in enumerate(self.files):
            try:
                self._read(file)
                readable.append(place)
            except BadInput as error:
                lost.append(error)
            counted(place + 1)
        if not readable:
            raise lost[0]
        faults += lost
        self.files = [self.files[place] for place in readable]
        self.places = readable

    def _read(self, file: Path) -> np.ndarray:
        try:
            return decode_image(read_file(file))
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=self.video_id, file=file, cure=error.cure) from error
        except OSError as error:
            raise BadInput("unreadable", f"it cannot be read: {error.strerror}.", video=self.video_id, file=file,
                           cure="Copy it again, or give this user read permission.") from error


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, without the companions that systems leave beside them.

    Raises OSError where the folder may not be read.
    """
    names = [name for name in os.listdir(folder) if name.lower().endswith(PICTURES) and not is_companion(name)]
    return [path for name in naturally(names) if not (path := folder / name).is_dir()]


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """One clip as network input. The last clip of a video is filled up by repeating the last frame."""

    frames: Tensor                  # 1 t 3 H W    uint8 RGB
    real_pixels: Tensor             # 1 t H W      bool
    indices: tuple[int, ...]        # t            frames of the video
    valid: int                      # number of frames that are not repeats
    geometry: Geometry              # of each frame
    read_ids: Callable[[], np.ndarray] = field(repr=False)

    @cached_property
    def ids(self) -> np.ndarray:
        """t H W uint8 or uint16 segment ids at network input size, 0 void; decoded on first use.

        Raises ValueError if the source has no labels.
        """
        return self.read_ids()


def video_clips(source: VideoSource, clip_frames: int, resize: FixedCanvas | ResizeConfig, *, overlap: int = 0,
                shorten: bool = False) -> Iterator[VideoClip]:
    """The consecutive clips of a video as network input; neighbours share `overlap` frames.

    resize: how frames are scaled (bilinear, aspect ratio kept) and padded right and bottom with 0. shorten: the last
    clips may be shorter, as Tube-Link cuts them; otherwise, the last frame is repeated.
    """
    geometry = resize.geometry(source.size)
    transform = _test_transform(geometry, resize.interpolation)
    total = len(source.frame_names)
    for indices, valid in split_tubes(total, clip_frames) if shorten else split_clips(total, clip_frames,
                                                                                      overlap=overlap):
        yield _clip(source.frames(indices[0], indices[0] + valid), indices, transform, geometry,
                    read_ids=partial(_read_ids, source, indices, transform))


def ahead(clips: Iterable[T], *, count: int = 1) -> Generator[T, None, None]:
    """The same clips in the same order, of which up to `count` wait ready while the caller works on one.

    Reading and decoding release Python's lock, so they run beside the network. One thread makes all clips. An error is
    raised in place of the clip that could not be made. Closing the iterator waits for the clip in the making, and
    closes `clips`.
    """
    iterator = iter(clips)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(count))
        try:
            while (clip := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, iterator, _END))
                yield clip
                del clip
        finally:
            for later in waiting:
                later.cancel()
            thread.shutdown()
            if hasattr(iterator, "close"):
                iterator.close()


def streamed_clips(frames: Iterable[np.ndarray], clip_frames: int, resize: FixedCanvas | ResizeConfig, *,
                   overlap: int = 0) -> Iterator[VideoClip]:
    """The clips of a video whose length nobody knows, each as soon as its last frame is there; see `video_clips`.

    frames: H W 3 uint8 RGB, all of one size. Raises ValueError for another frame.
    """
    waiting: list[np.ndarray] = []
    geometry = None
    start = 0
    for image in frames:
        geometry = geometry or resize.geometry(image.shape[:2])
        if image.dtype != np.uint8 or image.shape != (*geometry.source, 3):
            raise ValueError(f"frame {start + len(waiting)} is {image.dtype} {image.shape}; give uint8 arrays of "
                             f"{(*geometry.source, 3)} (height, width, red green blue) like the first frame")
        waiting.append(image)
        if len(waiting) == clip_frames:
            yield _streamed_clip(waiting, start, clip_frames, geometry, resize.interpolation)
            start += clip_frames - overlap
            waiting = waiting[clip_frames - overlap:]
    if len(waiting) > (overlap if start else 0):
        yield _streamed_clip(waiting, start, clip_frames, geometry, resize.interpolation)


def _streamed_clip(images: Sequence[np.ndarray], start: int, clip_frames: int, geometry: Geometry,
                   interpolation: Interpolation) -> VideoClip:
    last = start + len(images) - 1
    indices = tuple(min(frame, last) for frame in range(start, start + clip_frames))
    return _clip(images, indices, _test_transform(geometry, interpolation), geometry, read_ids=_no_ids)


def _clip(images: Sequence[np.ndarray], indices: tuple[int, ...], transform: Transform, geometry: Geometry, *,
          read_ids: Callable[[], np.ndarray]) -> VideoClip:
    """images: the frames that are not repeats."""
    height, width = transform.resized
    valid = len(images)
    frames = torch.empty((len(indices), 3, *transform.padded), dtype=torch.uint8)
    real_pixels = torch.zeros((len(indices), *transform.padded), dtype=torch.bool)
    real_pixels[:, :height, :width] = True
    for image, out in zip(images, frames.numpy()):
        transform.image(image, out=out)
    frames[valid:] = frames[valid - 1]
    return VideoClip(frames=frames[None], real_pixels=real_pixels[None], indices=indices, valid=valid,
                     geometry=geometry, read_ids=read_ids)


def _test_transform(geometry: Geometry, interpolation: Interpolation) -> Transform:
    return Transform(source=geometry.source, box=(0, 0, *geometry.source), resized=geometry.resized,
                     padded=geometry.padded, interpolation=interpolation)


def _no_ids() -> np.ndarray:
    raise ValueError("a stream of frames has no labels; only the videos of a shard set have")


def _read_ids(source: VideoSource, indices: tuple[int, ...], transform: Transform) -> np.ndarray:
    if not isinstance(source, StoredVideoSource):
        raise ValueError(f"video {source.video_id!r} has no labels; only the videos of a shard set have labels")
    return np.stack([transform.ids(source.ids(frame)) for frame in indices])
