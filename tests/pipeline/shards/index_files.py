"""Index files with other rows, whose checksums are right, those of an earlier version, and videos without a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.format import EARLIER_INDEX, INDEX, ROW_SCHEMA
from pipeline.shards.index import index_file, read_index, tars_digest
from pipeline.shards.manifest import read_manifest


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of an index."""
    return [row for batch in read_index(folder / INDEX, read_manifest(folder)[0]) for row in batch.rows(0, len(batch))]


def change_rows(folder: Path, change: Callable[[list[dict]], list[dict] | None]) -> None:
    """Write the index again with changed rows; it keeps its plan and its tars."""
    manifest, _ = read_manifest(folder)
    rows = rows_of(folder)
    rows = change(rows) or rows
    first, *others = manifest["shards"]
    with index_file(folder / INDEX, plan=manifest["plan"]) as index:
        index.add(rows, sha256=first["sha256"])
        for shard in others:
            index.add([], sha256=shard["sha256"])


def as_earlier_version(folder: Path, *, facts: Mapping[str, str] | None = None) -> Path:
    """Replace the index by one that an earlier version wrote; returns its path. facts: in place of its own."""
    manifest, _ = read_manifest(folder)
    facts = facts or {"schema": "2", "plan": manifest["plan"], "tars": tars_digest(manifest["shards"])}
    table = pa.Table.from_pylist(rows_of(folder), schema=ROW_SCHEMA.with_metadata(facts))
    pq.write_table(table, folder / EARLIER_INDEX, compression="zstd", write_page_checksum=True)
    (folder / INDEX).unlink()
    return folder / EARLIER_INDEX


class HeldVideos(list):
    """Videos that a test made, with the columns of `StoredVideos`."""

    @property
    def frames(self) -> np.ndarray:
        """Of each video: the number of its frames."""
        return np.array([len(video.frames) for video in self])

    @property
    def labels(self) -> np.ndarray:
        """Of each video: the number of its frames that have an id map."""
        return np.array([len(video.labelled) for video in self])

    @property
    def objects(self) -> np.ndarray:
        """Of each video: the number of its segments."""
        return np.array([len(video.segments) for video in self])
