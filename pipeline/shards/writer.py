"""Writes one shard, the unit of work and of retries. Does not depend on Ray."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from isal import isal_zlib

from pipeline.disk_space import free_bytes
from pipeline.errors import BadInput
from pipeline.files import atomic_file, atomic_write, canonical_json, remove_file, sha256_of
from pipeline.foreign_files import whole_json
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.records import Dataset
from pipeline.seals import sealed
from pipeline.shards.class_counts import Counts, add_counts
from pipeline.shards.encode import EncodedClip, encode_video
from pipeline.shards.format import MANIFEST
from pipeline.shards.index import index_row
from pipeline.shards.plan import ShardPlan

log = logging.getLogger(__name__)

_SIDECAR = {"plan": str, "name": str, "size": int, "sha256": str, "videos": int, "clips": int, "frames": int,
            "errors": list, "index": list}


def make_shard(dataset: Dataset, folder: Path, plan: ShardPlan, shard: int, *, strict: bool = False) -> dict:
    """Write one shard unless it is finished; returns its sidecar.

    A shard is finished when its sidecar has this plan, its size and sha256 are right, and its skipped videos are still
    bad. A bad video is skipped completely and counted; under `strict` its BadInput is raised. Raises OSError naming the
    shard when it cannot be written; then no file of that name appears.
    """
    path = folder / plan.name(shard)
    sidecar = path.with_suffix(".json")
    done = _finished(path, sidecar, plan)
    if done is not None and not (strict and (done["errors"] or done.get("faults"))) and _still_bad(
            dataset, done, plan):
        return done
    for finished in (folder / MANIFEST, sidecar):   # from here on neither the set nor the shard is finished
        remove_file(finished)
    try:
        facts = _write_tar(dataset, path, plan, shard, strict=strict)
        atomic_write(sidecar, canonical_json(sealed(facts)))
    except OSError as error:
        failure = OSError(error.errno, f"cannot write shard {path}: {error.strerror}. Free space or get write "
                          "permission, then run the same command again; finished shards are kept.")
        failure.add_note(f"{free_bytes(path):,} bytes are free on its disk.")
        raise failure from error
    return facts


def shard_outcomes(facts: Mapping[str, Any]) -> list[VideoOutcome]:
    """The outcome of every video of a shard, from its sidecar."""
    frames = Counter()
    for row in facts["index"]:
        frames[row["video_id"]] += row["num_frames"]
    done = [VideoOutcome(video=video, frames=count) for video, count in frames.items()]
    return [*done, *map(VideoOutcome.from_json, facts["errors"])]


def _write_tar(dataset: Dataset, path: Path, plan: ShardPlan, shard: int, *, strict: bool) -> dict:
    rows = []
    outcomes = Outcomes()
    classes: Counts = {}
    remarks: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    with atomic_file(path) as file:
        tar = _Tar(file)
        for video_id in plan.shards[shard]:
            try:
                # Memory holds one video at a time.
                video = encode_video(dataset, video_id, plan.config, schema=plan.schema)
                if strict and video.faults:
                    raise next(iter(video.faults.values()))
                clips = [index_row(clip.meta, key=clip.key, shard=shard, members=tar.add(clip)) for clip in video.clips]
                add_counts(classes, video.classes)
                remarks.update(video.remarks)
                faults += fault_rows(video_id, video.faults)
                for fault in video.faults.values():
                    log.warning("faulty frame: %s", fault)
                del video
                rows += clips
                outcomes.add([VideoOutcome(video=video_id, frames=sum(row["num_frames"] for row in clips))])
            except BadInput as error:
                if strict:
                    raise
                log.warning("skipped: %s", error)
                outcomes.add([VideoOutcome.skip(video_id, error)])
        tar.close()
    return {"schema": plan.schema, "plan": plan.digest,
            "name": path.name, "size": tar.size, "sha256": tar.sha256.hexdigest(),
            "videos": len(outcomes.done), "clips": len(rows), "frames": outcomes.frames,
            "skipped": outcomes.reasons, "errors": outcomes.skipped_rows(), "index": rows,
            "classes": sorted([class_index, *row] for class_index, row in classes.items()), "remarks": dict(remarks),
            "faults": faults}


def fault_rows(video_id: str, faults: Mapping[str, BadInput]) -> list[dict[str, str]]:
    """Video, frame, reason and message of every frame that has lost its label or is left out, as plain values."""
    return [{"video": video_id, "frame": frame, "reason": fault.reason, "message": str(fault)}
            for frame, fault in faults.items()]


class _Tar:
    """A tar whose bytes depend on its members alone. It is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def add(self, clip: EncodedClip) -> list[dict]:
        """Append the members of one clip in order; returns the name, offset, length and crc32 of each."""
        members = []
        for suffix, content in clip.members:
            info = tarfile.TarInfo(f"{clip.key}.{suffix}")      # owner and time stay 0, for equal bytes every time
            info.size = len(content)
            self._write(info.tobuf(tarfile.GNU_FORMAT))
            members.append({"name": info.name, "offset": self.size, "length": len(content),
                            "crc32": isal_zlib.crc32(content)})
            self._write(content)
            self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return members

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)


def _finished(path: Path, sidecar: Path, plan: ShardPlan) -> dict | None:
    """The sidecar of a shard, or None where the shard is not complete or of another plan."""
    if not (path.exists() and sidecar.exists()):
        return None
    facts = whole_json(sidecar, needs=_SIDECAR)
    if facts is None:
        return None     # only this shard is written again
    same = facts.get("schema") == plan.schema and facts["plan"] == plan.digest and facts["size"] == path.stat().st_size
    return facts if same and sha256_of(path) == facts["sha256"] else None


def _still_bad(dataset: Dataset, facts: Mapping[str, Any], plan: ShardPlan) -> bool:
    faults = facts.get("faults", [])
    for video_id in dict.fromkeys(fault["video"] for fault in faults):
        try:
            now = fault_rows(video_id, encode_video(dataset, video_id, plan.config).faults)
        except BadInput:
            return False
        if now != [fault for fault in faults if fault["video"] == video_id]:
            return False    # a label was repaired, or damaged
    for error in facts["errors"]:
        try:
            encode_video(dataset, error["video"], plan.config)
        except BadInput:
            continue
        return False    # the video was repaired, so the shard is written again
    return True
