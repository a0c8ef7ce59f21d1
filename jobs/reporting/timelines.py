"""The identity timeline of a scene, ready to be drawn: a strip a true thing, in the colours of the predicted ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from jobs.reporting.gallery import name_in
from jobs.reporting.scenes import Scene
from model.labels import ClassTable
from pipeline.metrics.identity_timeline import TimelineRow
from pipeline.visualise.palette import color_of


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames in a row that one predicted thing covers, or that nothing does."""

    start: int
    length: int         # frames
    color: str          # of the predicted thing, as on overlays; empty: a gap
    words: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One true thing: its stretches, and the frames at which its identity switches."""

    name: str
    stretches: tuple[Stretch, ...]
    switches: tuple[int, ...]

    @property
    def words(self) -> str:
        """All of it in words."""
        switches = ", ".join(map(str, self.switches))
        return (f"{self.name}: " + "; ".join(stretch.words for stretch in self.stretches)
                + (f". Switches at frame {switches}" if self.switches else "") + ".")


@dataclass(frozen=True, kw_only=True)
class TimelinePicture:
    """The timeline of one video in one way."""

    title: str
    video: str
    frames: int
    strips: tuple[Strip, ...]
    switches: int           # in the strips
    counted: int            # by the metric


def timeline_picture(scene: Scene, classes: ClassTable) -> TimelinePicture:
    """The timeline of a scene that has one."""
    at = {}
    for switch in scene.timeline.switches:
        at.setdefault(switch.thing, []).append(switch.frame)
    strips = tuple(Strip(name=name_in(scene.truth, row.thing, classes), switches=tuple(at.get(row.thing, ())),
                         stretches=tuple(_stretches(row, scene, classes))) for row in scene.timeline.rows)
    return TimelinePicture(title=scene.evaluation.title, video=scene.stored.video_id, strips=strips,
                           frames=len(scene.stored.frames), switches=len(scene.timeline.switches),
                           counted=scene.switches)


def _stretches(row: TimelineRow, scene: Scene, classes: ClassTable) -> Iterator[Stretch]:
    """Frames in which the thing is not seen belong to no stretch."""
    start = 0
    for (is_seen, match), group in groupby(zip(row.seen, row.matches)):
        length = len(list(group))
        span = f"frame {start}" if length == 1 else f"frames {start} to {start + length - 1}"
        if match is not None:
            red, green, blue = color_of(scene.predicted.segments[match], classes)
            yield Stretch(start=start, length=length, color=f"#{red:02x}{green:02x}{blue:02x}",
                          words=f"{name_in(scene.predicted, match, classes)} in {span}")
        elif is_seen:
            yield Stretch(start=start, length=length, color="", words=f"a gap in {span}")
        start += length
