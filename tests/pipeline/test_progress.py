"""The status line says what was done, what was skipped and why, and what is left."""

from __future__ import annotations

import logging

from pipeline.progress import Progress


def test_the_line_counts_done_and_skipped_by_reason(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    with Progress("sharding", 10, every=1e9) as progress:
        progress.done = 4
        progress.skipped["corrupt-image"] = 1
        assert progress.line() == ("sharding 5/10 videos | done 4 | skipped 1 (1 corrupt-image) | 0.5 videos/s | "
                                   "left 10 s")
        monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: 20.0)


def test_lines_come_at_most_every_so_often_and_once_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    with Progress("sharding", 3, every=3600) as progress:
        for _ in range(3):
            progress.update(1)
    assert len(caplog.records) == 1
    caplog.clear()
    with Progress("sharding", 3, every=0) as progress:
        for _ in range(3):
            progress.update(1, {})
    assert len(caplog.records) == 4
