"""The shard format: the files of a shard set, the members of its tars, and the columns of its index.

    manifest.json         written last; its sha256 is the fingerprint of the data set
    index.arrow           one row per stored clip, with the place of every member (`index.py`)
    plan.json             the videos of every shard, and the settings; written first
    train-000000.tar      whole videos in order, cut into stored clips
    train-000000.json     the shard's counts, skipped videos, sha256 and index rows; marks a finished tar
    errors.jsonl          skipped videos, and frames whose label cannot be read, one line each, with reason and cure

A tar is a WebDataset: sample = one stored clip, members `{key}.f000.jpg`, `{key}.f000.png`, ..., `{key}.meta.json`.
The JPEGs are the data set's own bytes; PNG frames are converted to JPEG. The PNGs are id maps of one channel, 8 or 16
bit: 0 is void, 1 ... m are the video's segments, ids above m its overlaps. An overlap is the set of all pixels that
belong to the same two or more segments, which `overlaps` of `meta.json` lists. In this way overlapping instance masks
become one map without loss. A frame that nobody labelled has no PNG.

Schema 3 differs from schema 2 in the compression of the id maps. Both are read, and a set keeps the schema with which
it was begun, so a repaired shard has the bytes that it had before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.records import Segment

SCHEMA = 3                      # of tars and manifest together; readers refuse any that is not among the next
SCHEMAS = (2, 3)                # they differ in the encoder of the id maps (`encode.py`), and any reader reads both
INDEX_VERSION = 2               # of the index, which is the same in both
MANIFEST = "manifest.json"
INDEX = "index.arrow"
EARLIER_INDEX = "index.parquet"     # of sets that an earlier version made
PLAN = "plan.json"
ERRORS = "errors.jsonl"
META = "meta.json"

ROW_SCHEMA = pa.schema([
    ("key", pa.string()), ("video_id", pa.string()), ("shard", pa.int32()), ("clip_index", pa.int32()),
    ("start_frame", pa.int32()), ("num_frames", pa.int32()), ("height", pa.int32()), ("width", pa.int32()),
    ("frame_names", pa.list_(pa.string())),
    ("members", pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
                                    ("crc32", pa.uint32())]))),
    ("segments", pa.list_(pa.struct([("id", pa.int32()), ("source_id", pa.int64()), ("class_index", pa.int32()),
                                     ("is_crowd", pa.bool_())]))),
    ("overlaps", pa.list_(pa.struct([("id", pa.int32()), ("segments", pa.list_(pa.int32()))]))),
])
# What is read of all clips at once stands together in the file.
INDEX_SCHEMA = pa.schema([
    *map(ROW_SCHEMA.field, ("video_id", "shard", "num_frames", "height", "width")),
    ("labels", pa.int32()), ("objects", pa.int32()),        # of the clip, of its video
    *map(ROW_SCHEMA.field, ("key", "clip_index", "start_frame", "frame_names", "members", "segments", "overlaps")),
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
