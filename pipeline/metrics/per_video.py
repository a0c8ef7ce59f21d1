"""Base of metrics that keep one small record per video: merging, and storing as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from model.labels import ClassTable


class PerVideoMetric:
    """Keeps a record of plain values for every video, so parts of a data set merge exactly, in any order."""

    def __init__(self, classes: ClassTable, **settings: Any) -> None:
        self.classes = classes
        self.settings = settings
        self.videos: dict[str, dict[str, Any]] = {}    # video -> record, with at least its number of "frames"

    def merge(self, other: Self) -> None:
        """Add the videos of `other`. Raises ValueError if classes or settings differ, or if both scored a video."""
        if (self.classes, self.settings) != (other.classes, other.settings):
            raise ValueError(f"scores of class table {other.classes.name!r}, settings {other.settings} cannot be "
                             f"merged into {self.classes.name!r}, {self.settings}; score all parts with the same two")
        if both := sorted(self.videos.keys() & other.videos.keys()):
            raise ValueError(f"{len(both)} videos would count twice, first {both[0]!r}; score each video in one part")
        self.videos |= other.videos

    def repeated(self, times: int) -> Self:
        """The same records as often as `times`, of videos with names of their own: one draw of a bootstrap."""
        result = type(self)(self.classes, **self.settings)
        result.videos = {f"{video}#{time}": record for video, record in self.videos.items() for time in range(times)}
        return result

    def to_json(self) -> dict[str, Any]:
        """All counts as plain values. Each worker scores a part; `from_json` and `merge` join the parts."""
        return {"classes": self.classes.to_json(), "settings": self.settings, "videos": dict(self.in_order())}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        metric = cls(ClassTable.from_json(saved["classes"]), **saved["settings"])
        metric.videos = dict(saved["videos"])
        return metric

    def in_order(self) -> list[tuple[str, dict[str, Any]]]:
        """(video, record), sorted by video, so sums do not depend on the order in which videos were scored."""
        return sorted(self.videos.items())

    def frames(self) -> int:
        """Frames scored so far."""
        return sum(record["frames"] for record in self.videos.values())
