"""The contents of a query cache in numbers: bytes by column, clips, objects, and queries that show something."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from pipeline.query_cache.cache import QueryCache

SURE = 0.5      # a query shows something in a clip if "no object" is less likely than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of all parts together."""

    name: str
    kind: str           # type and shape of a tensor, else the type of Parquet
    bytes: int          # in all parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A number that was counted many times."""

    mean: float
    lowest: int
    highest: int

    @classmethod
    def over(cls, counts: Sequence[int]) -> Spread:
        """The spread of some counts, at least one."""
        return cls(mean=float(np.mean(counts)), lowest=int(min(counts)), highest=int(max(counts)))

    def __str__(self) -> str:
        return f"{self.mean:.1f} ({self.lowest} to {self.highest})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What `contents` counts."""

    columns: tuple[Column, ...]
    videos: int
    views: dict[int, int]       # view -> videos that have it
    clips: int
    bytes: int                  # of all parts, with what Parquet adds
    clips_of_a_video: Spread
    objects: Spread             # visible tubes of a clip, stuff included
    queries: int                # n
    used: Spread                # queries that are sure of an object in at least one clip of a video
    idle: float                 # part of the queries of all clips that are sure of nothing in their whole video


def contents(cache: QueryCache) -> Contents:
    """Count what is in a cache; reads class logits and areas only. Raises ValueError for a cache without a clip."""
    if not len(cache.groups):
        raise ValueError(f"{cache.folder} holds no clip: every video was skipped, or has no labels; "
                         "run jobs.cache_queries again, which names them")
    objects: list[int] = []
    used: list[int] = []
    idle = 0
    queries = 0
    for areas, logits in _views(cache):
        objects += [sum(area > 0 for area in clip) for clip in areas]
        sure = (_no_object(logits) < SURE).any(0)
        used.append(int(sure.sum()))
        queries = len(sure)
        idle += len(areas) * int((~sure).sum())
    counts = cache.groups.clips
    clips = int(counts.sum(dtype=np.int64))
    return Contents(columns=tuple(_columns(cache)), videos=len(cache.videos), clips=clips,
                    views=dict(enumerate(np.bincount(cache.groups.view).tolist())),
                    bytes=sum(part["bytes"] for part in cache.manifest["parts"]),
                    clips_of_a_video=Spread.over(counts),
                    objects=Spread.over(objects), queries=queries, used=Spread.over(used),
                    idle=idle / (clips * queries))


def _views(cache: QueryCache) -> Iterator[tuple[list[list[int]], np.ndarray]]:
    """Of every view of every video: areas of the tubes of each clip, and class logits k n classes+1."""
    for _, _, part, group, _ in cache.groups:
        file = cache.file(part)
        table = file.read_row_group(group, columns=["tube_areas", "class_logits"])
        dtype, shape = json.loads(file.schema_arrow.metadata[b"tensors"])["class_logits"]
        blobs = table["class_logits"].to_pylist()
        yield table["tube_areas"].to_pylist(), np.stack([np.frombuffer(b, dtype).reshape(shape) for b in blobs])


def _no_object(logits: np.ndarray) -> np.ndarray:
    """logits ... classes+1 -> the probability of the last class."""
    logits = logits.astype(np.float32)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers[..., -1] / powers.sum(-1)


def _columns(cache: QueryCache) -> Iterator[Column]:
    """Every column with its bytes, in the order of the first part."""
    sizes: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    for file in map(cache.file, cache.filled_parts):
        tensors = json.loads(file.schema_arrow.metadata[b"tensors"])
        for field in file.schema_arrow:
            tensor = tensors.get(field.name)
            kinds.setdefault(field.name, str(field.type) if tensor is None else _tensor(*tensor))
        sizes.update(_column_bytes(file.metadata))
    for name, kind in kinds.items():
        yield Column(name=name, kind=kind, bytes=sizes[name])


def _tensor(dtype: str, shape: list[int]) -> str:
    return f"{np.dtype(dtype).name} {' x '.join(map(str, shape))}"


def _column_bytes(metadata: pq.FileMetaData) -> Counter[str]:
    """Bytes by column; a list counts as the column it stands in."""
    sizes: Counter[str] = Counter()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            sizes[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return sizes
