"""Reads a shard set: frames with one `pread`, id maps, masks, and the ground truth of every task."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco

from model.contracts import PanopticVideo, SemanticVideo, Track, Tracks, VideoSegment
from model.labels import VOID, ClassTable, panoptic_id
from pipeline import store
from pipeline.datasets.id_maps import ids_in
from pipeline.digests import known_sha256
from pipeline.errors import BadInput, Mismatch
from pipeline.foreign_files import open_regular
from pipeline.shards.format import INDEX, MANIFEST, StoredVideo
from pipeline.shards.index import batches_of_tars, index_path, read_index
from pipeline.shards.label_png import decode_label
from pipeline.shards.manifest import MAKE_AGAIN, read_manifest
from pipeline.shards.videos import StoredVideos

if TYPE_CHECKING:
    from pyarrow.lib import NativeFile

log = logging.getLogger(__name__)

_REMAKE = "Run jobs.make_shards again, which writes only this shard anew"

_FRAMES_AT_ONCE = 8     # of the ground truth; bounds memory, not results


class ShardSet:
    """A folder of finished shards. It pickles as its path; each process opens its own files.

    tars_here: False where the tars lie in an object store and are streamed; then manifest and index suffice.
    Before a process reads a tar for the first time, it compares the sha256 with the manifest. Where they differ, every
    frame is compared with its checksum, so that only the damaged videos are lost. Tars in a store are not read whole
    for it: there, every frame is compared.
    Raises FileNotFoundError where the set is not finished or a tar is missing, BadInput where manifest or index are
    damaged or the size of a tar differs from the manifest, and ValueError for another schema.
    """

    def __init__(self, folder: Path | str, *, tars_here: bool = True) -> None:
        self.folder = Path(folder)
        self.is_remote = store.in_store(self.folder)
        self.tars_here = tars_here
        self.manifest, self.fingerprint = read_manifest(self.folder)
        self.classes = ClassTable.from_json(self.manifest["categories"])
        self.split: str = self.manifest["split"]
        self.clip_frames: int = self.manifest["config"]["clip_frames"]
        for shard in self.manifest["shards"] if tars_here else ():
            _check_size(f"{self.folder}/{shard['name']}", shard["size"])
        self.videos = _open_videos(self.folder, self.manifest, tars_here=tars_here)
        self._files: dict[tuple[int, int], int] = {}        # (process, shard) -> descriptor; forks open their own
        self._objects: dict[tuple[int, int], NativeFile] = {}       # the same of tars in a store
        self.is_labelled = False        # whether `with_labels` has left videos out
        self._whole: dict[int, bool] = {}                   # shard -> whether it has its sha256

    def __reduce__(self) -> tuple:
        return _reopened, (self.folder, self.tars_here, self.fingerprint, self.is_labelled)

    def __del__(self) -> None:
        for (process, _), descriptor in getattr(self, "_files", {}).items():
            if process == os.getpid():
                os.close(descriptor)

    def read(self, video: StoredVideo, start: int, stop: int, *,
             check: bool = False) -> list[tuple[bytes, bytes | None]]:
        """JPEG and id PNG (None without label) of frames `start` ... `stop` - 1, with one `pread`.

        check: also compare the checksums of the index. Raises BadInput "damaged-shard" where they differ. In a tar with
        a wrong sha256 they are compared in any case; the error is then "corrupt-image".
        """
        compared = check or self.is_remote or not self._is_whole(video.shard)
        frames = video.frames[start:stop]
        if not frames or start < 0 or stop > len(video.frames):
            raise IndexError(f"frames {start} to {stop} of video {video.video_id!r}, which has {len(video.frames)}")
        begin = frames[0].image[0]
        (last, length) = frames[-1].label or frames[-1].image
        span = self._pread(video.shard, begin, last + length - begin)
        members = [[span[offset - begin:offset - begin + length] for offset, length in _places(frame)]
                   for frame in frames]
        if compared:
            for frame, parts in zip(frames, members):
                if tuple(map(zlib.crc32, parts)) != frame.crc32:
                    raise self._damaged(video, f"the checksum of frame {frame.name!r} differs from the index",
                                        reason="damaged-shard" if check else "corrupt-image")
        return [(parts[0], parts[1] if len(parts) == 2 else None) for parts in members]

    def refuse_damage(self) -> None:
        """Compare every tar with its sha256. Raises BadInput for the first damaged frame of one that differs, or for
        the tar where no frame is damaged."""
        for shard in range(len(self.manifest["shards"])):
            if self._is_whole(shard):
                continue
            for video in self.videos.of_shard(shard):
                for start in range(0, len(video.frames), _FRAMES_AT_ONCE):
                    self.read(video, start, min(start + _FRAMES_AT_ONCE, len(video.frames)))
            raise BadInput("damaged-shard", "its sha256 is not that of the manifest.", cure=f"{_REMAKE}.",
                           file=self.folder / self.manifest["shards"][shard]["name"])

    def _is_whole(self, shard: int) -> bool:
        """Whether a tar has the sha256 of the manifest; the log names one that has another."""
        if shard not in self._whole:
            entry = self.manifest["shards"][shard]
            path = self.folder / entry["name"]
            actual = known_sha256(path) if path.exists() else ""      # `_pread` raises the error with the cure
            self._whole[shard] = not actual or actual == entry.get("sha256", actual)
            if not self._whole[shard]:
                log.warning("%s has sha256 %s..., but %s lists %s...: it is damaged, or of another set. Its damaged "
                            "frames are refused. %s.", path, actual[:12], MANIFEST, entry["sha256"][:12], _REMAKE)
        return self._whole[shard]

    def with_labels(self) -> ShardSet:
        """The set as training sees it: without the videos in which no frame has a label.

        Raises ValueError where no video is left.
        """
        has_labels = self.videos.labels > 0
        if has_labels.all():
            return self
        if not has_labels.any():
            raise ValueError(f"none of the {len(self.videos)} videos in {self.folder} has labels, which training "
                             "needs. Take another split, or add the labels and make the shards again")
        labelled = object.__new__(ShardSet)
        labelled.__dict__ |= self.__dict__ | {"_files": {}, "_objects": {}}
        labelled.is_labelled = True
        labelled.videos = self.videos.chosen(has_labels)
        return labelled

    def ids(self, video: StoredVideo, frame_index: int) -> np.ndarray:
        """Id map of one frame, H W uint8 or uint16: 0 for void, or an id of `video.segments` or `video.overlaps`.

        A frame without label is void. Raises ValueError for a video without labels.
        """
        return self._decode(video, self.read(video, frame_index, frame_index + 1)[0][1])

    def masks(self, video: StoredVideo, frame_index: int) -> dict[int, dict]:
        """Segment id -> COCO run lengths (`size`, `counts` as bytes) of the segments in one frame."""
        return _masks(self.ids(video, frame_index), video.overlaps)

    def truth(self, video: StoredVideo) -> PanopticVideo:
        """Ground truth of one video; its maps are decoded when iterated.

        The segments are in the order of the data set, and things are numbered 1, 2, ... per class. Stuff has track 0:
        the stuff segments of a class become one, which is crowd only if all of them are. Raises ValueError without
        label maps, and where segments overlap.
        """
        self._check_labels(video, task="panoptic segmentation")
        panoptic, segments = _panoptic_segments(video, self.classes)
        return PanopticVideo(video_id=video.video_id, frame_names=_names(video), segments=segments,
                             frames=_TranslatedFrames(self, video, panoptic))

    def truth_semantic(self, video: StoredVideo) -> SemanticVideo:
        """The class of every pixel of one video, including crowd; the maps are decoded when iterated.

        Raises ValueError without label maps, and where segments overlap.
        """
        self._check_labels(video, task="semantic segmentation")
        table = np.array([VOID, *(segment.class_index for segment in video.segments)], dtype=np.int32)
        return SemanticVideo(video_id=video.video_id, frame_names=_names(video),
                             frames=_TranslatedFrames(self, video, table))

    def truth_tracks(self, video: StoredVideo) -> Tracks:
        """The things of one video, which may overlap, in the order of the data set; maps are decoded a few at a time.

        Raises ValueError without label maps.
        """
        self._check_labels(video)
        things = [segment for segment in video.segments if self.classes.is_thing[segment.class_index]]
        masks = [_masks(ids, video.overlaps) for ids in _TranslatedFrames(self, video)]
        tracks = tuple(Track(class_index=thing.class_index, is_crowd=thing.is_crowd,
                             masks=tuple(frame.get(thing.id) for frame in masks)) for thing in things)
        return Tracks(video_id=video.video_id, frame_names=_names(video), size=(video.height, video.width),
                      tracks=tracks)

    def _check_labels(self, video: StoredVideo, *, task: str = "") -> None:
        if not video.has_labels:
            raise ValueError(f"video {video.video_id!r} in {self.folder} has no labels; score a split that has them")
        if task and video.overlaps:
            raise ValueError(f"segments of video {video.video_id!r} in {self.folder} overlap, which {task} does not "
                             "allow; score its tracks instead")

    def _decode(self, video: StoredVideo, png: bytes | None) -> np.ndarray:
        if png is None and video.has_labels:
            return np.zeros((video.height, video.width), np.uint8)
        if png is None:
            raise ValueError(f"video {video.video_id!r} in {self.folder} has no label maps")
        try:
            return decode_label(png)
        except BadInput as error:
            raise self._damaged(video, error.what) from error

    def _pread(self, shard: int, offset: int, length: int) -> bytes:
        path = self.folder / self.manifest["shards"][shard]["name"]
        process = os.getpid()
        if self.is_remote:
            if (process, shard) not in self._objects:
                self._objects[process, shard] = open_regular(path)
            return store.read_at(self._objects[process, shard], path, length, offset)
        if (process, shard) not in self._files:
            try:
                with open_regular(path) as file:
                    self._files[process, shard] = os.dup(file.fileno())
            except FileNotFoundError:
                raise FileNotFoundError(f"shard {path} is not on this machine, and only training can stream it "
                                        "(stage_one.input.streaming, stage_one.input.stream_from). Copy the tars to "
                                        "the folder of their manifest.") from None
        data = os.pread(self._files[process, shard], length, offset)
        while len(data) < length:               # the kernel returns at most 2 GiB at once
            more = os.pread(self._files[process, shard], length - len(data), offset + len(data))
            if not more:
                raise BadInput("damaged-shard", f"it ends before byte {offset + length}.", file=path, cure=MAKE_AGAIN)
            data += more
        return data

    def _damaged(self, video: StoredVideo, fault: str, *, reason: str = "damaged-shard") -> BadInput:
        path = self.folder / self.manifest["shards"][video.shard]["name"]
        cure = MAKE_AGAIN if reason == "damaged-shard" else f"{_REMAKE}, or leave the video out."
        return BadInput(reason, fault + ".", video=video.video_id, file=path, cure=cure)


class _TranslatedFrames:
    """T maps H W of stored ids, or of their values in a table. They are decoded a few at a time in every iteration."""

    def __init__(self, shards: ShardSet, video: StoredVideo, table: np.ndarray | None = None) -> None:
        self.shards = shards
        self.video = video
        self.table = table

    def __len__(self) -> int:
        return len(self.video.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _FRAMES_AT_ONCE):
            stop = min(start + _FRAMES_AT_ONCE, len(self))
            for _, png in self.shards.read(self.video, start, stop):
                ids = self.shards._decode(self.video, png)
                yield ids if self.table is None else self.table[ids]


def _names(video: StoredVideo) -> tuple[str, ...]:
    return tuple(frame.name for frame in video.frames)


def _masks(ids: np.ndarray, overlaps: Mapping[int, tuple[int, ...]]) -> dict[int, dict]:
    """COCO run lengths of every segment in an id map, H W."""
    # COCO run lengths are column-major.
    columns = np.asfortranarray(ids)
    pieces = {}
    for id in ids_in(ids):
        mask = coco.encode((columns == id).view(np.uint8))
        for segment in overlaps.get(id, (id,) if id else ()):
            pieces.setdefault(segment, []).append(mask)
    return {segment: coco.merge(masks) if len(masks) > 1 else masks[0] for segment, masks in sorted(pieces.items())}


def _places(frame) -> list[tuple[int, int]]:
    return [frame.image] if frame.label is None else [frame.image, frame.label]


def _panoptic_segments(video: StoredVideo, classes: ClassTable) -> tuple[np.ndarray, dict[int, VideoSegment]]:
    """The panoptic id of each stored id (index 0: void), and the segment of each panoptic id."""
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


def _check_size(path: str, size: int) -> None:      # no Path: a large set has many thousands of tars
    try:
        actual = os.stat(path).st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"shard {path} is in the manifest but not on disk. Run make_shards again; the other "
                                "shards are kept.") from None
    if actual != size:
        raise BadInput("damaged-shard", f"shard {Path(path).name} has {actual} bytes, but the manifest lists "
                       f"{size}: it was truncated or changed.", file=Path(path), cure=MAKE_AGAIN)


def _open_videos(folder: Path, manifest: dict, *, tars_here: bool) -> StoredVideos:
    path = index_path(folder)
    if path.exists():
        return StoredVideos(read_index(path, manifest), manifest)
    if not tars_here:
        raise FileNotFoundError(f"no {INDEX} in {folder}, which streaming needs: copy it from the folder of the "
                                "tars, or run write_index there.")
    log.warning("%s has no %s: reading every shard to rebuild it. write_index(folder) stores the result.",
                folder, INDEX)
    return StoredVideos(batches_of_tars(folder, manifest), manifest)


def _reopened(folder: Path, tars_here: bool, fingerprint: str, is_labelled: bool) -> ShardSet:
    """A pickled set in another process. Raises Mismatch where its folder holds another set by now."""
    shards = ShardSet(folder, tars_here=tars_here)
    if shards.fingerprint != fingerprint:
        raise Mismatch(f"the shards in {folder} have the fingerprint {shards.fingerprint[:12]}..., but "
                       f"{fingerprint[:12]}... when this work began: they were made again. Run the same command again.")
    return shards.with_labels() if is_labelled else shards
