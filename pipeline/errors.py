"""Errors of input data: what is wrong, where, and how to put it right.

A `BadInput` names the video and the file. A verb that works through many videos skips the video, counts it by `reason`
and goes on; under `--strict` it stops.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.printable import printable, printable_lines


class BadInput(ValueError):
    """An error in the user's data.

    reason: a short fixed word for counting, such as "corrupt-image" or "missing-label".
    what:   a sentence that states the problem with the actual values. cure: a sentence that says how to put it right.
    """

    def __init__(self, reason: str, what: str, *, video: str | None = None, file: Path | str | None = None,
                 cure: str = "") -> None:
        self.reason = reason
        self.what = what
        self.video = video
        self.file = file
        self.cure = cure
        where = ", ".join([f"video {video!r}"] * bool(video) + [f"file {printable(str(file))}"] * bool(file))
        super().__init__(printable_lines(" ".join(part for part in (f"{where}:" if where else "", what, cure) if part)))

    def __reduce__(self):   # pickling keeps the fields, which the message alone would lose
        return _restore, (self.reason, self.what, self.video, str(self.file) if self.file else None, self.cure)


class Mismatch(ValueError):
    """Two things that must have the same source do not have it; the message names the difference and the cure."""


def _restore(reason: str, what: str, video: str | None, file: str | None, cure: str) -> BadInput:
    return BadInput(reason, what, video=video, file=file, cure=cure)
