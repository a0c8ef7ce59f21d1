"""Read a whole shard set again and say everything that is wrong with it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.images import decode_jpeg, decode_png
from pipeline.shards.format import INDEX, MANIFEST, META, SCHEMA, video_of_key
from pipeline.shards.index import read_index, rebuild_rows


def verify(folder: Path | str) -> list[str]:
    """All findings, one sentence each with file and place; an empty list means the set is sound.

    Looks at every byte: sha256 of each tar, order and adjacency of its members, index against tar, checksums, every
    JPEG and id map decoded, ids against the segment table, counts against the manifest.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return [f"{folder / MANIFEST}: cannot be read ({error}); run make_shards again"]
    if manifest.get("schema") != SCHEMA:
        return [f"{folder / MANIFEST}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}"]
    findings, indexed = _index_findings(folder, manifest)
    for number, shard in enumerate(manifest["shards"]):
        findings += _shard_findings(folder / shard["name"], shard, number, indexed)
    return findings + _total_findings(folder, manifest)
