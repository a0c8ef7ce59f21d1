"""The views that a query cache holds, as columns: one row for each view of each video, sorted by video and view.

The table lies beside the manifest as an Arrow file, which is mapped into memory. The manifest holds its sha256.
Manifests of earlier versions list the views of every part instead.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.arrow_columns import as_numpy
from pipeline.arrow_files import open_plain
from pipeline.digests import known_sha256
from pipeline.errors import BadInput
from pipeline.files import atomic_write, sha256_of
from pipeline.foreign_files import open_regular

TABLE = "views.arrow"
TABLE_CURE = "Run jobs.cache_queries again: finished parts are kept."
_SCHEMA = pa.schema([("video", pa.string()), *((name, pa.int32()) for name in (
    "view", "part", "group", "clips", "frames", "full"))])


class ViewTable(Sequence[tuple[str, int, int, int, int]]):
    """(video, view, part, row group, clips) of every view; and the columns.

    Columns, one value for each view: `view`, `part`, `group` (row group of the part), `clips`, `frames` (of the video,
    up to the last clip) and `full` (clips without a repeated frame).
    """

    def __init__(self, rows: pa.RecordBatch, *, lengths: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
                 ) -> None:
        """rows: may lack `frames` and `full`; `lengths` then returns them."""
        self._rows = rows
        self._lengths = lengths
        self.view, self.part, self.group, self.clips = (as_numpy(rows[name])
                                                        for name in ("view", "part", "group", "clips"))

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]], **lengths) -> ViewTable:
        """Rows in any order, sorted here."""
        schema = pa.schema([field for field in _SCHEMA if field.name in columns])
        rows = pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in ("video", "view", "part", "group")])
        return cls(rows.take(order), **lengths)

    def __len__(self) -> int:
        return self._rows.num_rows

    def __getitem__(self, index: int) -> tuple[str, int, int, int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"view {index} of {len(self)}")
        return (self.video(index), int(self.view[index]), int(self.part[index]), int(self.group[index]),
                int(self.clips[index]))

    def video(self, index: int) -> str:
        """The video of a view."""
        return self._rows["video"][index].as_py()

    @cached_property
    def starts(self) -> np.ndarray:
        """The first view of every video, and at the end the number of views."""
        videos = self._rows["video"]
        firsts = np.flatnonzero(as_numpy(pc.not_equal(videos[1:], videos[:-1]))) + 1
        return np.concatenate([[0][:len(self)], firsts, [len(self)]]).astype(np.int64)

    @property
    def videos(self) -> Videos:
        """The videos, each with its views."""
        return Videos(self)

    @cached_property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """`frames` and `full`."""
        return self._lengths() if self._lengths else (as_numpy(self._rows["frames"]), as_numpy(self._rows["full"]))

    @property
    def frames(self) -> np.ndarray:
        """Of each view: the frames of the video up to its last clip."""
        return self.lengths[0]

    @property
    def full(self) -> np.ndarray:
        """Of each view: its clips without a repeated frame."""
        return self.lengths[1]

    def repeated(self) -> Iterator[tuple[str, int, int]]:
        """(video, view, times) of the views that are listed more than once."""
        videos = self._rows["video"]
        same = np.flatnonzero(as_numpy(pc.equal(videos[1:], videos[:-1]))
                              & (self.view[1:] == self.view[:-1]))
        for index in same.tolist():
            if index == 0 or self[index - 1][:2] != self[index][:2]:
                yield *self[index][:2], sum(row[:2] == self[index][:2] for row in self.of_video(index))

    def of_video(self, index: int) -> list[tuple[str, int, int, int, int]]:
        """All views of the video of a view."""
        position = int(np.searchsorted(self.starts, index, side="right")) - 1
        return [self[view] for view in range(self.starts[position], self.starts[position + 1])]

    def of_part(self, part: int) -> list[tuple[str, int, int]]:
        """(video, view, clips) of each row group of a part, in their order."""
        views = np.flatnonzero(self.part == part)
        views = views[np.argsort(self.group[views], kind="stable")]
        return [(video, view, clips) for video, view, _, _, clips in map(self.__getitem__, views.tolist())]

    def save(self, path: Path) -> dict[str, Any]:
        """Write the table; returns what the manifest holds of it."""
        content = pa.BufferOutputStream()
        with pa.ipc.new_file(content, _SCHEMA) as writer:
            writer.write_batch(self._rows)
        atomic_write(path, content.getvalue().to_pybytes())     # which accepts a finished one that is read-only
        return {"file": path.name, "sha256": sha256_of(path), "rows": len(self)}


@dataclass(frozen=True, slots=True)
class Videos(Mapping[str, list[int]]):
    """Video -> positions of its views in the table, the test-time view first."""

    table: ViewTable

    def __len__(self) -> int:
        return len(self.table.starts) - 1

    def __iter__(self) -> Iterator[str]:
        return (self.table.video(index) for index in self.table.starts[:-1].tolist())

    def __getitem__(self, video: str) -> list[int]:
        starts = self.table.starts
        position = bisect_left(range(len(self)), video, key=lambda position: self.table.video(int(starts[position])))
        if position == len(self) or self.table.video(int(starts[position])) != video:
            raise KeyError(video)
        return list(range(starts[position], starts[position + 1]))


def read_table(path: Path, listed: Mapping[str, Any]) -> ViewTable:
    """The table of a cache. listed: what the manifest holds of it. Raises BadInput, which names the file, for any other
    content."""
    try:
        if (actual := known_sha256(path)) != listed["sha256"]:
            raise BadInput("corrupt-cache", f"its checksum, the sha256, is {actual[:12]}..., but the manifest lists "
                           f"{listed['sha256'][:12]}...", file=path, cure=TABLE_CURE)
        with open_regular(path) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = open_plain(content).get_batch(0)
    except BadInput:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput("corrupt-cache", f"it cannot be read ({error}).", file=path, cure=TABLE_CURE) from error
    if not rows.schema.equals(_SCHEMA):
        raise BadInput("corrupt-cache", "it has other columns than a table of views.", file=path, cure=TABLE_CURE)
    return ViewTable(rows)


def listed_views(parts: Sequence[Mapping[str, Any]], **lengths) -> ViewTable:
    """The table of a manifest of an earlier version, whose parts list their views."""
    rows = [(video, view, part, group, clips) for part, entry in enumerate(parts)
            for group, (video, view, clips) in enumerate(entry["groups"])]
    return ViewTable.from_columns({name: [row[place] for row in rows] for place, name in enumerate(
        ("video", "view", "part", "group", "clips"))}, **lengths)


def lengths_of(file: pq.ParquetFile, clips: Iterable[int], *, clip_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """`frames` and `full` of the row groups of a part. clips: of each, at least one."""
    table = file.read(["start_frame", "num_frames"])
    frames = as_numpy(table["num_frames"]).astype(np.int64)
    ends = as_numpy(table["start_frame"]) + frames
    starts = np.cumsum([0, *clips])[:-1]
    if not len(starts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.maximum.reduceat(ends, starts), np.add.reduceat((frames == clip_frames).astype(np.int64), starts)
