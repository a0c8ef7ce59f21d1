"""A chain of many rows has no more blocks than the driver can hold."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline import streams


@pytest.mark.parametrize(("rows", "blocks"), [(3, 3), (streams.MOST_BLOCKS, streams.MOST_BLOCKS),
                                              (10 * streams.MOST_BLOCKS, streams.MOST_BLOCKS)])
def test_few_rows_are_tasks_of_their_own_and_many_share_them(monkeypatch, rows, blocks):
    asked = []

    def from_items(items, *, override_num_blocks):
        asked.append((len(items), override_num_blocks))
        return SimpleNamespace(context=SimpleNamespace())

    monkeypatch.setattr(streams.ray.data, "from_items", from_items)
    streams._one_task_per_row([{"video": video} for video in range(rows)])
    assert asked == [(rows, blocks)]
