"""How often each class occurs in a shard set: the table in which a shifted or lost class is seen at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Counts = dict[int, list[int]]       # position in the class table -> videos, objects, pixels as stored


def video_counts(segments: Sequence[Mapping[str, Any]], overlaps: Sequence[Mapping[str, Any]],
                 pixels: np.ndarray) -> Counts:
    """The counts of one video. segments, overlaps: as in `meta.json`; pixels: of every stored id, in all its frames.

    A pixel that several objects share counts for each of them.
    """
    pixels = pixels.copy()
    for overlap in overlaps:
        for segment in overlap["segments"]:
            pixels[segment] += pixels[overlap["id"]]
    counts: Counts = {}
    for segment in segments:
        row = counts.setdefault(segment["class_index"], [1, 0, 0])
        row[1] += 1
        row[2] += int(pixels[segment["id"]])
    return counts


def add_counts(total: Counts, counts: Mapping[int, Sequence[int]]) -> None:
    """Add the counts of other videos to `total`."""
    for class_index, row in counts.items():
        total[class_index] = [old + new for old, new in zip(total.get(class_index, (0, 0, 0)), row)]


def class_rows(categories: Mapping[str, Any], counts: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
    """One row per class of the table, in its order, as plain values. categories: `ClassTable.to_json()`."""
    return [{"id": info["id"], "name": info["name"],
             **dict(zip(("videos", "objects", "pixels"), counts.get(class_index, (0, 0, 0))))}
            for class_index, info in enumerate(categories["classes"])]


def class_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows for people: classes that occur with their share of all labelled pixels, then the names of the others."""
    rows = list(rows)
    present = [row for row in rows if row["videos"]]
    absent = [row["name"] for row in rows if not row["videos"]]
    labelled = max(1, sum(row["pixels"] for row in present))
    width = max([len("class"), *(len(row["name"]) for row in present)])
    lines = [f"{'class':{width}}  {'videos':>8}  {'objects':>8}  {'pixels':>8}"]
    lines += [f"{row['name']:{width}}  {row['videos']:8d}  {row['objects']:8d}  {100 * row['pixels'] / labelled:7.3f}%"
              for row in present]
    if absent:
        lines.append(f"never: {', '.join(absent)}")
    return "\n".join(lines)
