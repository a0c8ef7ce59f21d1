"""The index of a shard set, with one row per stored clip. It can be rebuilt from the tars alone."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadInput
from pipeline.files import atomic_file, digest
from pipeline.foreign_files import open_regular, parse_json
from pipeline.picture_headers import LARGEST
from pipeline.shards.format import INDEX, INDEX_SCHEMA, META, SCHEMA
from pipeline.shards.manifest import read_manifest

_REBUILD = "Delete the index; it is rebuilt from the shards."


def index_row(meta: dict, *, key: str, shard: int, members: list[dict]) -> dict:
    """The index row of one stored clip: its `meta.json`, and (name, offset, length, crc32) of its members."""
    return {"key": key, "shard": shard, "members": members,
            **{name: meta[name] for name in ("video_id", "clip_index", "start_frame", "num_frames", "height", "width",
                                             "frame_names", "segments", "overlaps")}}


def save_index(path: Path, rows: Iterable[dict], *, plan: str, tars: str) -> None:
    """Write rows, which are in the order of the clips in the shards, with the digests of their plan and their tars."""
    schema = INDEX_SCHEMA.with_metadata({"schema": str(SCHEMA), "plan": plan, "tars": tars})
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def tars_digest(shards: Iterable[Mapping[str, Any]]) -> str:
    """Digest of the content of the tars, from the rows of a manifest: it tells which tars an index is of."""
    return digest([shard.get("sha256") for shard in shards])


def read_index(path: Path, manifest: Mapping[str, Any]) -> list[dict]:
    """The rows of the index of a set.

    Raises BadInput where it is damaged, has more rows than the manifest has clips or other columns, or belongs to other
    tars or another plan. (The index of an earlier version names no tars.)
    """
    most = sum(shard["clips"] for shard in manifest["shards"])
    try:
        with open_regular(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if parquet.metadata.num_rows > most or not parquet.schema_arrow.equals(INDEX_SCHEMA):
                raise BadInput("damaged-shard", f"it has {parquet.metadata.num_rows} rows or other columns than an "
                               f"index, but its manifest lists {most} clips.", file=path, cure=_REBUILD)
            table = parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput("damaged-shard", f"it cannot be read ({error}).", file=path, cure=_REBUILD) from error
    found = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    expected = {"plan": manifest["plan"], "tars": tars_digest(manifest["shards"])}
    for name, value in expected.items():
        actual = found.get(name, value if name == "tars" else "")
        if actual != value:
            raise BadInput("damaged-shard", f"it belongs to {name} {actual[:16]!r}, but its manifest to "
                           f"{value[:16]!r}.", file=path, cure=_REBUILD)
    return table.to_pylist()


def refuse_unfit_rows(rows: Iterable[dict], manifest: dict, path: Path) -> None:
    """Raise BadInput "damaged-shard" for rows with places outside of their tar, or sizes that no picture has."""
    sizes = [shard["size"] for shard in manifest["shards"]]
    for row in rows:
        places = row["members"] or ()
        known = row["shard"] is not None and 0 <= row["shard"] < len(sizes)
        if not known or any(None in place.values() or place["offset"] < 0 or place["length"] < 0 or
                            place["offset"] + place["length"] > sizes[row["shard"]] for place in places):
            raise BadInput("damaged-shard", f"clip {row['key']!r} lists places outside of its shard.", file=path,
                           cure=_REBUILD)
        images = sum(place["name"].endswith(".jpg") for place in places)
        if None in row.values() or not places or images != len(row["frame_names"]) or not row["video_id"] or \
                min(row["height"], row["width"]) < 1 or row["height"] * row["width"] > LARGEST:
            raise BadInput("damaged-shard", f"clip {row['key']!r} has {images} frames of {row['width']}x"
                           f"{row['height']} pixels and other values that do not fit.", file=path, cure=_REBUILD)


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
    manifest, _ = read_manifest(folder)
    save_index(folder / INDEX, rows_of_tars(folder, manifest), plan=manifest["plan"],
               tars=tars_digest(manifest["shards"]))
