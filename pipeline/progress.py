"""The progress of a verb through many videos: a bar on a terminal, and otherwise a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """Counts videos that are done or skipped, and shows the rate and the time left. Use it as a context manager.

    every: seconds between two log lines.
    """

    def __init__(self, verb: str, total: int, *, unit: str = "videos", every: float = 10.0) -> None:
        self.verb = verb
        self.total = total
        self.unit = unit
        self.every = every
        self.done = 0
        self.skipped = Counter()
        self._bar = tqdm(desc=verb, total=total, unit=f" {unit}") if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        self._last_line = self.started
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()
        log.info(self.line())

    def update(self, done: int, skipped: Mapping[str, int] | None = None) -> None:
        """Count videos that are done, and skipped videos by reason."""
        self.done += done
        self.skipped.update(skipped or {})
        if self._bar is not None:
            self._bar.set_postfix(self.skipped, refresh=False)
            self._bar.update(done + sum((skipped or {}).values()))
        elif time.monotonic() - self._last_line >= self.every:
            self._last_line = time.monotonic()
            log.info(self.line())

    def line(self) -> str:
        """The status as one line."""
        seen = self.done + self.skipped.total()
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = (self.total - seen) * seconds / seen if seen else float("nan")
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return (f"{self.verb} {seen}/{self.total} {self.unit} | done {self.done} | skipped {self.skipped.total()}"
                f"{f' ({reasons})' if reasons else ''} | {seen / seconds:.1f} {self.unit}/s | "
                f"left {f'{left:.0f} s' if seen else 'unknown'}")
