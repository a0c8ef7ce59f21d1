"""The shard format: the files of a shard set, the members of its tars, and the columns of its index.

    manifest.json         written last; its sha256 is the fingerprint of the data set
    index.parquet         one row per stored clip, with the place of every member
    plan.json             the videos of every shard, and the settings; written first
    train-000000.tar      whole videos in order, cut into stored clips
    train-000000.json     the shard's counts, skipped videos, sha256 and index rows; marks a finished tar
    errors.jsonl          skipped videos, and frames whose label cannot be read, one line each, with reason and cure

A tar is a WebDataset: sample = one stored clip, members `{key}.f000.jpg`, `{key}.f000.png`, ..., `{key}.meta.json`.
The JPEGs are the data set's own bytes; PNG frames are converted to JPEG. The PNGs are id maps of one channel, 8 or 16
bit: 0 is void, 1 ... m are the video's segments, ids above m its overlaps. An overlap is the set of all pixels that
belong to the same two or more segments, which `overlaps` of `meta.json` lists. In this way overlapping instance masks
become one map without loss. A frame that nobody labelled has no PNG.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from pipeline.records import Segment

SCHEMA = 2                      # of tars, index and manifest together; readers refuse any other
MANIFEST = "manifest.json"
INDEX = "index.parquet"
PLAN = "plan.json"
ERRORS = "errors.jsonl"
META = "meta.json"

INDEX_SCHEMA = pa.schema([
    ("key", pa.string()), ("video_id", pa.string()), ("shard", pa.int32()), ("clip_index", pa.int32()),
    ("start_frame", pa.int32()), ("num_frames", pa.int32()), ("height", pa.int32()), ("width", pa.int32()),
    ("frame_names", pa.list_(pa.string())),
    ("members", pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
                                    ("crc32", pa.uint32())]))),
    ("segments", pa.list_(pa.struct([("id", pa.int32()), ("source_id", pa.int64()), ("class_index", pa.int32()),
                                     ("is_crowd", pa.bool_())]))),
    ("overlaps", pa.list_(pa.struct([("id", pa.int32()), ("segments", pa.list_(pa.int32()))]))),
])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrame:
    """The place of one frame in its tar."""

    name: str
    image: tuple[int, int]              # offset, length of the JPEG, bytes
    label: tuple[int, int] | None       # offset, length of the id PNG; None for a frame that nobody labelled
    crc32: tuple[int, ...] = ()         # of the JPEG, then of the PNG
    index: int = 0                      # position in its video, counting frames without label too


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """One video of a shard set. Its members lie together in one tar, in temporal order."""

    index: int                              # position in `ShardSet.videos`
    video_id: str
    shard: int
    height: int                             # pixels, as stored
    width: int
    frames: tuple[StoredFrame, ...]         # T
    segments: tuple[Segment, ...]           # ids 1 ... m, as in the stored id maps
    source_ids: tuple[int, ...]             # the data set's own ids, in the same order
    overlaps: Mapping[int, tuple[int, ...]] = field(default_factory=dict)   # id above m -> the segments that share it

    @property
    def has_labels(self) -> bool:
        """Whether any frame has an id map."""
        return any(frame.label is not None for frame in self.frames)

    @property
    def labelled(self) -> tuple[int, ...]:
        """The positions of the frames that have an id map."""
        return tuple(index for index, frame in enumerate(self.frames) if frame.label is not None)

    @property
    def highest_id(self) -> int:
        """The largest id that the maps may contain."""
        return len(self.segments) + len(self.overlaps)


def shard_name(split: str, shard: int) -> str:
    """The name of a shard without its suffix."""
    return f"{split}-{shard:06d}"


def clip_key(video_id: str, clip: int) -> str:
    """WebDataset key of a stored clip, in lower case without dots; other bytes become `-` and two hex digits."""
    plain = re.sub(rb"[^a-z0-9_]", lambda odd: b"-%02x" % odd[0][0], video_id.encode())
    return f"{plain.decode()}_c{clip:04d}"


def video_of_key(key: str) -> str:
    """The video id of a `clip_key`."""
    plain = key.rpartition("_c")[0].encode()
    return re.sub(rb"-([0-9a-f]{2})", lambda odd: bytes.fromhex(odd[1].decode()), plain).decode()


def stored_videos(rows: Iterable[dict]) -> tuple[StoredVideo, ...]:
    """The videos of index rows, which are in the order of the tars."""
    videos = groupby(rows, key=lambda row: row["video_id"])
    return tuple(_stored_video(index, video_id, list(clips)) for index, (video_id, clips) in enumerate(videos))


def _stored_video(index: int, video_id: str, clips: list[dict]) -> StoredVideo:
    first = clips[0]
    return StoredVideo(
        index=index, video_id=video_id, shard=first["shard"], height=first["height"], width=first["width"],
        frames=tuple(frame for clip in clips for frame in _frames(clip)),
        segments=tuple(Segment(id=s["id"], class_index=s["class_index"], is_crowd=s["is_crowd"])
                       for s in first["segments"]),
        source_ids=tuple(s["source_id"] for s in first["segments"]),
        overlaps={overlap["id"]: tuple(overlap["segments"]) for overlap in first["overlaps"]})


def _frames(clip: dict) -> Iterable[StoredFrame]:
    """The frames of a clip, whose members are in the order jpg, [png,] jpg, [png,] ..., meta."""
    images = [place for place, member in enumerate(clip["members"]) if member["name"].endswith(".jpg")]
    ends = [*images[1:], len(clip["members"]) - 1]
    for index, (name, start, end) in enumerate(zip(clip["frame_names"], images, ends, strict=True),
                                               clip["start_frame"]):
        image, *label = clip["members"][start:end]
        yield StoredFrame(name=name, image=(image["offset"], image["length"]),
                          label=(label[0]["offset"], label[0]["length"]) if label else None,
                          crc32=tuple(member["crc32"] for member in (image, *label)), index=index)
