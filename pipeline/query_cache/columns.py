"""One clip of the query cache as a row of its Parquet files: the columns, their types, and both directions.

Tensors are fixed-size binary columns; the schema metadata `tensors` holds the type and the shape of each, so that a
reader needs nothing else. A part holds clips of one shape. Pixel features may be stored in 8 bits; the column
`pixel_scales` then holds the factor of each pixel, and a reader multiplies the two.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from model.contracts import QueryShapes
from pipeline.errors import BadInput

BLOBS = ("queries", "mask_embeddings", "class_logits", "pixel_features", "pixel_positions", "pixel_tubes",
         "pixel_weights")
SCALES = "pixel_scales"         # of pixel features in 8 bits
SEEN = ("places", "looks")      # what learned links read beside them; caches of earlier versions lack these columns
PLAIN = {"video_id": pa.string(), "view": pa.int16(), "clip_index": pa.int32(), "start_frame": pa.int32(),
         "num_frames": pa.int16(), "height": pa.int32(), "width": pa.int32()}
LISTS = {"tube_ids": pa.int64(), "tube_classes": pa.int32(), "tube_areas": pa.int32(),
         "tube_overlaps": pa.list_(pa.int32())}
PARQUET_BYTES = 1000
_FIXED = {"pixel_positions": np.int16, "pixel_tubes": np.int32, "pixel_weights": np.float32,
          "places": np.float16, "looks": np.float16}        # the others have the cache's dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedClip:
    """One row of the cache, as it is written and read."""

    video_id: str
    view: int                       # 0: as at test time; above 0: augmented
    clip_index: int
    start_frame: int
    num_frames: int                 # number of frames, without repeats of the last one
    height: int                     # of the source video
    width: int
    queries: np.ndarray             # n c          stored in the cache's dtype
    mask_embeddings: np.ndarray     # n d
    class_logits: np.ndarray        # n classes+1
    pixel_features: np.ndarray      # p d
    pixel_positions: np.ndarray     # p 3 int16    frame, row, column at stride 4
    pixel_tubes: np.ndarray         # p int32      position in tube_ids; -1 void; -2 - s: position s in tube_overlaps
    pixel_weights: np.ndarray       # p float32    number of pixels that a sample stands for
    tube_ids: np.ndarray            # m int64      tracks of the whole video, the same in all its clips
    tube_classes: np.ndarray        # m int32
    tube_areas: np.ndarray          # m int32      exact pixels in this clip at stride 4
    tube_overlaps: tuple[tuple[int, ...], ...] = ()     # s    tubes that share pixels somewhere in the video
    places: np.ndarray | None = None    # n t 5 float16        as in `VideoQueries`; None in caches that lack them
    looks: np.ndarray | None = None     # n 6 float16


def schema_of(clip: CachedClip, *, floats: np.dtype, fingerprint: str, in_8_bits: bool = False) -> pa.Schema:
    """The schema of a part whose clips are like this one. floats: the cache's dtype; in_8_bits: of pixel features."""
    tensors = {name: (_dtype(name, floats).str, list(getattr(clip, name).shape)) for name in _blobs(clip)}
    if in_8_bits:
        pixels, channels = clip.pixel_features.shape
        tensors |= {"pixel_features": ("|i1", [pixels, channels]), SCALES: ("<f2", [pixels])}
    columns = [*PLAIN.items(), *((name, pa.binary(blob_bytes(*tensor))) for name, tensor in tensors.items()),
               *((name, pa.list_(kind)) for name, kind in LISTS.items()), ("crc32", pa.uint32())]
    return pa.schema(columns, metadata={"tensors": json.dumps(tensors), "fingerprint": fingerprint})


def blob_bytes(dtype: str, shape: list[int]) -> int:
    """Bytes of a tensor of this type and shape."""
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def bytes_of_clip(shapes: QueryShapes, *, frames: int, pixels: int, floats: np.dtype, in_8_bits: bool = False) -> int:
    """About the bytes of a clip in a part, from the sizes of the segmenter, the frames of a clip and its stored pixels.

    To the tensors comes what Parquet and the plain columns take, as it was in caches with 6 clips a video and 5 tubes.
    """
    n = shapes.num_queries
    sizes = {"queries": [n, shapes.dim], "mask_embeddings": [n, shapes.pixel_dim],
             "class_logits": [n, shapes.num_classes + 1], "pixel_features": [pixels, shapes.pixel_dim],
             "pixel_positions": [pixels, 3], "pixel_tubes": [pixels], "pixel_weights": [pixels],
             "places": [n, frames, 5], "looks": [n, 6]}
    saved = pixels * shapes.pixel_dim * (floats.itemsize - 1) - 2 * pixels if in_8_bits else 0
    return PARQUET_BYTES - saved + sum(blob_bytes(_dtype(name, floats).str, shape) for name, shape in sizes.items())


def to_row(clip: CachedClip, *, floats: np.dtype, in_8_bits: bool = False) -> dict[str, Any]:
    """The row of a clip, with its checksum. Raises BadInput "not-cachable" when a value does not fit its type."""
    row = {name: getattr(clip, name) for name in CachedClip.__slots__}
    for name in _blobs(clip):
        row[name] = _blob(clip, name, _dtype(name, floats))
    if in_8_bits:
        values, scales = as_8_bits(clip.pixel_features)
        row |= {"pixel_features": values.tobytes(), SCALES: scales.tobytes()}
    row["crc32"] = checksum(row)
    return row


def to_clip(row: Mapping[str, Any], tensors: Mapping[str, tuple[str, list[int]]]) -> CachedClip:
    """The clip of a row. tensors: those of the schema metadata."""
    values = {name: value for name, value in row.items() if name != "crc32"}
    for name, (dtype, shape) in tensors.items():
        values[name] = np.frombuffer(row[name], dtype).reshape(shape)
    for name, dtype in (("tube_ids", np.int64), ("tube_classes", np.int32), ("tube_areas", np.int32)):
        values[name] = np.asarray(row[name], dtype)
    if (scales := values.pop(SCALES, None)) is not None:
        values["pixel_features"] = values["pixel_features"] * scales[:, None].astype(np.float32)
    values["tube_overlaps"] = tuple(map(tuple, row["tube_overlaps"]))
    return CachedClip(**values)


def as_8_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """values p d -> int8 p d and float16 p, whose products are the values up to half a step of 1/127 of the largest.

    Rows that are too small for a step in half precision become 0.
    """
    values = np.asarray(values, np.float32)
    scales = (np.abs(values).max(1, initial=0) / 127).astype(np.float16)
    steps = np.divide(values, scales[:, None], out=np.zeros_like(values), where=scales[:, None] > 0)
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scales


def checksum(row: Mapping[str, Any]) -> int:
    """crc32 of the tensors of a row."""
    crc = 0
    for name in (*BLOBS, *SEEN, SCALES):
        crc = zlib.crc32(row.get(name) or b"", crc)
    return crc


def _blobs(clip: CachedClip) -> tuple[str, ...]:
    """The tensor columns of a clip."""
    return (*BLOBS, *(name for name in SEEN if getattr(clip, name) is not None))


def _blob(clip: CachedClip, name: str, dtype: np.dtype) -> bytes:
    array = getattr(clip, name)
    limit = np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max
    largest = np.abs(array).max(initial=0)
    if not largest <= limit:    # also true for NaN
        raise BadInput("not-cachable", f"{name} of clip {clip.clip_index} holds {largest}, too large for {dtype}.",
                       video=clip.video_id, cure="Set cache.dtype=float32, or check the segmenter's weights.")
    return np.ascontiguousarray(array, dtype).tobytes()


def _dtype(name: str, floats: np.dtype) -> np.dtype:
    return np.dtype(_FIXED.get(name, floats))
