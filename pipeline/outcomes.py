"""The outcome of every video that a verb works through: done, or skipped for a reason. One form for all verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BadInput
from pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a video was skipped."""

    reason: str     # the short fixed word of a BadInput, for counting
    message: str    # its whole text: what is wrong, where, and the cure

    @classmethod
    def from_error(cls, error: BadInput) -> Self:
        """The reason and the text of an error."""
        return cls(error.reason, str(error))


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """One video, done or skipped. A verb that returns more of a video adds its fields in a subclass, with defaults."""

    video: str                          # its id; the name of its file where it could not be opened
    frames: int = 0
    skipped: Skipped | None = None

    @classmethod
    def skip(cls, video: str, error: BadInput) -> Self:
        """The outcome of a video in which a user's data got something wrong."""
        return cls(video=video, skipped=Skipped.from_error(error))

    def to_json(self) -> dict[str, Any]:
        """Plain values: video, reason and message of a skipped video; otherwise every field but `skipped`."""
        if self.skipped is not None:
            return {"video": self.video, "reason": self.skipped.reason, "message": self.skipped.message}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "skipped"}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """What `to_json` was called on."""
        if "reason" in row:
            return cls(video=row["video"], skipped=Skipped(row["reason"], row["message"]))
        return cls(**row)


class Outcomes:
    """Collects the outcomes of a verb and counts them on its progress bar."""

    def __init__(self, progress: Progress | None = None, *, counts_only: bool = False) -> None:
        """counts_only: the outcomes of videos that are done are counted and not kept."""
        self.done: list[VideoOutcome] = []
        self.count = 0                      # videos that are done
        self.frames = 0                     # of them
        self.counts_only = counts_only
        self.skipped: list[VideoOutcome] = []
        self._progress = progress

    def add(self, outcomes: Iterable[VideoOutcome]) -> None:
        """Count outcomes that came in together, such as those of one shard."""
        outcomes = list(outcomes)
        done = [outcome for outcome in outcomes if outcome.skipped is None]
        skipped = [outcome for outcome in outcomes if outcome.skipped is not None]
        self.count += len(done)
        self.frames += sum(outcome.frames for outcome in done)
        if not self.counts_only:
            self.done += done
        self.skipped += skipped
        if self._progress is not None:
            self._progress.update(len(done), _reasons(skipped))

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of videos skipped for it."""
        return dict(_reasons(self.skipped))

    def skipped_rows(self) -> list[dict[str, Any]]:
        """Video, reason and message of every skipped video, as plain values."""
        return [outcome.to_json() for outcome in self.skipped]

    def skipped_lines(self) -> list[str]:
        """One line for people about every skipped video."""
        return [f"skipped: {outcome.skipped.message}" for outcome in self.skipped]

    def refuse_nothing_done(self, given: Path | str) -> None:
        """Raise BadInput "no-video", which quotes the first message, when every video of `given` was skipped."""
        if self.skipped and not self.count:
            raise BadInput("no-video", f"none of {len(self.skipped)} videos could be read; the first: "
                           f"{self.skipped[0].skipped.message}", file=given)


def _reasons(skipped: Iterable[VideoOutcome]) -> Counter[str]:
    return Counter(outcome.skipped.reason for outcome in skipped)
