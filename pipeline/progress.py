"""The progress of a verb through videos and inside each: a bar on a terminal, otherwise a log line every 5 seconds.

A worker watches the video it works on with a `Watch`, which reports its `Place` about once a second; the verb's
`Progress` shows the places of all workers. `streams.py` carries places between machines.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from model.contracts import PanopticVideo, SemanticVideo, VideoResults
from pipeline.printable import printable

log = logging.getLogger(__name__)

REPORT_EVERY = 1.0      # seconds
SHOWN = 3               # videos whose places are in a line


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is in a video."""

    video: str
    step: str                       # what is being done with its frames; "": the video is finished
    done: int = 0                   # frames
    total: int | None = None        # frames; None: not known yet
    seconds: float = 0.0            # since the step began

    def __str__(self) -> str:
        video = printable(self.video)
        if self.total is None:
            return f"{video}: {self.step}, {self.done} frames"
        left = f"{self.seconds * (self.total - self.done) / self.done:.0f} s" if self.done else "unknown"
        return f"{video}: {self.step} {self.done}/{self.total} frames, left {left}"


Report = Callable[[Place], None]


class Watch:
    """Reports the place in one video, at most about once a second. Use it as a context manager."""

    def __init__(self, video: str, report: Report) -> None:
        self.video = video
        self.report = report
        self._step = ""
        self._began = 0.0
        self._reported = 0.0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_) -> None:
        self.report(Place(self.video, ""))

    def at(self, step: str, done: int, total: int | None = None) -> None:
        """Note that `done` frames of a step are done. The first note of a step is always reported."""
        now = time.monotonic()
        if step != self._step:
            self._step = step
            self._began = now
            self._reported = 0.0
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self.report(Place(self.video, step, done, total, now - self._began))

    def over(self, step: str, items: Iterable[Any], total: int, *, frames: Callable[[Any], int] = lambda _: 1
             ) -> Iterator[Any]:
        """Yield items and note the frames of each when the next one is asked for. frames: of an item."""
        done = 0
        self.at(step, 0, total)
        for item in items:
            yield item
            done += frames(item)
            self.at(step, done, total)

    def over_results(self, step: str, results: VideoResults) -> VideoResults:
        """The results, whose maps note the place while they are read."""
        def watched(video: PanopticVideo | SemanticVideo | None) -> PanopticVideo | SemanticVideo | None:
            return video and replace(video, frames=_Watched(self, step, video.frames, len(video.frame_names)))

        return replace(results, panoptic=watched(results.panoptic), semantic=watched(results.semantic))


@dataclass(frozen=True, slots=True)
class _Watched:
    """Frames that can be iterated again where those inside can."""

    watch: Watch
    step: str
    frames: Iterable[Any]
    total: int

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Any]:
        return self.watch.over(self.step, self.frames, self.total)


def unwatched(_: Place) -> None:
    """A report that nobody reads."""


class Progress:
    """Counts videos that are done or skipped, and shows the rate, the time left and the places of the workers.

    Use it as a context manager; a thread shows the status at once and then every few seconds, whatever the work does.
    Videos come in together, such as those of one shard. The rate and the time left count them as soon as a worker has
    left them.
    passes: times that a worker watches each video. every: seconds between two log lines.
    """

    def __init__(self, verb: str, total: int, *, unit: str = "videos", passes: int = 1, every: float = 5.0) -> None:
        self.verb = verb
        self.total = total
        self.unit = unit
        self.passes = passes
        self.every = every
        self.done = 0
        self.passed = 0                         # watches that have ended
        self.skipped = Counter()
        self.places: dict[str, Place] = {}      # by video
        self._ended = threading.Event()
        self._bar = tqdm(desc=verb, total=total, unit=f" {unit}") if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        self._show()
        self._thread = threading.Thread(target=self._keep_showing, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()
        self.places.clear()
        log.info(self.line())

    def update(self, done: int, skipped: Mapping[str, int] | None = None) -> None:
        """Count videos that are done, and skipped videos by reason."""
        self.done += done
        self.skipped.update(skipped or {})
        if self._bar is not None:
            self._bar.update(done + sum((skipped or {}).values()))

    def report(self, place: Place) -> None:
        """Note where a worker is."""
        if place.step:
            self.places[place.video] = place
        else:
            self.passed += 1
            self.places.pop(place.video, None)

    def line(self) -> str:
        """The status as one line."""
        seen = max(self.done + self.skipped.total(), self.passed // self.passes)
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = (self.total - seen) * seconds / seen if seen else float("nan")
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return " | ".join([f"{self.verb} {seen}/{self.total} {self.unit}", f"done {self.done}",
                           f"skipped {self.skipped.total()}{f' ({reasons})' if reasons else ''}",
                           f"{seen / seconds:.1f} {self.unit}/s", f"left {f'{left:.0f} s' if seen else 'unknown'}",
                           *self._places()])

    def _places(self) -> list[str]:
        places = list(self.places.values())
        more = [f"{len(places) - SHOWN} more"] if len(places) > SHOWN else []
        return [*map(str, places[:SHOWN]), *more]

    def _show(self) -> None:
        if self._bar is None:
            log.info(self.line())
        else:
            self._bar.set_postfix_str(" | ".join([*map(str, sorted(self.skipped.items())), *self._places()]))

    def _keep_showing(self) -> None:
        every = self.every if self._bar is None else REPORT_EVERY
        while not self._ended.wait(every):
            self._show()
