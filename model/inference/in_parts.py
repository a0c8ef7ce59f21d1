"""A cross-clip head over one part of a video after the other; the tracks of the parts are linked afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from model.association.track_links import PartsConfig, TrackLinks
from model.contracts import ClipPrediction
from model.inference.offline import FeatureSpool, Offline


class InParts:
    """Makes the tracks of every part offline, as if it were a video. A `ResultMaker`.

    Its clips are aligned like those of `Offline`. Each part begins with the last clips of the one before.
    """

    def __init__(self, config: PartsConfig, new_maker: Callable[[FeatureSpool], Offline], *, most: int,
                 spool: FeatureSpool | None = None) -> None:
        """most: tracks of the video. spool: where the pixel features of a part wait; by default in memory."""
        self.config = config
        self.most = most
        self.new_maker = new_maker
        self.spool = [] if spool is None else spool
        self._recent: deque[tuple[ClipPrediction, int]] = deque(maxlen=config.shared)
        self._links = TrackLinks(config.pairs)
        self._start()

    def _start(self) -> None:
        self.spool.clear()
        self._part = self.new_maker(self.spool)
        self._shared = sum(frames for _, frames in self._recent)
        self._lengths: list[int] = []       # frames of the clips of this part
        for clip, frames in self._recent:
            self._take(clip, frames)

    def _take(self, clip: ClipPrediction, frames: int) -> None:
        self._part.add(clip, frames)
        self._lengths.append(frames)

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        if len(self._lengths) == self.config.clips:
            self._end()
            self._start()
        self._take(clip, frames)
        self._recent.append((clip, frames))

    def _end(self) -> None:
        self._links.add(self._part.finish()["tracks"], frames=sum(self._lengths), shared=self._shared)

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`; once for a video."""
        self._end()
        return {"tracks": self._links.finish(most=self.most)}
