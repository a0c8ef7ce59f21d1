"""The frames of a video that are wanted: every nth one, between two times."""

from __future__ import annotations

import numpy as np

from pipeline.clips import VideoSource
from pipeline.errors import BadInput

TOLERANCE = 1e-6    # seconds, since times in files are rounded


class Excerpt:
    """A `VideoSource` of every nth frame of another one, from `start` up to and without `end`.

    video_id: the name of the results. start, end: seconds after the first frame. fps: of sources without times.
    times: T seconds of each chosen frame after the first one of the source, be that readable or not. span: the seconds
    of the first frame and of the end of the last one, as the source counts them. Raises BadInput "no-frames" where no
    frame is left.
    """

    def __init__(self, source: VideoSource, *, video_id: str, every: int = 1, start: float = 0.0,
                 end: float | None = None, fps: float = 6.0) -> None:
        stored = getattr(source, "times", None)
        places = getattr(source, "places", range(len(source.frame_names)))
        first = stored[0] if stored else 0.0
        times = [time - first for time in stored] if stored else [place / fps for place in places]
        last = times[-1] + 1 if end is None else end
        self.indices = [index for index, time in enumerate(times)
                        if start - TOLERANCE <= time < last - TOLERANCE][::every]
        if not self.indices:
            wanted = f"from {start:g} seconds on" if end is None else f"between {start:g} and {end:g} seconds"
            raise BadInput("no-frames", f"it has no frame {wanted}; the last one is at {times[-1]:.3f} seconds.",
                           video=video_id, cure="Set predict.start and predict.end to "
                           "seconds after its first frame.")
        self.source = source
        self.video_id = video_id
        self.size = source.size
        self.frame_names = tuple(source.frame_names[index] for index in self.indices)
        self.times = tuple(times[index] for index in self.indices)
        step = self.times[-1] - self.times[-2] if len(self.times) > 1 else 1 / getattr(source, "fps", fps)
        self.span = (first + self.times[0], first + self.times[-1] + step)
        self._recent: dict[int, np.ndarray] = {}

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each. Raises the errors of the source."""
        kept = self._recent     # clips may overlap
        self._recent = {index: kept[index] if index in kept else self.source.frames(index, index + 1)[0]
                        for index in self.indices[start:stop]}
        return list(self._recent.values())
