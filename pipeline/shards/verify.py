"""Read a whole shard set again and say everything that is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.errors import BadInput
from pipeline.files import digest, sha256_of
from pipeline.images import decode_jpeg, decode_png
from pipeline.shards.format import INDEX, MANIFEST, META, PLAN, SCHEMA, clip_key
from pipeline.shards.index import read_index, rebuild_rows


def verify(folder: Path | str) -> list[str]:
    """All findings, one sentence each with file and place; an empty list means the set is sound.

    Looks at every byte: sha256 of each tar, order and adjacency of its members, index and checksums against the tar,
    every JPEG and id map decoded, ids against the segment table, counts and plan against the manifest.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return [f"{folder / MANIFEST}: cannot be read ({error}); run make_shards again"]
    if manifest.get("schema") != SCHEMA:
        return [f"{folder / MANIFEST}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}"]
    found = []
    try:
        for finding in _findings(folder, manifest):
            found.append(finding)
    except (KeyError, TypeError) as error:
        found.append(f"{folder / MANIFEST}: lacks or mistypes {error}; delete it and run make_shards again")
    return found


def _findings(folder: Path, manifest: dict) -> Iterator[str]:
    listed = {shard["name"] for shard in manifest["shards"]}
    for stray in sorted({path.name for path in folder.glob("*.tar")} - listed):
        yield f"{folder / stray}: not in the manifest; delete it"
    yield from _plan_findings(folder, manifest)
    try:
        index = read_index(folder / INDEX, plan=manifest["plan"])
    except BadInput as error:
        index = None
        yield f"{folder / INDEX}: {error.what} write_index(folder) makes it again"
    for number, shard in enumerate(manifest["shards"]):
        rows = None if index is None else [row for row in index if row["shard"] == number]
        yield from _shard_findings(folder / shard["name"], shard, number, rows, len(manifest["categories"]["classes"]))
    for name in ("videos", "clips", "frames", "size"):
        if (total := sum(shard[name] for shard in manifest["shards"])) != manifest["totals"][name]:
            yield f"{folder / MANIFEST}: {name} of all shards are {total}, its totals say {manifest['totals'][name]}"


def _plan_findings(folder: Path, manifest: dict) -> Iterator[str]:
    """The manifest repeats what the plan decided; a copy of a set may lack the plan."""
    if not (folder / PLAN).exists():
        return
    try:
        plan = json.loads((folder / PLAN).read_bytes())
    except (OSError, ValueError) as error:
        yield f"{folder / PLAN}: cannot be read ({error}); delete it and run make_shards again"
        return
    if digest(plan) != manifest["plan"]:
        yield f"{folder / PLAN}: another plan than that of the manifest; delete both and run make_shards again"
    for name in ("split", "categories", "config"):
        if plan.get(name) != manifest[name]:
            yield f"{folder / MANIFEST}: {name} is not that of {PLAN}; delete it and run make_shards again"


def _shard_findings(path: Path, shard: dict, number: int, indexed: list[dict] | None, classes: int) -> Iterator[str]:
    if not path.exists():
        yield f"{path}: missing"
        return
    if path.stat().st_size != shard["size"]:
        yield f"{path}: {path.stat().st_size} bytes, the manifest says {shard['size']}"
    elif sha256_of(path) != shard["sha256"]:
        yield f"{path}: another sha256 than in the manifest"
    try:
        rows = rebuild_rows(path, number)
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
            yield f"{path}: {count} {name}, the manifest says {shard[name]}"
    with open(path, "rb") as tar:
        for row in rows:
            try:
                yield from _clip_findings(path, tar, row, classes)
            except (KeyError, TypeError) as error:
                yield f"{path}: {META} of clip {row['key']!r} lacks or mistypes {error}"


def _order_findings(path: Path, rows: list[dict]) -> Iterator[str]:
    for key, count in Counter(row["key"] for row in rows).items():
        if count > 1:
            yield f"{path}: clip {key!r} is not in one piece but {count}; WebDataset would split it"
    for video_id, clips in groupby(rows, key=lambda row: row["video_id"]):
        frame = 0
        for number, clip in enumerate(clips):
            if (clip["clip_index"], clip["start_frame"]) != (number, frame):
                yield f"{path}: clip {clip['key']!r} of video {video_id!r} is out of order or one before it is missing"
            if clip["key"] != clip_key(video_id, clip["clip_index"]):
                yield f"{path}: clip {clip['key']!r} has a key of another video than {video_id!r}"
            frame = clip["start_frame"] + clip["num_frames"]


def _index_findings(path: Path, rows: list[dict], indexed: list[dict]) -> Iterator[str]:
    found = {row["key"]: row for row in rows}
    known = {row["key"]: row for row in indexed}
    for key in sorted(found.keys() ^ known.keys()):
        yield f"{path}: clip {key!r} is only in the {'tar' if key in found else 'index'}"
    for key in found.keys() & known.keys():
        for member, expected in zip(found[key]["members"], known[key]["members"]):
            if member != expected:
                yield f"{path}: member {member['name']!r} is {member}, the index says {expected}"
        if found[key] != known[key] and found[key]["members"] == known[key]["members"]:
            yield f"{path}: clip {key!r} is described otherwise in its meta.json than in the index"


def _clip_findings(path: Path, tar, row: dict, classes: int) -> Iterator[str]:
    size = (row["height"], row["width"])
    for segment in row["segments"]:
        if not 0 <= segment["class_index"] < classes:
            yield (f"{path}: clip {row['key']!r} has a segment of class {segment['class_index']}, the table has "
                   f"{classes} classes")
    highest = len(row["segments"]) + len(row["overlaps"])
    for overlap in row["overlaps"]:
        if not set(overlap["segments"]) <= {segment["id"] for segment in row["segments"]}:
            yield f"{path}: clip {row['key']!r} has an overlap of {overlap['segments']}, which its video does not list"
    for member in row["members"][:-1]:
        tar.seek(member["offset"])
        content = tar.read(member["length"])
        is_label = member["name"].endswith(".png")
        try:
            pixels = decode_png(content) if is_label else decode_jpeg(content)
        except BadInput as error:
            yield f"{path}: member {member['name']!r}: {error.what}"
            continue
        if pixels.shape[:2] != size or pixels.ndim != (2 if is_label else 3):
            yield f"{path}: member {member['name']!r} has shape {pixels.shape}, its video is {size}"
        elif is_label and np.max(pixels) > highest:
            yield f"{path}: member {member['name']!r} holds id {np.max(pixels)}, its video lists {highest}"
