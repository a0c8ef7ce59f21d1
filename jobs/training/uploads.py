"""Work that goes on beside the training, one piece at a time, such as the upload of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Uploads:
    """A thread for one piece of work. What a piece raises is raised by `wait`, which comes before the next one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def begin(self, piece: Callable[[], None]) -> None:
        """Begin a piece of work, after the one before has ended."""
        self.wait()
        self._last = self._thread.submit(piece)

    def wait(self) -> None:
        """Wait until nothing is left to do."""
        if (last := self._last) is not None:
            self._last = None
            last.result()
