"""The index of a shard set, with one row per stored clip. It can be rebuilt from the tars alone."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadInput
from pipeline.files import atomic_file
from pipeline.shards.format import INDEX, INDEX_SCHEMA, MANIFEST, META, SCHEMA

_REBUILD = "Delete the index; it is rebuilt from the shards."


def index_row(meta: dict, *, key: str, shard: int, members: list[dict]) -> dict:
    """The index row of one stored clip: its `meta.json`, and (name, offset, length, crc32) of its members."""
    return {"key": key, "shard": shard, "members": members,
            **{name: meta[name] for name in ("video_id", "clip_index", "start_frame", "num_frames", "height", "width",
                                             "frame_names", "segments", "overlaps")}}


def save_index(path: Path, rows: Iterable[dict], *, plan: str) -> None:
    """Write rows, which are in the order of the clips in the shards, with the digest of their plan."""
    schema = INDEX_SCHEMA.with_metadata({"schema": str(SCHEMA), "plan": plan})
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_index(path: Path, *, plan: str) -> list[dict]:
    """The rows of an index. Raises BadInput where it is damaged or belongs to another plan than the manifest."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise BadInput("damaged-shard", f"it cannot be read ({error}).", file=path, cure=_REBUILD) from error
    actual = (table.schema.metadata or {}).get(b"plan", b"").decode()
    if actual != plan:
        raise BadInput("damaged-shard", f"it belongs to plan {actual[:16]!r}, but its manifest to {plan[:16]!r}.",
                       file=path, cure=_REBUILD)
    return table.to_pylist()


def rebuild_rows(tar: Path, shard: int) -> list[dict]:
    """The index rows of one shard, read from its tar alone.

    Raises BadInput naming the tar where it is truncated or the meta of a clip is damaged.
    """
    rows = []
    try:
        with tarfile.open(tar) as file:
            for key, infos in groupby(file, key=lambda info: info.name.partition(".")[0]):
                members = []
                content = b""
                for info in infos:
                    content = file.extractfile(info).read()
                    members.append({"name": info.name, "offset": info.offset_data, "length": info.size,
                                    "crc32": zlib.crc32(content)})
                if members[-1]["name"] != f"{key}.{META}":
                    raise ValueError(f"clip {key!r} does not end with its {META}")
                rows.append(index_row(json.loads(content), key=key, shard=shard, members=members))
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise BadInput("damaged-shard", f"the shard cannot be read: {error}.", file=tar,
                       cure="Delete it and run make_shards again.") from error
    return rows


def rows_of_tars(folder: Path, manifest: dict) -> list[dict]:
    """The index rows of all shards in a manifest, read from the tars."""
    return [row for index, shard in enumerate(manifest["shards"])
            for row in rebuild_rows(folder / shard["name"], index)]


def write_index(folder: Path) -> None:
    """Rebuild a lost `index.parquet`, byte for byte, from the tars of a finished shard set."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    save_index(folder / INDEX, rows_of_tars(folder, manifest), plan=manifest["plan"])
