"""One video of a data set -> the members its shard will hold, every frame checked. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

from pipeline.errors import BadInput
from pipeline.files import canonical_json
from pipeline.images import decode_jpeg, encode_jpeg, encode_png, jpeg_size, resize_ids, resize_image
from pipeline.records import Dataset, FrameRecord, VideoRecord
from pipeline.shards.format import META, SCHEMA, clip_key
from pipeline.shards.plan import ShardConfig

_SAME_RUN = "Make annotations and label maps from the same run of the converter."


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """One stored clip: its `meta.json` as values, and (suffix, content) of every member, meta last."""

    key: str
    meta: dict
    members: tuple[tuple[str, bytes], ...]


def encode_video(dataset: Dataset, video_id: str, config: ShardConfig) -> list[EncodedClip]:
    """All stored clips of one video, in memory.

    Raises BadInput naming video, file and cure, for anything wrong with any frame: "empty-video", "missing-image",
    "missing-label", "unreadable", "corrupt-image", "corrupt-label", "size-differs", "unlisted-id", "no-pixels",
    "unknown-category", "too-many-segments", or what the data set's reader found.
    """
    with _blame(video_id):
        video = dataset.read(video_id)
        _check_record(video, len(dataset.classes))
        stored_ids = _StoredIds(video)
        return [_encode_clip(dataset, video, clip, stored_ids, config)
                for clip in range(-(-len(video.frames) // config.clip_frames))]


def _encode_clip(dataset: Dataset, video: VideoRecord, clip: int, stored_ids: _StoredIds,
                 config: ShardConfig) -> EncodedClip:
    start = clip * config.clip_frames
    frames = video.frames[start:start + config.clip_frames]
    height, width = config.stored_size(video.height, video.width)
    members = []
    for number, frame in enumerate(frames):
        image = _encode_image(video, frame, (height, width), config, decode=start + number < config.decoded_frames)
        members.append((f"f{number:03d}.jpg", image))
        if frame.label is not None:
            ids = stored_ids.of(dataset, video, frame)                      # H W
            members.append((f"f{number:03d}.png", encode_png(_resized(ids, height, width))))
    meta = {"schema": SCHEMA, "video_id": video.video_id, "clip_index": clip, "start_frame": start,
            "num_frames": len(frames), "video_frames": len(video.frames), "height": height, "width": width,
            "frame_names": [frame.name for frame in frames], "segments": stored_ids.table}
    if stored_ids.has_masks:
        meta["masks"] = [stored_ids.masks(video, frame, (height, width)) for frame in frames]
    return EncodedClip(key=clip_key(video.video_id, clip), meta=meta, members=(*members, (META, canonical_json(meta))))


def _encode_image(video: VideoRecord, frame: FrameRecord, size: tuple[int, int], config: ShardConfig, *,
                  decode: bool) -> bytes:
    """The data set's own JPEG, checked; another one only where the size changes."""
    with _blame(video.video_id, frame.image, missing="missing-image"):
        data = frame.image.read_bytes()
        if (found := jpeg_size(data)) != (video.height, video.width):
            raise BadInput("size-differs", f"the frame is {found[1]}x{found[0]} pixels, the video "
                           f"{video.width}x{video.height}.", cure="Resize frames, labels and annotations together.")
        if size == found:
            if decode:
                decode_jpeg(data)
            return data
        return encode_jpeg(resize_image(decode_jpeg(data), *size), quality=config.jpeg_quality)


class _StoredIds:
    """A video's ids renumbered 1 ... m in the order of the data set's own."""

    def __init__(self, video: VideoRecord) -> None:
        segments = sorted(video.segments, key=lambda segment: segment.id)
        self.table = [{"id": number, "source_id": segment.id, "class_index": segment.class_index,
                       "is_crowd": segment.is_crowd} for number, segment in enumerate(segments, start=1)]
        self.source = np.array([0] + [segment.id for segment in segments])              # stored id -> source id
        self.number = {segment.id: number for number, segment in enumerate(segments, start=1)}
        self.has_masks = video.frames[0].label is None and bool(segments)
        dtype = np.uint8 if len(segments) <= np.iinfo(np.uint8).max else np.uint16
        self.lookup = np.zeros(0 if self.has_masks else int(self.source.max()) + 2, dtype)   # its last entry stays 0
        if not self.has_masks:
            self.lookup[self.source] = np.arange(len(segments) + 1)

    def of(self, dataset: Dataset, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Stored ids of one frame, H W uint8 or uint16, compared with what the annotation lists for it."""
        with _blame(video.video_id, frame.label, missing="missing-label"):
            source = dataset.frame_ids(video, frame)                                    # H W int32
            if source.shape != (video.height, video.width):
                raise BadInput("size-differs", f"the label is {source.shape[1]}x{source.shape[0]} pixels, the video "
                               f"{video.width}x{video.height}.", cure="Resize frames, labels and annotations together.")
            ids = self.lookup.take(source, mode="clip")         # ids outside the table become 0, as void
            if np.count_nonzero(ids) != np.count_nonzero(source):
                raise BadInput("unlisted-id", f"its pixels have the ids {_some(set(source[ids == 0].tolist()) - {0})}, "
                               "which the annotation of the video does not list.", cure=_SAME_RUN)
            self._check_listing(frame, ids)
        return ids

    def _check_listing(self, frame: FrameRecord, ids: np.ndarray) -> None:
        pixels = cv2.calcHist([ids], [0], None, [len(self.source)], [0, len(self.source)]).ravel()[1:]
        drawn, listed = set(self.source[1:][pixels > 0].tolist()), set(frame.segment_ids)
        if drawn - listed:
            raise BadInput("unlisted-id", f"its pixels have the ids {_some(drawn - listed)}, which the annotation of "
                           f"frame {frame.name!r} does not list.", cure=_SAME_RUN)
        if listed - drawn:
            raise BadInput("no-pixels", f"the annotation of frame {frame.name!r} lists the segments "
                           f"{_some(listed - drawn)}, which have no pixel.", cure=_SAME_RUN)

    def masks(self, video: VideoRecord, frame: FrameRecord, size: tuple[int, int]) -> dict[str, str]:
        """Stored id -> COCO run lengths of one frame, ASCII, at the stored size."""
        runs = {}
        for id, mask in frame.masks.items():
            if id not in self.number:
                raise BadInput("unlisted-id", f"frame {frame.name!r} has a mask of id {id}, which the annotation of "
                               "the video does not list.", video=video.video_id, cure=_SAME_RUN)
            if tuple(mask["size"]) != (video.height, video.width):
                raise BadInput("size-differs", f"the mask of id {id} in frame {frame.name!r} has size {mask['size']}, "
                               f"the video {[video.height, video.width]}.", video=video.video_id, cure=_SAME_RUN)
            packed = coco.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
            if size != (video.height, video.width):
                packed = coco.encode(np.asfortranarray(resize_ids(coco.decode(packed), *size)))
            counts = packed["counts"]
            runs[str(self.number[id])] = counts if isinstance(counts, str) else counts.decode("ascii")
        return runs


def _check_record(video: VideoRecord, classes: int) -> None:
    if not video.frames:
        raise BadInput("empty-video", "it has no frames.", cure="Copy its frames, or take it off the split's list.")
    ids = [segment.id for segment in video.segments]
    if len(set(ids)) != len(ids) or min(ids, default=1) < 1:
        raise BadInput("bad-id", f"its segments have the ids {_some(ids)}; ids must be above 0 and differ.",
                       cure=_SAME_RUN)
    unknown = sorted({s.class_index for s in video.segments if not 0 <= s.class_index < classes})
    if unknown:
        raise BadInput("unknown-category", f"its segments have the classes {_some(unknown)}, the table has {classes}.",
                       cure="Use the category file of this data set.")
    if len(video.segments) > np.iinfo(np.uint16).max:
        raise BadInput("too-many-segments", f"{len(video.segments)} segments; a 16 bit id map holds 65535.",
                       cure="Cut the video into shorter ones.")
    unlabelled = [frame.name for frame in video.frames if frame.label is None]
    if 0 < len(unlabelled) < len(video.frames):
        raise BadInput("missing-label", f"the frames {unlabelled[:5]} have no label file, others do.",
                       cure="Add the labels (all zero is void), or take these frames out.")


@contextmanager
def _blame(video_id: str, file: Path | None = None, *, missing: str = "missing-file") -> Iterator[None]:
    """Errors of source files become BadInput that names them; errors while writing shards never pass here."""
    try:
        yield
    except BadInput as error:
        if error.video and (error.file or file is None):
            raise
        raise BadInput(error.reason, error.what, video=error.video or video_id, file=error.file or file,
                       cure=error.cure) from error
    except FileNotFoundError as error:
        raise BadInput(missing, "the file does not exist.", video=video_id, file=error.filename or file,
                       cure="Copy it again, or take the video off the split's list.") from error
    except OSError as error:
        raise BadInput("unreadable", f"it cannot be read: {error.strerror}.", video=video_id,
                       file=error.filename or file,
                       cure="Give the user who runs this read permission, or copy the file again.") from error
    except Exception as error:
        error.add_note(f"while sharding video {video_id!r}" + (f", file {file}" if file else ""))
        raise


def _resized(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    return ids if ids.shape == (height, width) else resize_ids(ids, height, width)


def _some(ids) -> str:
    ids = sorted(ids)
    return f"{ids[:5]}" + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
