"""Reads a whole shard set again and lists every fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.errors import BadInput
from pipeline.files import digest, sha256_of
from pipeline.foreign_files import LARGEST_JSON, open_regular, own_json, parse_json, read_file
from pipeline.images import decode_jpeg
from pipeline.shards.format import MANIFEST, META, PLAN, SCHEMAS, clip_key
from pipeline.shards.index import index_path, read_index, rebuild_rows
from pipeline.shards.label_png import decode_label
from pipeline.shards.manifest import refuse_unfit_manifest
from pipeline.shards.videos import StoredVideos


def verify(folder: Path | str) -> list[str]:
    """All findings, one sentence each with the file and the place; an empty list means that the set is sound.

    Checks every byte: sha256 of each tar, order and adjacency of its members, index and checksums against the tar,
    every JPEG and id map by decoding, ids against the segment table, counts and plan against the manifest.
    """
    folder = Path(folder)
    try:
        manifest = parse_json(read_file(folder / MANIFEST, largest=LARGEST_JSON))
    except (OSError, ValueError) as error:
        return [f"{folder / MANIFEST}: cannot be read ({error}); run make_shards again"]
    if isinstance(manifest, dict) and manifest.get("schema") not in SCHEMAS:
        return [f"{folder / MANIFEST}: it has schema {manifest.get('schema')!r}, but this version reads "
                f"{' and '.join(map(str, SCHEMAS))}; make the shards again"]
    try:
        refuse_unfit_manifest(manifest, folder / MANIFEST)
    except BadInput as error:
        return [f"{folder / MANIFEST}: {error.what} {error.cure}"]
    findings = []
    try:
        for finding in _findings(folder, manifest):
            findings.append(finding)
    except (KeyError, TypeError) as error:
        findings.append(f"{folder / MANIFEST}: {error} is missing or has a wrong type; delete it and run make_shards "
                        "again")
    return findings


def _findings(folder: Path, manifest: dict) -> Iterator[str]:
    listed = {shard["name"] for shard in manifest["shards"]}
    for stray in sorted({path.name for path in folder.glob("*.tar")} - listed):
        yield f"{folder / stray}: it is not in the manifest; delete it"
    yield from _plan_findings(folder, manifest)
    videos = None
    path = index_path(folder)
    try:
        videos = StoredVideos(read_index(path, manifest), manifest)
    except BadInput as error:
        yield f"{path}: {error.what} write_index(folder) rebuilds it"
    classes = len(manifest["categories"]["classes"])
    for position, shard in enumerate(manifest["shards"]):
        rows = None
        try:
            rows = None if videos is None else videos.rows_of_shard(position)
        except BadInput as error:
            yield f"{path}: {error.what} write_index(folder) rebuilds it"
        yield from _shard_findings(folder / shard["name"], shard, position, rows, classes)
    for name in ("videos", "clips", "frames", "size"):
        if (total := sum(shard[name] for shard in manifest["shards"])) != manifest["totals"][name]:
            yield (f"{folder / MANIFEST}: the {name} of all shards sum to {total}, but its totals list "
                   f"{manifest['totals'][name]}")


def _plan_findings(folder: Path, manifest: dict) -> Iterator[str]:
    """Differences between the manifest and the plan, which a copy of a set may lack."""
    if not (folder / PLAN).exists():
        return
    try:
        plan = own_json(folder / PLAN, cure="")
    except (OSError, ValueError) as error:
        yield f"{folder / PLAN}: cannot be read ({error}); delete it and run make_shards again"
        return
    if digest(plan) != manifest["plan"]:
        yield f"{folder / PLAN}: it is another plan than that of the manifest; delete both and run make_shards again"
    for name in ("split", "categories", "config"):
        if plan.get(name) != manifest[name]:
            yield (f"{folder / MANIFEST}: its field {name!r} differs from that of {PLAN}; delete it and run "
                   "make_shards again")


def _shard_findings(path: Path, shard: dict, position: int, indexed: list[dict] | None, classes: int) -> Iterator[str]:
    if not path.is_file():
        yield f"{path}: the file is missing; run make_shards again"
        return
    if path.stat().st_size != shard["size"]:
        yield f"{path}: it has {path.stat().st_size} bytes, but the manifest lists {shard['size']}"
    elif sha256_of(path) != shard["sha256"]:
        yield f"{path}: its sha256 differs from that in the manifest"
    try:
        rows = rebuild_rows(path, position)
    except BadInput as error:
        yield f"{path}: {error.what} {error.cure}"
        return
    yield from _order_findings(path, rows)
    if indexed is not None:
        yield from _index_findings(path, rows, indexed)
    counts = {"clips": len(rows), "videos": len({row["video_id"] for row in rows}),
              "frames": sum(row["num_frames"] for row in rows)}
    for name, count in counts.items():
        if count != shard[name]:
            yield f"{path}: it has {count} {name}, but the manifest lists {shard[name]}"
    with open_regular(path) as tar:
        for row in rows:
            try:
                yield from _clip_findings(path, tar, row, classes)
            except (KeyError, TypeError) as error:
                yield f"{path}: in {META} of clip {row['key']!r} {error} is missing or has a wrong type"


def _order_findings(path: Path, rows: list[dict]) -> Iterator[str]:
    for key, count in Counter(row["key"] for row in rows).items():
        if count > 1:
            yield f"{path}: clip {key!r} lies in {count} pieces, which WebDataset would read as several clips"
    for video_id, clips in groupby(rows, key=lambda row: row["video_id"]):
        frame = 0
        for index, clip in enumerate(clips):
            if (clip["clip_index"], clip["start_frame"]) != (index, frame):
                yield f"{path}: clip {clip['key']!r} of video {video_id!r} is out of order, or one before it is missing"
            if clip["key"] != clip_key(video_id, clip["clip_index"]):
                yield f"{path}: clip {clip['key']!r} has the key of another video than {video_id!r}"
            frame = clip["start_frame"] + clip["num_frames"]


def _index_findings(path: Path, rows: list[dict], indexed: list[dict]) -> Iterator[str]:
    in_tar = {row["key"]: row for row in rows}
    in_index = {row["key"]: row for row in indexed}
    for key in sorted(in_tar.keys() ^ in_index.keys()):
        yield f"{path}: clip {key!r} is only in the {'tar' if key in in_tar else 'index'}"
    for key in in_tar.keys() & in_index.keys():
        for member, expected in zip(in_tar[key]["members"], in_index[key]["members"]):
            if member != expected:
                yield f"{path}: member {member['name']!r} is {member}, but the index lists {expected}"
        if in_tar[key] != in_index[key] and in_tar[key]["members"] == in_index[key]["members"]:
            yield f"{path}: the {META} of clip {key!r} differs from the index"


def _clip_findings(path: Path, tar, row: dict, classes: int) -> Iterator[str]:
    size = (row["height"], row["width"])
    for segment in row["segments"]:
        if not 0 <= segment["class_index"] < classes:
            yield (f"{path}: clip {row['key']!r} has a segment of class {segment['class_index']}, but the table "
                   f"has {classes} classes")
    highest = len(row["segments"]) + len(row["overlaps"])
    for overlap in row["overlaps"]:
        if not set(overlap["segments"]) <= {segment["id"] for segment in row["segments"]}:
            yield f"{path}: clip {row['key']!r} has an overlap of {overlap['segments']}, which the video does not list"
    for member in row["members"][:-1]:
        tar.seek(member["offset"])
        content = tar.read(member["length"])
        is_label = member["name"].endswith(".png")
        try:
            pixels = decode_label(content) if is_label else decode_jpeg(content)
        except BadInput as error:
            yield f"{path}: member {member['name']!r}: {error.what}"
            continue
        if pixels.shape[:2] != size or pixels.ndim != (2 if is_label else 3):
            yield f"{path}: member {member['name']!r} has shape {pixels.shape}, but the video is {size}"
        elif is_label and np.max(pixels) > highest:
            yield (f"{path}: member {member['name']!r} contains id {np.max(pixels)}, but the video has ids up to "
                   f"{highest}")
