"""The query cache: the output of a frozen segmenter for every clip, in Parquet files on which stage two trains.

A row is one clip. Tensors are fixed-size binary columns (tens of times faster to read than list columns), and the
schema metadata holds their shapes. A row group is one view of one video, and a part is one view of all videos of an
input shard. (Earlier versions kept all views of a shard in one part, which is read just the same.) Queries are stored
*aligned*: query n is the same object in every clip of the video, for every window of clips and in both directions of
time. (Frame queries for VITA keep the order of the detector.) `manifest.json` is written last and holds the
fingerprint. A cache made by another segmenter, from other shards or with other settings is refused, and the error names
the fields that differ. So is a part of another cache: the fingerprint in its schema metadata is read when the cache is
opened, and each process compares the sha256 of a part before it reads the first row (`pipeline/digests.py`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.contracts import QueryShapes
from pipeline.digests import known_sha256
from pipeline.errors import BadInput, Mismatch
from pipeline.file_names import can_name_a_file
from pipeline.files import atomic_file, atomic_write, canonical_json, digest, naming, partial_path, publish, sha256_of
from pipeline.foreign_files import own_json, whole_json
from pipeline.outcomes import VideoOutcome
from pipeline.query_cache.columns import PLAIN, SEEN, CachedClip, checksum, schema_of, to_clip, to_row
from pipeline.seals import sealed

SCHEMA = 2              # of a manifest, and in every fingerprint
SCHEMA_OF_8_BITS = 3    # of a manifest whose parts hold pixel features in 8 bits, which earlier versions cannot read
REDO = "Run jobs.cache_queries again: it makes only this part anew."
MANIFEST_CURE = "Delete it and run jobs.cache_queries again: finished parts are kept."
_SUMMARY = {"fingerprint": str, "file": str, "groups": list, "skipped": list, "clips": int, "bytes": int, "sha256": str}


class CacheWriter:
    """Writes one view of the videos of one shard, a part, which gets its final name and its sidecar when complete.

    fingerprint: that of the smallest cache which holds this view, so that a part is recognised in larger ones.
    columns: without which a part of an earlier version does not count as finished. in_8_bits: of pixel features.
    """

    def __init__(self, folder: Path, shard: int, *, view: int = 0, dtype: str, fingerprint: str,
                 columns: Sequence[str] = (), in_8_bits: bool = False) -> None:
        self.path = part_path(folder, shard, view)
        self.sidecar = self.path.with_suffix(".json")
        self.partial = partial_path(self.path)
        self.dtype = np.dtype(dtype)
        self.fingerprint = fingerprint
        self.columns = columns
        self.in_8_bits = in_8_bits
        self.writer: pq.ParquetWriter | None = None
        self.groups: list[tuple[str, int, int]] = []    # video, view, clips of each row group

    def finished(self) -> dict[str, Any] | None:
        """The sidecar, if this part was completed before with the same fingerprint, which the file holds too, and its
        bytes are those that were written.

        A part that another cache beside this one holds is linked into this folder: it is the same file, made once.
        """
        if (own := self._summary(self.path)) is not None:
            return own
        for other in sorted(self.path.parent.parent.glob(f"*/{self.path.name}")):
            summary = self._summary(other)
            if summary is not None and not summary["skipped"]:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _link(other, self.path)
                _link(other.with_suffix(".json"), self.sidecar)
                return summary
        return None

    def _summary(self, path: Path) -> dict[str, Any] | None:
        summary = whole_json(path.with_suffix(".json"), needs=_SUMMARY)     # a part whose sidecar is cut is made again
        if summary is None or not path.is_file():
            return None
        if summary["fingerprint"] != self.fingerprint or summary["bytes"] != path.stat().st_size:
            return None
        whole = not summary["bytes"] or (stored_fingerprint(path) == self.fingerprint and
                                         sha256_of(path) == summary["sha256"] and has_columns(path, self.columns))
        return summary if whole else None

    def add(self, clips: list[CachedClip]) -> None:
        """Append one view of one video.

        Raises BadInput when a value does not fit the cache's dtype, and OSError, which names the part, when it cannot
        be written.
        """
        rows = [to_row(clip, floats=self.dtype, in_8_bits=self.in_8_bits) for clip in clips]
        schema = schema_of(clips[0], floats=self.dtype, fingerprint=self.fingerprint, in_8_bits=self.in_8_bits)
        with naming(self.path):
            if self.writer is None:
                self.partial.parent.mkdir(parents=True, exist_ok=True)
                # Parquet would store the lowest and highest tensor of every view twice, which no reader asks for.
                self.writer = pq.ParquetWriter(self.partial, schema, compression="none", use_dictionary=["video_id"],
                                               write_page_checksum=True, write_statistics=list(PLAIN))
            self.writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
        self.groups.append((clips[0].video_id, clips[0].view, len(clips)))

    def close(self, *, skipped: Sequence[VideoOutcome] = ()) -> dict[str, Any]:
        """Finish the part; its sidecar is the summary that is returned. A shard without videos leaves only that.

        skipped: the videos that could not be cached; the sidecar names them to whoever runs the verb again.
        """
        summary = {"fingerprint": self.fingerprint, "file": self.path.name, "groups": self.groups,
                   "skipped": [outcome.to_json() for outcome in skipped],
                   "clips": sum(clips for *_, clips in self.groups), "bytes": 0, "sha256": ""}
        if self.writer is not None:
            with naming(self.path):
                self.writer.close()
                with open(self.partial, "rb") as file:
                    os.fsync(file.fileno())
            summary |= {"bytes": self.partial.stat().st_size, "sha256": sha256_of(self.partial)}
            publish(self.partial, self.path)
        atomic_write(self.sidecar, canonical_json(sealed(summary)))
        return summary

    def abandon(self) -> None:
        """Delete an unfinished part."""
        if self.writer is not None:
            self.writer.close()
        self.partial.unlink(missing_ok=True)


class QueryCache:
    """Reads a finished cache. It is cheap to open and picklable; each process maps the files on first use."""

    def __init__(self, folder: Path, *, expected: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise FileNotFoundError(f"no finished query cache in {folder} (manifest.json is missing); "
                                    "run jobs.cache_queries with the same recipe first")
        self.manifest = own_json(manifest, cure=MANIFEST_CURE)
        refuse_other_version(self.manifest, manifest)
        refuse_unfit_manifest(self.manifest, manifest)
        if expected is not None:
            refuse_other_source(self.manifest["made_from"], expected, self.folder)
        self.fingerprint = self.manifest["fingerprint"]
        for part in self.manifest["parts"]:
            path = self.folder / part["file"]
            if part["clips"] and (not path.is_file() or path.stat().st_size != part["bytes"]):
                size = f"has {path.stat().st_size}" if path.is_file() else "does not exist"
                raise BadInput("cut-cache", f"{part['bytes']} bytes expected, but the file {size}.", file=path,
                               cure=REDO)
            if part["clips"]:
                refuse_other_part(path, part)

    @cached_property
    def groups(self) -> tuple[tuple[str, int, int, int, int], ...]:
        """(video, view, part, row group, clips) of every view of every video, sorted by video and view."""
        return tuple(sorted((video, view, part, group, clips) for part, entry in enumerate(self.manifest["parts"])
                            for group, (video, view, clips) in enumerate(entry["groups"])))

    @cached_property
    def videos(self) -> dict[str, list[int]]:
        """Video -> positions of its views in `groups`, the test-time view first."""
        views: dict[str, list[int]] = {}
        for position, (video, *_) in enumerate(self.groups):
            views.setdefault(video, []).append(position)
        return views

    @cached_property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """For every view in `groups`: the frames of the video up to its last clip, and its clips without a repeat."""
        clip_frames = self.manifest["made_from"]["clip_frames"]
        columns = {part: file.read(["start_frame", "num_frames"]).to_pydict() for part, file in self.files.items()}
        first_row = {part: [0, *accumulate(clips for *_, clips in self.manifest["parts"][part]["groups"])]
                     for part in columns}
        lengths = []
        for _, _, part, row_group, clips in self.groups:
            rows = slice(first_row[part][row_group], first_row[part][row_group] + clips)
            starts = columns[part]["start_frame"][rows]
            valid = columns[part]["num_frames"][rows]
            lengths.append((max(map(sum, zip(starts, valid))), valid.count(clip_frames)))
        return tuple(lengths)

    def read(self, group: int) -> list[CachedClip]:
        """All clips of one view in the order of time. Raises BadInput when a row's checksum is wrong."""
        _, _, part, row_group, _ = self.groups[group]
        file = self.files[part]
        try:
            table = file.read_row_group(row_group)
        except (pa.ArrowException, OSError) as error:
            raise BadInput("corrupt-cache", f"row group {row_group} cannot be read ({error}).",
                           file=self._path(part), cure=REDO) from error
        tensors = json.loads(file.schema_arrow.metadata[b"tensors"])
        rows = sorted(table.to_pylist(), key=lambda row: row["clip_index"])
        for row in rows:
            if checksum(row) != row["crc32"]:
                raise BadInput("corrupt-cache", f"clip {row['clip_index']} does not match its checksum.",
                               video=row["video_id"], file=self._path(part), cure=REDO)
        return [to_clip(row, tensors) for row in rows]

    def refuse_damage(self) -> None:
        """Compare every part with its sha256 in the manifest. Raises BadInput "corrupt-cache" for one that differs."""
        for part, entry in enumerate(self.manifest["parts"]):
            if entry["clips"] and (actual := known_sha256(self._path(part))) != entry["sha256"]:
                raise BadInput("corrupt-cache", f"the checksum of the file, its sha256, is {actual[:12]}..., but the "
                               f"manifest lists {entry['sha256'][:12]}...", file=self._path(part), cure=REDO)

    @cached_property
    def files(self) -> dict[int, pq.ParquetFile]:
        """Part -> its file, of those with clips. Raises BadInput as `refuse_damage` does."""
        self.refuse_damage()
        return {part: pq.ParquetFile(self._path(part), memory_map=True)
                for part, entry in enumerate(self.manifest["parts"]) if entry["clips"]}

    def _path(self, part: int) -> Path:
        return self.folder / self.manifest["parts"][part]["file"]

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "files"}


def refuse_other_version(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for a manifest of another version of the format."""
    if manifest.get("schema") not in (SCHEMA, SCHEMA_OF_8_BITS):
        raise ValueError(f"{path} has schema {manifest.get('schema')}, but this version reads {SCHEMA} and "
                         f"{SCHEMA_OF_8_BITS}; run jobs.cache_queries again")


def refuse_unfit_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise BadInput "cut-cache" where a field is missing, or where a part is not a file in the folder of the cache."""
    parts = manifest.get("parts")
    if not isinstance(parts, list) or not isinstance(manifest.get("made_from"), dict) or "fingerprint" not in manifest:
        raise BadInput("cut-cache", "the manifest lacks parts, made_from or fingerprint.", file=path,
                       cure=MANIFEST_CURE)
    for part in parts:
        if not isinstance(part, dict) or not can_name_a_file(part.get("file")) or not {
                "clips", "bytes", "groups", "sha256"} <= part.keys():
            raise BadInput("cut-cache", f"the manifest lists the part {str(part)[:80]!r}, which is no file in its "
                           "folder.", file=path, cure=MANIFEST_CURE)


def refuse_other_part(path: Path, entry: Mapping[str, Any]) -> None:
    """Raise Mismatch for a file that is a part of another cache than the one whose manifest lists it.

    Manifests of earlier versions list no fingerprint of a part; the sha256 then tells the same, when the part is read.
    """
    stored = stored_fingerprint(path)
    if stored is None:
        raise BadInput("corrupt-cache", "it is no part of a query cache that can be read.", file=path, cure=REDO)
    if stored != entry.get("fingerprint", stored):
        raise Mismatch(f"{path} is a part of another cache: it has the fingerprint {stored[:12]}..., but the manifest "
                       f"of this one lists {entry['fingerprint'][:12]}.... {REDO}")


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in the schema metadata of a part; None where the file is damaged or no part."""
    try:
        return (pq.read_schema(path).metadata or {}).get(b"fingerprint", b"").decode() or None
    except (pa.ArrowException, OSError, ValueError):
        return None


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Whether a part holds these columns."""
    return set(names) <= set(pq.read_schema(path).names)


def refuse_missing_columns(cache: QueryCache, columns: Sequence[str] = SEEN, *, setting: str = "stage_two.links"
                           ) -> None:
    """Raise ValueError where a part was made by an earlier version, without columns that are read.

    setting: of the recipe, that reads them.
    """
    for part in cache.manifest["parts"]:
        if part["clips"] and not has_columns(path := cache.folder / part["file"], columns):
            missing = [name for name in columns if not has_columns(path, [name])]
            raise ValueError(f"{path} was cached by an earlier version, without the columns {' and '.join(missing)} "
                             f"that {setting} reads; run jobs.cache_queries again with this recipe, which makes such "
                             f"parts anew, or set {setting}=null")


def stored_shapes(cache: QueryCache, shapes: QueryShapes) -> QueryShapes:
    """The shapes of the queries that lie in a cache. shapes: of the segmenter that filled it, whose kind they have."""
    part = next((part["file"] for part in cache.manifest["parts"] if part["clips"]), None)
    if part is None:
        return shapes
    sizes = {name: size for name, (_, size) in json.loads(
        pq.read_schema(cache.folder / part).metadata[b"tensors"]).items()}
    return replace(shapes, num_classes=sizes["class_logits"][1] - 1, num_queries=sizes["queries"][0],
                   dim=sizes["queries"][1], pixel_dim=sizes["pixel_features"][1])


def part_path(folder: Path, shard: int, view: int = 0) -> Path:
    """The file of one view of a shard's videos."""
    return Path(folder) / f"queries-{shard:06d}{f'-view-{view}' if view else ''}.parquet"


def _link(source: Path, target: Path) -> None:
    """One more name for a file, in place of what has it; a copy where the file system has no such names."""
    partial = partial_path(target)
    try:
        os.link(source, partial)
    except OSError:
        with atomic_file(target, needed=source.stat().st_size) as copy, open(source, "rb") as original:
            shutil.copyfileobj(original, copy)
        return
    try:
        publish(partial, target)
    finally:
        partial.unlink(missing_ok=True)     # renaming onto another name of the same file leaves both


def part_outcomes(summaries: Sequence[Mapping[str, Any]]) -> list[VideoOutcome]:
    """The outcome of every video of a shard, from the summaries of its views; it is skipped if any view of it was."""
    skipped = {row["video"]: VideoOutcome.from_json(row) for row in chain.from_iterable(
        summary["skipped"] for summary in reversed(summaries))}
    videos = dict.fromkeys(video for summary in summaries for video, *_ in summary["groups"])
    return [*(VideoOutcome(video=video) for video in videos if video not in skipped), *skipped.values()]


def finish_cache(folder: Path, made_from: Mapping[str, Any], summaries: Iterable[Mapping[str, Any]]) -> Path:
    """Write the manifest, which completes the cache. made_from: everything that decides the content."""
    parts = sorted(({k: s[k] for k in ("file", "groups", "clips", "bytes", "sha256", "fingerprint")}
                    for s in summaries), key=lambda part: part["file"])
    totals = {"views": sum(len(part["groups"]) for part in parts), "clips": sum(part["clips"] for part in parts),
              "bytes": sum(part["bytes"] for part in parts)}
    in_8_bits = made_from.get("cache", {}).get("features_in_8_bits", False)
    manifest = {"schema": SCHEMA_OF_8_BITS if in_8_bits else SCHEMA, "fingerprint": fingerprint(made_from),
                "made_from": dict(made_from), "parts": parts, "totals": totals}
    path = Path(folder) / "manifest.json"
    atomic_write(path, canonical_json(sealed(manifest)))
    return path


def fingerprint(made_from: Mapping[str, Any]) -> str:
    """sha256 of everything that decides the content of a cache. Its first 16 digits are the name of the folder."""
    return digest({"schema": SCHEMA, **made_from})


def refuse_other_source(made_from: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise Mismatch, which names every expected field that differs in the cache. Other fields are not compared."""
    wrong = [f"{key}: the cache has {made_from.get(key)!r}, expected {value!r}"
             for key, value in sorted(expected.items()) if made_from.get(key) != value]
    if wrong:
        raise Mismatch(f"the cache of {folder / 'manifest.json'} was made from something else: {'; '.join(wrong)}. "
                       "Run jobs.cache_queries with this recipe, or use the segmenter that made the cache.")
