"""All tracks of all videos in one Parquet table, a row a track, with the columns of `track_rows`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from pipeline.exports.tracked_video import TrackedVideo
from pipeline.files import atomic_write

FILE = "tracks.parquet"

MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
SCHEMA = pa.schema([
    ("video", pa.string()), ("result", pa.string()), ("track", pa.int64()), ("class", pa.string()),
    ("category_id", pa.int64()), ("is_thing", pa.bool_()), ("score", pa.float64()),
    ("masks", pa.list_(MASK)),          # one a frame, null where the object is not seen
    ("frames", pa.list_(pa.string())), ("times", pa.list_(pa.float64()))])


def write_track_table(videos: Iterable[TrackedVideo], folder: Path) -> list[Path]:
    """Write one table, a row group a video."""
    sink = pa.BufferOutputStream()
    with parquet.ParquetWriter(sink, SCHEMA) as writer:
        for video in videos:
            writer.write_table(pa.Table.from_pylist(list(video.rows), schema=SCHEMA))
    atomic_write(folder / FILE, sink.getvalue().to_pybytes())
    return [folder / FILE]
