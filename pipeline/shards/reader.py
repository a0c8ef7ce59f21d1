"""Read a shard set: any frames of any video with one `pread`, id maps, masks, and the ground truth."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.contracts import PanopticVideo, VideoSegment
from model.labels import VOID, ClassTable, panoptic_id
from pipeline.errors import BadInput
from pipeline.images import decode_png
from pipeline.shards.format import INDEX, MANIFEST, SCHEMA, StoredVideo, stored_videos
from pipeline.shards.index import read_index, rows_of_tars

log = logging.getLogger(__name__)

_MAKE_AGAIN = "Delete it and run make_shards again: finished shards are kept."
_FRAMES_AT_ONCE = 8     # of the ground truth; bounds memory, not results


class ShardSet:
    """A folder of finished shards. Cheap to pickle; each process opens the tars it reads by itself.

    Raises FileNotFoundError where the set is not finished or a tar is missing, ValueError where schema, index or the
    size of a tar differ from the manifest.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest, self.fingerprint = _read_manifest(self.folder)
        self.classes = ClassTable.from_json(self.manifest["categories"])
        self.split: str = self.manifest["split"]
        self.clip_frames: int = self.manifest["config"]["clip_frames"]
        for shard in self.manifest["shards"]:
            _check_size(self.folder / shard["name"], shard["size"])
        self.videos = stored_videos(_index_rows(self.folder, self.manifest))
        self._files: dict[tuple[int, int], int] = {}        # (process, shard) -> descriptor; a fork opens its own
        self._last_meta: tuple[tuple[int, int], dict] | None = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}, "_last_meta": None}

    def __del__(self) -> None:
        for (process, _), descriptor in getattr(self, "_files", {}).items():
            if process == os.getpid():
                os.close(descriptor)

    def read(self, video: StoredVideo, start: int, stop: int, *,
             check: bool = False) -> list[tuple[bytes, bytes | None]]:
        """JPEG and id PNG (None without label maps) of frames `start` ... `stop` - 1, by one `pread`.

        check: compare the checksums of the index too; raises BadInput "damaged-shard" where they differ.
        """
        frames = video.frames[start:stop]
        if not frames or start < 0 or stop > len(video.frames):
            raise IndexError(f"frames {start} to {stop} of video {video.video_id!r}, which has {len(video.frames)}")
        begin, (last, length) = frames[0].image[0], frames[-1].label or frames[-1].image
        span = self._pread(video.shard, begin, last + length - begin)
        members = [[span[offset - begin:offset - begin + length] for offset, length in _places(frame)]
                   for frame in frames]
        if check:
            for frame, parts in zip(frames, members):
                if tuple(map(zlib.crc32, parts)) != frame.crc32:
                    raise self._damaged(video, f"frame {frame.name!r} has another checksum than the index")
        return [(parts[0], parts[1] if len(parts) == 2 else None) for parts in members]

    def ids(self, video: StoredVideo, frame_index: int) -> np.ndarray:
        """Id map of one frame, H W uint8 or uint16: 0 void, else an id of `video.segments`."""
        return self._decode(video, self.read(video, frame_index, frame_index + 1)[0][1])

    def masks(self, video: StoredVideo, frame_index: int) -> dict[int, dict]:
        """Id -> COCO run lengths (`size`, `counts` ASCII) in one frame of a video whose masks may overlap.

        Empty for a video without segments. Raises ValueError where the labels are id maps.
        """
        if video.frames[0].label is not None:
            raise ValueError(f"video {video.video_id!r} in {self.folder} has id maps, not run-length masks; use ids()")
        if not video.has_masks:
            return {}
        clip, frame = divmod(frame_index, self.clip_frames)
        if self._last_meta is None or self._last_meta[0] != (video.index, clip):
            meta = json.loads(self._pread(video.shard, *video.metas[clip]))
            self._last_meta = ((video.index, clip), meta)
        size = [video.height, video.width]
        counts = self._last_meta[1]["masks"][frame]
        return {int(id): {"size": size, "counts": run_lengths} for id, run_lengths in counts.items()}

    def truth(self, video: StoredVideo) -> PanopticVideo:
        """Ground truth of one video; its maps are decoded when iterated.

        Things are numbered 1, 2, ... per class in the order of their ids. Stuff has track 0: several stuff segments
        of a class become one, which is crowd only if all of them are. Raises ValueError without label maps.
        """
        if video.frames[0].label is None:
            raise ValueError(f"video {video.video_id!r} in {self.folder} has no panoptic labels"
                             + ("; its masks may overlap, use masks()" if video.has_masks else ""))
        panoptic, segments = _panoptic_segments(video, self.classes)
        return PanopticVideo(video_id=video.video_id, frame_names=tuple(frame.name for frame in video.frames),
                             frames=_PanopticFrames(self, video, panoptic), segments=segments)

    def _decode(self, video: StoredVideo, png: bytes | None) -> np.ndarray:
        if png is None:
            raise ValueError(f"video {video.video_id!r} in {self.folder} has no label maps")
        try:
            return decode_png(png)
        except BadInput as error:
            raise self._damaged(video, error.what) from error

    def _pread(self, shard: int, offset: int, length: int) -> bytes:
        path = self.folder / self.manifest["shards"][shard]["name"]
        process = os.getpid()
        if (process, shard) not in self._files:
            self._files[process, shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._files[process, shard], length, offset)
        while len(data) < length:               # the kernel hands out at most 2 GiB at once
            more = os.pread(self._files[process, shard], length - len(data), offset + len(data))
            if not more:
                raise BadInput("damaged-shard", f"it ends before byte {offset + length}.", file=path, cure=_MAKE_AGAIN)
            data += more
        return data

    def _damaged(self, video: StoredVideo, what: str) -> BadInput:
        path = self.folder / self.manifest["shards"][video.shard]["name"]
        return BadInput("damaged-shard", what + ".", video=video.video_id, file=path, cure=_MAKE_AGAIN)


class _PanopticFrames:
    """T maps H W int32 of panoptic ids, decoded a few at a time, as often as iterated."""

    def __init__(self, shards: ShardSet, video: StoredVideo, panoptic: np.ndarray) -> None:
        self.shards, self.video, self.panoptic = shards, video, panoptic

    def __len__(self) -> int:
        return len(self.video.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _FRAMES_AT_ONCE):
            stop = min(start + _FRAMES_AT_ONCE, len(self))
            for _, png in self.shards.read(self.video, start, stop):
                yield self.panoptic[self.shards._decode(self.video, png)]


def _places(frame) -> list[tuple[int, int]]:
    return [frame.image] if frame.label is None else [frame.image, frame.label]


def _panoptic_segments(video: StoredVideo, classes: ClassTable) -> tuple[np.ndarray, dict[int, VideoSegment]]:
    """The panoptic id of each stored id (position 0: void), and what those ids are."""
    panoptic = np.full(len(video.segments) + 1, VOID, dtype=np.int32)
    tracks: dict[int, int] = {}
    segments: dict[int, VideoSegment] = {}
    for segment in video.segments:
        track = 0
        if classes.is_thing[segment.class_index]:
            track = tracks[segment.class_index] = tracks.get(segment.class_index, 0) + 1
        id = int(panoptic_id(segment.class_index, track))
        same = segments.get(id)
        panoptic[segment.id] = id
        segments[id] = VideoSegment(class_index=segment.class_index, track=track,
                                    is_crowd=segment.is_crowd and (same is None or same.is_crowd))
    return panoptic, segments


def _read_manifest(folder: Path) -> tuple[dict, str]:
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no {MANIFEST} in {folder}: not a shard set, or its make_shards has not finished. "
                                "Run it (again) on this folder; finished shards are kept.") from None
    manifest = json.loads(content)
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"shard set {folder} has schema {manifest.get('schema')!r}, this version reads {SCHEMA}. "
                         "Make the shards again with this version, or use the version that made them.")
    return manifest, hashlib.sha256(content).hexdigest()


def _check_size(path: Path, size: int) -> None:
    if not path.exists():
        raise FileNotFoundError(f"shard {path} is in the manifest but not on disk. Run make_shards again; the other "
                                "shards are kept.")
    if path.stat().st_size != size:
        raise ValueError(f"shard {path} has {path.stat().st_size} bytes, the manifest says {size}: it was cut or "
                         f"changed. {_MAKE_AGAIN}")


def _index_rows(folder: Path, manifest: dict) -> list[dict]:
    if (folder / INDEX).exists():
        return read_index(folder / INDEX, plan=manifest["plan"])
    log.warning("%s has no %s: reading every shard to find its members. write_index(folder) stores the result.",
                folder, INDEX)
    return rows_of_tars(folder, manifest)
