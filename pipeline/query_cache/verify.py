"""Reads a whole query cache again and lists every fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.labels import FIRST_OVERLAP
from pipeline.errors import BadInput, Mismatch
from pipeline.files import sha256_of
from pipeline.foreign_files import own_json
from pipeline.query_cache.cache import (
    MANIFEST_CURE,
    REDO,
    fingerprint,
    refuse_other_part,
    refuse_other_source,
    refuse_other_version,
    refuse_unfit_manifest,
    views_of,
)
from pipeline.query_cache.columns import BLOBS, LISTS, PLAIN, CachedClip, blob_bytes, checksum, to_clip
from pipeline.query_cache.view_table import TABLE

AGAIN = "Delete it and run jobs.cache_queries again: it makes only this part anew."
SHARED = ("queries", "mask_embeddings", "class_logits", "pixel_features", "places", "looks")    # alike in all parts
ARE_FLOATS = (*SHARED, "pixel_weights")


def verify_cache(folder: Path | str, *, expected: Mapping[str, Any] | None = None) -> list[str]:
    """All findings, one sentence each with the file, the place and the cure; an empty list means a sound cache.

    Checks the manifest, its totals and its fingerprint; and of each part the size, the sha256, the fingerprint in it,
    the schema, the views and clips against the manifest, every checksum, and the values of every clip.
    expected: what the cache must have been made from, as for `QueryCache`.
    """
    path = Path(folder) / "manifest.json"
    try:
        manifest = own_json(path, cure=MANIFEST_CURE)
        refuse_other_version(manifest, path)
        refuse_unfit_manifest(manifest, path)
    except FileNotFoundError:
        return [f"{path}: the file is missing; run jobs.cache_queries again: finished parts are kept"]
    except BadInput as error:
        return [f"{path}: {error.what} {error.cure}"]
    except ValueError as error:
        return [str(error)]
    findings = []
    try:
        for finding in _findings(Path(folder), manifest, expected):
            findings.append(finding)
    except (KeyError, TypeError, ValueError) as error:
        findings.append(f"{path}: {error!r} comes from a field that is missing or has a wrong type. {MANIFEST_CURE}")
    return findings


def _findings(folder: Path, manifest: Mapping[str, Any], expected: Mapping[str, Any] | None) -> Iterator[str]:
    path = folder / "manifest.json"
    if expected is not None:
        try:
            refuse_other_source(manifest["made_from"], expected, folder)
        except Mismatch as error:
            yield str(error)
    if fingerprint(manifest["made_from"]) != manifest["fingerprint"]:
        yield (f"{path}: its fingerprint {manifest['fingerprint'][:12]}... is not that of what it was made from. "
               f"{MANIFEST_CURE}")
    parts = manifest["parts"]
    try:
        table = views_of(folder, manifest)
    except BadInput as error:
        yield f"{folder / TABLE}: {error.what} {error.cure}"
        return
    for stray in sorted({file.name for file in folder.glob("*.parquet")} - {part["file"] for part in parts}):
        yield f"{folder / stray}: it is not in the manifest; delete it, or run jobs.cache_queries again"
    sums = {"views": len(table),
            **{name: sum(part[name] for part in parts) for name in ("clips", "bytes")}}
    for name, total in sums.items():
        if total != manifest["totals"][name]:
            yield (f"{path}: the {name} of all parts sum to {total}, but its totals list {manifest['totals'][name]}. "
                   f"{MANIFEST_CURE}")
    for video, view, count in table.repeated():
        yield f"{path}: view {view} of video {video!r} is listed {count} times. {MANIFEST_CURE}"
    shapes: dict[str, str] = {}
    for index, part in enumerate(parts):
        yield from _part_findings(folder / part["file"], part, table.of_part(index), shapes)


def _part_findings(path: Path, part: Mapping[str, Any], views: Sequence[tuple[str, int, int]], shapes: dict[str, str]
                   ) -> Iterator[str]:
    """Findings about one part. views: video, view and clips of each row group that the cache lists. shapes: tensor ->
    its type and channels in the parts before; is extended."""
    if not part["clips"]:       # a shard without a video that could be cached
        if path.exists():
            yield f"{path}: the manifest lists no clip in it. {AGAIN}"
        return
    if not path.is_file():
        yield f"{path}: the file is missing. {REDO}"
        return
    if path.stat().st_size != part["bytes"]:
        yield f"{path}: it has {path.stat().st_size} bytes, but the manifest lists {part['bytes']}. {AGAIN}"
    elif sha256_of(path) != part["sha256"]:
        yield f"{path}: its sha256 differs from that in the manifest. {AGAIN}"
    try:
        refuse_other_part(path, part)
        file = pq.ParquetFile(path)
        tensors = json.loads(file.schema_arrow.metadata[b"tensors"])
    except BadInput as error:
        yield f"{path}: {error.what} {error.cure}"
        return
    except Mismatch as error:
        yield str(error)
        return
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        yield f"{path}: its schema cannot be read ({error}). {AGAIN}"
        return
    wrong = list(_schema_findings(path, file.schema_arrow, tensors, shapes))
    yield from wrong
    if wrong:
        return
    if file.num_row_groups != len(views):
        yield f"{path}: it has {file.num_row_groups} row groups, but the manifest lists {len(views)} views. {AGAIN}"
        return
    for group, listed in enumerate(views):
        yield from _group_findings(path, file, group, listed, tensors)


def _schema_findings(path: Path, schema: pa.Schema, tensors: Mapping[str, Any], shapes: dict[str, str]
                     ) -> Iterator[str]:
    for name in (*PLAIN, *BLOBS, *LISTS, "crc32"):
        if name not in schema.names:
            yield f"{path}: the column {name!r} is missing. {AGAIN}"
        elif name in BLOBS and name not in tensors:
            yield f"{path}: the schema has no shape of {name!r}. {AGAIN}"
    for name, (dtype, shape) in tensors.items():
        needed = pa.binary(blob_bytes(dtype, shape))
        stored = schema.field(name).type if name in schema.names else "no such column"
        if stored != needed:
            yield f"{path}: {name!r} of type {dtype} and shape {shape} needs {needed}, but there is {stored}. {AGAIN}"
        like = f"{dtype} with {shape[-1] if name == 'pixel_features' else shape}"
        if name in SHARED and shapes.setdefault(name, like) != like:
            yield f"{path}: {name!r} is {like}, but {shapes[name]} in the parts before. {AGAIN}"


def _group_findings(path: Path, file: pq.ParquetFile, group: int, listed: Sequence[Any], tensors: Mapping[str, Any]
                    ) -> Iterator[str]:
    """Findings about one view of one video, which the manifest lists as (video, view, clips)."""
    video, view, clips = listed
    place = f"{path}: row group {group}, view {view} of video {video!r}"
    try:
        rows = file.read_row_group(group).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        yield f"{place}: it cannot be read ({error}). {AGAIN}"
        return
    others = {(row["video_id"], row["view"]) for row in rows} - {(video, view)}
    if others:
        yield f"{place}: it holds rows of {sorted(others)}. {AGAIN}"
    if len(rows) != clips:
        yield f"{place}: it has {len(rows)} clips, but the manifest lists {clips}. {AGAIN}"
    if [row["clip_index"] for row in rows] != list(range(len(rows))):
        yield f"{place}: its clips have the numbers {[row['clip_index'] for row in rows][:20]}. {AGAIN}"
    starts = [row["start_frame"] for row in rows]
    ends = [row["start_frame"] + row["num_frames"] for row in rows]
    if starts[1:] != ends[:-1]:
        yield f"{place}: its clips do not follow each other; they start at frames {starts[:20]}. {AGAIN}"
    for row in rows:
        if checksum(row) != row["crc32"]:
            yield f"{place}: clip {row['clip_index']} does not match its checksum. {AGAIN}"
        else:
            yield from (f"{place}: clip {row['clip_index']}: {fault} {AGAIN}"
                        for fault in faults_of(to_clip(row, tensors)))


def faults_of(clip: CachedClip) -> Iterator[str]:
    """What is wrong with the values of a clip, one sentence each."""
    for name in ARE_FLOATS:
        array = getattr(clip, name)
        if array is not None and not np.isfinite(array).all():
            yield f"{name} holds {np.count_nonzero(~np.isfinite(array))} values that are not finite."
    tubes = len(clip.tube_ids)
    if not len(clip.tube_classes) == len(clip.tube_areas) == tubes:
        yield (f"it has {tubes} tubes, but {len(clip.tube_classes)} classes and {len(clip.tube_areas)} areas of them.")
    if len(set(clip.tube_ids.tolist())) != tubes:
        yield "two of its tubes have the same track."
    lowest = FIRST_OVERLAP - len(clip.tube_overlaps) + 1
    drawn = clip.pixel_tubes
    if drawn.size and not lowest <= drawn.min() <= drawn.max() < tubes:
        yield f"its pixels lie in tubes from {drawn.min()} to {drawn.max()}, but it has {lowest} to {tubes - 1}."
    if any(not 0 <= tube < tubes for members in clip.tube_overlaps for tube in members):
        yield f"its overlaps {clip.tube_overlaps} name tubes outside of its {tubes}."
    if (clip.pixel_weights < 0).any():
        yield f"a pixel has the weight {clip.pixel_weights.min()}."
    if (clip.tube_areas < 0).any():
        yield f"a tube has the area {clip.tube_areas.min()}."
    if clip.num_frames < 1 or clip.start_frame < 0:
        yield f"it starts at frame {clip.start_frame} and has {clip.num_frames} frames."
