"""Write frames to an mp4 that common players play: H.264 where the codec is installed, otherwise MPEG-4; both 4:2:0."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.files import naming, partial_path, publish

CODECS = (("libx264", {"crf": "20", "preset": "veryfast"}), ("mpeg4", {"qscale": "3"}))
TICKS = 60_000    # time stamps per second, for even and uneven rates alike; MPEG-4 allows up to 65,535


class VideoWriter:
    """Writes one video in a `with` block; the file appears under its name when the block ends without an error.

    fps: frames per second of frames written without a time. 4:2:0 needs even sizes, so the last row or column of an odd
    one is repeated. Raises ValueError for a frame of another size, OSError when the file cannot be written.
    """

    def __init__(self, path: Path | str, *, fps: float) -> None:
        if not fps > 0:
            raise ValueError(f"{path}: fps must be above 0, got {fps}")
        self.path = Path(path)
        self.fps = fps
        self.frames = 0
        self._partial = partial_path(self.path)
        self._container = None
        self._stream = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray, *, time: float | None = None) -> None:
        """Append H W 3 uint8 RGB. time: seconds from the start, for uneven frame rates; it must increase."""
        height, width = frame.shape[:2]
        if self._container is None:
            with naming(self.path):
                self._open(height, width)
        if (height, width) != self._size:
            raise ValueError(f"{self.path}: frame {self.frames} is {width}x{height}, the video {self._size[1]}x"
                             f"{self._size[0]}; resize it, or write another video")
        picture = av.VideoFrame.from_ndarray(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
        picture.pts = self._stamp(time)
        picture.time_base = Fraction(1, TICKS)
        with naming(self.path):
            self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None and self._container is None:
                raise ValueError(f"{self.path}: no frame was written; a video needs at least one")
            if kind is None:
                with naming(self.path):
                    self._container.mux(self._stream.encode(None))
                    self._container.close()
                publish(self._partial, self.path)
            elif self._container is not None:
                with suppress(av.FFmpegError):      # the end of a file that is given up
                    self._container.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def _open(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "faststart"})
        name, options = next((name, options) for name, options in CODECS if name in av.codecs_available)
        self._stream = self._container.add_stream(name, rate=Fraction(self.fps).limit_denominator(1001),
                                                  options=options)
        self._stream.height = height + height % 2
        self._stream.width = width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.time_base = Fraction(1, TICKS)

    def _stamp(self, time: float | None) -> int:
        stamp = round(TICKS * (self.frames / self.fps if time is None else time))
        if stamp <= self._last:
            raise ValueError(f"{self.path}: frame {self.frames} is at {stamp / TICKS:.4f} s, not after the one before")
        self._last = stamp
        return stamp
