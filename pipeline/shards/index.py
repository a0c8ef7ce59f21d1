"""The index of a shard set, with one row per stored clip. It can be rebuilt from the tars alone.

It is an Arrow file of batches, which is mapped into memory: opening it costs nothing for each clip. A batch holds the
rows of whole shards. Its metadata names those shards, the digest of their tars, and the crc32 of every column; no value
is used before the crc32 of its column was compared. Earlier versions wrote Parquet, which is read into memory.
"""

from __future__ import annotations

import json
import mmap
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from isal import isal_zlib

from pipeline.arrow_columns import as_numpy
from pipeline.arrow_files import open_plain
from pipeline.errors import BadInput
from pipeline.files import atomic_file, canonical_json, digest
from pipeline.foreign_files import open_regular, parse_json
from pipeline.shards.format import EARLIER_INDEX, INDEX, INDEX_SCHEMA, INDEX_VERSION, META, ROW_SCHEMA
from pipeline.shards.manifest import read_manifest

BATCH_FRAMES = 2**15            # after which a batch ends, at the end of a shard
BATCH_ROWS = 2**10              # of an index of an earlier version, which are unpacked at a time
MOST_VALUES = 2**27             # of a column of a part of such an index
LARGEST_EARLIER_INDEX = 2**32   # bytes in memory
REBUILD = "Delete the index; it is rebuilt from the shards."


class IndexBatch:
    """The rows of some shards. A column is compared with its checksum before it is used first."""

    def __init__(self, rows: pa.RecordBatch, path: Path, *, checksums: Mapping[str, int] | None = None,
                 mapped: mmap.mmap | None = None, cure: str = REBUILD) -> None:
        """checksums: crc32 of every column; None where the rows come from a file with checks of its own. mapped: the
        file, where it is mapped into memory."""
        self.path = path
        self.cure = cure
        self._rows = rows
        self._checksums = checksums
        self._mapped = mapped
        self._checked: set[str] = set()

    def __len__(self) -> int:
        return self._rows.num_rows

    def column(self, name: str) -> pa.Array:
        """One column. Raises BadInput "damaged-shard" where it is not as it was written, or a value is missing."""
        column = self._rows.column(name)
        if name not in self._checked:
            if self._checksums is not None and self._checksums.get(name) != _crc32(column):
                raise self.damaged(f"the checksum of its column {name!r} is wrong.")
            try:
                column.validate(full=True)
            except (pa.ArrowException, ValueError) as error:
                raise self.damaged(f"its column {name!r} cannot be read ({error}).") from None
            if column.null_count:
                raise self.damaged(f"its column {name!r} lacks {column.null_count} values.")
            self._checked.add(name)
        return column

    def numbers(self, name: str) -> np.ndarray:
        """One column of numbers."""
        return as_numpy(self.column(name))

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Some rows as plain values."""
        for name in INDEX_SCHEMA.names:
            self.column(name)
        return self._rows.select(ROW_SCHEMA.names).slice(start, stop - start).to_pylist()

    def release(self) -> None:
        """Give the memory of the file back to the system, which has the pages at hand when they are needed again."""
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def damaged(self, what: str) -> BadInput:
        """The error for rows that are not as they were written."""
        return BadInput("damaged-shard", what, file=self.path, cure=self.cure)


class IndexWriter:
    """Writes the rows of shard after shard; holds those of one batch."""

    def __init__(self, file: IO[bytes], *, plan: str) -> None:
        self.plan = plan
        self._writer = pa.ipc.new_file(file, INDEX_SCHEMA)
        self._rows: list[dict] = []
        self._frames = 0
        self._tars: list[str | None] = []       # sha256 of the tars in the batch
        self._first = 0                         # shard of the batch

    def add(self, rows: Sequence[dict], *, sha256: str | None) -> None:
        """Append the rows of the next shard, whose tar has this sha256."""
        self._rows += rows
        self._frames += sum(row["num_frames"] for row in rows)
        self._tars.append(sha256)
        if self._frames >= BATCH_FRAMES:
            self._write()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._tars:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        batch = batch_of(self._rows)
        stored = pa.ipc.read_record_batch(batch.serialize(), INDEX_SCHEMA)      # with the buffers as a file has them
        checksums = {name: _crc32(stored.column(name)) for name in INDEX_SCHEMA.names}
        facts = {"schema": INDEX_VERSION, "plan": self.plan, "tars": digest(self._tars), "crc32": checksums,
                 "shards": [self._first, self._first + len(self._tars)]}
        self._writer.write_batch(batch, custom_metadata={"facts": canonical_json(facts)})
        self._first += len(self._tars)
        self._rows = []
        self._frames = 0
        self._tars = []


@contextmanager
def index_file(path: Path, *, plan: str) -> Iterator[IndexWriter]:
    """The writer of an index that appears as `path` when the block ends without an error."""
    with atomic_file(path) as file:
        writer = IndexWriter(file, plan=plan)
        yield writer
        writer.close()


def index_row(meta: dict, *, key: str, shard: int, members: list[dict]) -> dict:
    """The index row of one stored clip: its `meta.json`, and (name, offset, length, crc32) of its members."""
    return {"key": key, "shard": shard, "members": members,
            **{name: meta[name] for name in ("video_id", "clip_index", "start_frame", "num_frames", "height", "width",
                                             "frame_names", "segments", "overlaps")}}


def batch_of(rows: Sequence[dict]) -> pa.RecordBatch:
    """Rows as a batch of the index."""
    return with_counts(pa.RecordBatch.from_arrays([_array([row[field.name] for row in rows], field.type)
                                                   for field in ROW_SCHEMA], schema=ROW_SCHEMA))


def with_counts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of a batch of rows, and those that count the labels and the objects of each clip."""
    others = pc.add(batch["num_frames"], pa.scalar(1, pa.int32()))      # members: the images and the description
    columns = {**dict(zip(ROW_SCHEMA.names, batch.columns)),
               "labels": pc.subtract(pc.list_value_length(batch["members"]), others),
               "objects": pc.list_value_length(batch["segments"])}
    return pa.RecordBatch.from_arrays([columns[name] for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA)


def index_path(folder: Path) -> Path:
    """The index of a set, which an earlier version may have written."""
    earlier = folder / EARLIER_INDEX
    return earlier if earlier.exists() and not (folder / INDEX).exists() else folder / INDEX


def read_index(path: Path, manifest: Mapping[str, Any]) -> list[IndexBatch]:
    """The batches of the index of a set, mapped into memory.

    Raises BadInput where it cannot be read, has more rows than the manifest has clips, or belongs to other tars or
    another plan. Damage inside of a column is found when the column is used.
    """
    if path.name == EARLIER_INDEX:
        return _read_earlier_index(path, manifest)
    try:
        with open_regular(path) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = open_plain(content)
        if not reader.schema.equals(INDEX_SCHEMA):
            raise damaged(path, "it has other columns than an index.")
        batches = []
        for index in range(reader.num_record_batches):
            rows, metadata = reader.get_batch_with_custom_metadata(index)
            facts = json.loads((metadata or {}).get(b"facts", b""))
            refuse_other_tars(path, facts, manifest)
            batches.append((IndexBatch(rows, path, checksums=facts["crc32"], mapped=content), facts["shards"]))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise damaged(path, f"it cannot be read ({error}).") from error
    stops = [stop for _, (_, stop) in batches]
    if [start for _, (start, _) in batches] != [0, *stops[:-1]] or stops[-1:] != [len(manifest["shards"])]:
        raise damaged(path, f"its parts hold other shards than {len(manifest['shards'])} one after another.")
    refuse_more_rows(path, sum(len(batch) for batch, _ in batches), manifest)
    return [batch for batch, _ in batches]


def refuse_other_tars(path: Path, facts: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Raise BadInput for rows of another plan, or of other tars, than the manifest lists."""
    start, stop = facts["shards"]
    for name, expected in (("plan", manifest["plan"]), ("tars", tars_digest(manifest["shards"][start:stop]))):
        if facts[name] != expected:
            raise damaged(path, f"it belongs to {name} {facts[name][:16]!r}, but its manifest to {expected[:16]!r}.")


def _read_earlier_index(path: Path, manifest: Mapping[str, Any]) -> list[IndexBatch]:
    """The index of a set that an earlier version wrote, in one batch. Raises BadInput as `read_index` does.

    It names its plan, and those of later versions their tars.
    """
    try:
        with open_regular(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if not parquet.schema_arrow.equals(ROW_SCHEMA):
                raise damaged(path, "it has other columns than an index.")
            refuse_more_rows(path, parquet.metadata.num_rows, manifest)
            table = bounded_table(parquet, path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"it cannot be read ({error}).") from error
    facts = {"tars": tars_digest(manifest["shards"]), "plan": "",
             **{name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}}
    refuse_other_tars(path, {**facts, "shards": (0, len(manifest["shards"]))}, manifest)
    batches = table.select(ROW_SCHEMA.names).combine_chunks().to_batches() or [batch_of([])]
    return [IndexBatch(with_counts(batch), path) for batch in batches]


def bounded_table(parquet: pq.ParquetFile, path: Path) -> pa.Table:
    """All rows. Raises BadInput for a file that claims, or unpacks to, more than an index has: values that repeat take
    no room in it."""
    groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
    values = max((group.column(column).num_values for group in groups for column in range(group.num_columns)),
                 default=0)
    batches = []
    left = LARGEST_EARLIER_INDEX if values <= MOST_VALUES else -1
    for batch in parquet.iter_batches(batch_size=BATCH_ROWS) if left > 0 else ():
        batches.append(batch)
        left -= batch.nbytes
        if left < 0:
            break
    if left < 0:
        raise damaged(path, "it unpacks to more than an index has.")
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def refuse_more_rows(path: Path, rows: int, manifest: Mapping[str, Any]) -> None:
    """Raise BadInput where an index has more rows than its manifest has clips."""
    most = sum(shard["clips"] for shard in manifest["shards"])
    if rows > most:
        raise damaged(path, f"it has {rows} rows, but its manifest lists {most} clips.")


def tars_digest(shards: Iterable[Mapping[str, Any]]) -> str:
    """Digest of the content of the tars, from the rows of a manifest: it tells which tars an index is of."""
    return digest([shard.get("sha256") for shard in shards])


def damaged(path: Path, what: str) -> BadInput:
    """The error of an index that is not as it was written."""
    return BadInput("damaged-shard", what, file=path, cure=REBUILD)


def rebuild_rows(tar: Path, shard: int) -> list[dict]:
    """The index rows of one shard, read from its tar alone.

    Raises BadInput naming the tar where it is truncated or the meta of a clip is damaged.
    """
    rows = []
    try:
        with open_regular(tar) as opened, tarfile.open(fileobj=opened, mode="r:") as file:
            for key, infos in groupby(file, key=lambda info: info.name.partition(".")[0]):
                members = []
                content = b""
                for info in infos:
                    if not info.isreg() or info.issparse() or info.size > tar.stat().st_size:
                        raise ValueError(f"its member {info.name[:80]!r} is no plain file inside the shard")
                    content = file.extractfile(info).read()
                    members.append({"name": info.name, "offset": info.offset_data, "length": info.size,
                                    "crc32": zlib.crc32(content)})
                if members[-1]["name"] != f"{key}.{META}":
                    raise ValueError(f"clip {key!r} does not end with its {META}")
                rows.append(index_row(parse_json(content), key=key, shard=shard, members=members))
        batch_of(rows)          # which takes no value of another kind than an index has
    except (tarfile.TarError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput("damaged-shard", f"the shard cannot be read: {error}.", file=tar,
                       cure="Delete it and run make_shards again.") from error
    return rows


def batches_of_tars(folder: Path, manifest: Mapping[str, Any]) -> list[IndexBatch]:
    """The index of a set that has lost it, read from the tars; one batch for each shard."""
    return [IndexBatch(batch_of(rebuild_rows(folder / shard["name"], index)), folder / shard["name"],
                       cure="Delete it and run make_shards again.") for index, shard in enumerate(manifest["shards"])]


def write_index(folder: Path) -> None:
    """Rebuild a lost `index.arrow`, byte for byte, from the tars of a finished shard set."""
    manifest, _ = read_manifest(folder)
    with index_file(folder / INDEX, plan=manifest["plan"]) as index:
        for position, shard in enumerate(manifest["shards"]):
            index.add(rebuild_rows(folder / shard["name"], position), sha256=shard.get("sha256"))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values as an array; lists of objects field by field, which is ten times faster than object by object."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = pa.array(np.cumsum([0, *map(len, values)]), pa.int32())
    items = list(chain.from_iterable(values))
    return pa.ListArray.from_arrays(offsets, _items(items, kind.value_type), type=kind)


def _items(items: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(kind):
        return _array(items, kind)
    return pa.StructArray.from_arrays([_array([item[field.name] for item in items], field.type) for field in kind],
                                      fields=list(kind))


def _crc32(column: pa.Array) -> int:
    value = 0
    for buffer in column.buffers():
        value = isal_zlib.crc32(buffer if buffer is not None else b"", value)
    return value
