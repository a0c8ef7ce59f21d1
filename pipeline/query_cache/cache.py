"""The query cache: the output of a frozen segmenter for every clip, in Parquet files on which stage two trains.

A row is one clip. Tensors are fixed-size binary columns (tens of times faster to read than list columns), and the
schema metadata holds their shapes. A row group is one view of one video, and a part is one view of all videos of an
input shard. (Earlier versions kept all views of a shard in one part, which is read just the same.) Queries are stored
*aligned*: query n is the same object in every clip of the video, for every window of clips and in both directions of
time. (Frame queries for VITA keep the order of the detector.) `views.arrow` lists the views (`view_table.py`), and
`manifest.json` is written last and holds the fingerprint. A cache made by another segmenter, from other shards or with
other settings is refused, and the error names the fields that differ. So is a part of another cache: when the cache is
opened, the fingerprint in its schema metadata is read, unless its bytes are known to be those that the manifest lists;
and each process compares the sha256 of all parts before it reads the first row (`pipeline/digests.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.contracts import QueryShapes
from pipeline import store
from pipeline.digests import known_sha256, remembered_sha256
from pipeline.errors import BadInput, Mismatch
from pipeline.file_names import can_name_a_file
from pipeline.files import atomic_file, atomic_write, canonical_json, digest, naming, partial_path, publish, sha256_of
from pipeline.foreign_files import own_json, whole_json
from pipeline.outcomes import VideoOutcome
from pipeline.query_cache.columns import PLAIN, SEEN, CachedClip, checksum, schema_of, to_clip, to_row
from pipeline.query_cache.view_table import TABLE, ViewTable, lengths_of, listed_views, read_table
from pipeline.seals import sealed

SCHEMA = 2              # in every fingerprint
SCHEMA_OF_TABLE = 4     # of a manifest whose views are in a table of their own
EARLIER_SCHEMAS = (2, 3)    # of manifests that list the views of each part; 3: with pixel features in 8 bits
MOST_OPEN = 256         # parts whose files a process keeps open
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
    """Reads a finished cache. It pickles as its path; each process maps the files when it reads them first."""

    def __init__(self, folder: Path, *, expected: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        store.fetch(self.folder)        # once on each machine, since row groups are read from mapped files
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise FileNotFoundError(f"no finished query cache: {manifest} is missing; run jobs.cache_queries with the "
                                    "same recipe first")
        self.manifest = own_json(manifest, cure=MANIFEST_CURE)
        refuse_other_version(self.manifest, manifest)
        refuse_unfit_manifest(self.manifest, manifest)
        if expected is not None:
            refuse_other_source(self.manifest["made_from"], expected, self.folder)
        self.fingerprint = self.manifest["fingerprint"]
        self._open: dict[int, pq.ParquetFile] = {}      # part -> its file, the latest use last
        self._is_compared = False
        self._refuse_other_parts()
        self.groups = views_of(self.folder, self.manifest, lengths=self._lengths)

    @property
    def videos(self) -> Mapping[str, list[int]]:
        """Video -> positions of its views in `groups`, the test-time view first."""
        return self.groups.videos

    def read(self, group: int) -> list[CachedClip]:
        """All clips of one view in the order of time. Raises BadInput when a row's checksum is wrong."""
        _, _, part, row_group, _ = self.groups[group]
        file = self.file(part)
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
        parts = self.filled_parts
        known = remembered_sha256(self.folder, (self.manifest["parts"][part]["file"] for part in parts))
        for part in parts:
            entry = self.manifest["parts"][part]
            actual = known.get(entry["file"]) or known_sha256(self._path(part))
            if actual != entry["sha256"]:
                raise BadInput("corrupt-cache", f"the checksum of the file, its sha256, is {actual[:12]}..., but the "
                               f"manifest lists {entry['sha256'][:12]}...", file=self._path(part), cure=REDO)
        self._is_compared = True

    @property
    def filled_parts(self) -> list[int]:
        """The parts that hold a clip."""
        return [part for part, entry in enumerate(self.manifest["parts"]) if entry["clips"]]

    def file(self, part: int) -> pq.ParquetFile:
        """The file of a part, of which some are kept open. Raises BadInput as `refuse_damage` does, for any part."""
        if not self._is_compared:
            self.refuse_damage()
        file = self._open.pop(part, None) or pq.ParquetFile(self._path(part), memory_map=True)
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._open[part] = file
        return file

    def _refuse_other_parts(self) -> None:
        """Raise BadInput or Mismatch for a part that is missing, cut, or of another cache.

        A part whose bytes are known to be those that the manifest lists is not opened for that.
        """
        known = remembered_sha256(self.folder, (entry["file"] for entry in self.manifest["parts"] if entry["clips"]))
        for entry in self.manifest["parts"]:
            is_known = known.get(entry["file"]) == entry["sha256"] and "fingerprint" in entry
            if is_known or not entry["clips"]:
                continue
            size = _file_size(f"{self.folder}/{entry['file']}")      # no Path: there are many thousands of parts
            if size != entry["bytes"]:
                fault = "does not exist" if size is None else f"has {size}"
                raise BadInput("cut-cache", f"{entry['bytes']} bytes expected, but the file {fault}.",
                               file=self.folder / entry["file"], cure=REDO)
            refuse_other_part(self.folder / entry["file"], entry)

    def _lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames and full clips of every view of a cache whose manifest does not hold them."""
        lengths = np.zeros((2, len(self.groups)), np.int64)
        for part in self.filled_parts:
            views = np.flatnonzero(self.groups.part == part)
            views = views[np.argsort(self.groups.group[views], kind="stable")]
            lengths[:, views] = lengths_of(self.file(part), self.groups.clips[views],
                                           clip_frames=self.manifest["made_from"]["clip_frames"])
        return lengths[0], lengths[1]

    def _path(self, part: int) -> Path:
        return self.folder / self.manifest["parts"][part]["file"]

    def __reduce__(self) -> tuple:
        return _reopened, (self.folder, self.fingerprint)


def _file_size(path: str) -> int | None:
    """The bytes of a file; None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _reopened(folder: Path, made_as: str) -> QueryCache:
    """A pickled cache in another process. Raises Mismatch where its folder holds another cache by now."""
    cache = QueryCache(folder)
    if cache.fingerprint != made_as:
        raise Mismatch(f"the query cache in {folder} has the fingerprint {cache.fingerprint[:12]}..., but "
                       f"{made_as[:12]}... when this work began: it was made again. Run the same command again.")
    return cache


def views_of(folder: Path, manifest: Mapping[str, Any],
             lengths: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None) -> ViewTable:
    """The table of the views of a cache. lengths: for a manifest of an earlier version, which lacks them."""
    if "views" in manifest:
        return read_table(folder / TABLE, manifest["views"])
    return listed_views(manifest["parts"], lengths=lengths)


def refuse_other_version(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for a manifest of another version of the format."""
    if manifest.get("schema") not in (*EARLIER_SCHEMAS, SCHEMA_OF_TABLE):
        raise ValueError(f"{path} has schema {manifest.get('schema')}, but this version reads "
                         f"{', '.join(map(str, EARLIER_SCHEMAS))} and {SCHEMA_OF_TABLE}; run jobs.cache_queries again")


def refuse_unfit_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise BadInput "cut-cache" where a field is missing, or where a part is not a file in the folder of the cache."""
    parts = manifest.get("parts")
    of_table = manifest.get("schema") == SCHEMA_OF_TABLE
    if not isinstance(parts, list) or not isinstance(manifest.get("made_from"), dict) or \
            "fingerprint" not in manifest or (of_table and not isinstance(manifest.get("views"), dict)):
        raise BadInput("cut-cache", "the manifest lacks parts, made_from, views or fingerprint.", file=path,
                       cure=MANIFEST_CURE)
    needed = {"clips", "bytes", "sha256", *([] if of_table else ["groups"])}
    for part in parts:
        if not isinstance(part, dict) or not can_name_a_file(part.get("file")) or not needed <= part.keys():
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
    store.fetch(path)
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
    if not columns:
        return
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
    """Write the table of the views and the manifest, which completes the cache. One summary is in memory at a time.

    made_from: everything that decides the content.
    """
    folder = Path(folder)
    store.look(folder)      # other machines may have made parts
    store.fetch(folder)
    parts = []
    columns = []            # of each part
    for summary in summaries:
        parts.append({name: summary[name] for name in ("file", "clips", "bytes", "sha256", "fingerprint")})
        columns.append(_view_columns(folder, summary, clip_frames=made_from["clip_frames"]))
    order = sorted(range(len(parts)), key=lambda index: parts[index]["file"])
    of_views = {name: np.concatenate([columns[index][name] for index in order]) if order else []
                for name in ("video", "view", "group", "clips", "frames", "full")}
    of_views["part"] = np.repeat(np.arange(len(order)), [len(columns[index]["view"]) for index in order])
    views = ViewTable.from_columns(of_views).save(folder / TABLE)
    totals = {"views": views["rows"], "clips": sum(part["clips"] for part in parts),
              "bytes": sum(part["bytes"] for part in parts)}
    manifest = {"schema": SCHEMA_OF_TABLE, "fingerprint": fingerprint(made_from), "made_from": dict(made_from),
                "parts": [parts[index] for index in order], "views": views, "totals": totals}
    path = folder / "manifest.json"
    atomic_write(path, canonical_json(sealed(manifest)))
    return path


def _view_columns(folder: Path, summary: Mapping[str, Any], *, clip_frames: int) -> dict[str, np.ndarray]:
    """The rows of the table for one part."""
    groups = summary["groups"]
    columns = {"video": np.array([video for video, *_ in groups], object),
               "view": np.array([view for _, view, _ in groups], np.int32), "group": np.arange(len(groups)),
               "clips": np.array([clips for *_, clips in groups], np.int32)}
    frames = full = np.zeros(0, np.int64)
    if summary["clips"]:
        with pq.ParquetFile(folder / summary["file"], memory_map=True) as file:
            frames, full = lengths_of(file, columns["clips"], clip_frames=clip_frames)
    return {**columns, "frames": frames, "full": full}


def stored_summaries(folder: Path, files: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The summaries of parts that were made, one after another, from their sidecars."""
    for file in files:
        yield own_json((folder / file).with_suffix(".json"), needs=_SUMMARY, cure=REDO)


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
