"""Encodes one video of a data set as the members of its shard, and checks every frame. Nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import store
from pipeline.errors import BadInput
from pipeline.faulty_labels import without_faulty_labels
from pipeline.files import canonical_json
from pipeline.foreign_files import read_file
from pipeline.images import (
    check_jpeg,
    decode_image,
    encode_jpeg,
    encode_png,
    image_size,
    is_upright_jpeg,
    resize_image,
)
from pipeline.picture_headers import orientation
from pipeline.records import Dataset, FrameRecord, VideoRecord
from pipeline.shards.allowed import refuse_unfit_video
from pipeline.shards.class_counts import Counts, video_counts
from pipeline.shards.format import META, SCHEMA, clip_key
from pipeline.shards.id_runs import IdRuns
from pipeline.shards.label_png import LabelEncoder
from pipeline.shards.plan import ShardConfig
from pipeline.shards.stored_ids import StoredIds

UNLABELLED = "frames without a label"
FAULTS_OF_A_VIDEO = ("too-many-segments", "bad-id")     # which the label of one frame shows


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """One stored clip: the values of its `meta.json`, and (suffix, content) of every member, `meta.json` last."""

    key: str
    meta: dict
    members: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedVideo:
    """The stored clips of one video, how often its classes occur, and what the reader or a check remarked."""

    clips: list[EncodedClip]
    classes: Counts
    remarks: Mapping[str, int]
    faults: Mapping[str, BadInput]      # of frames, which have no label for this reason, or are left out


def encode_video(dataset: Dataset, video_id: str, config: ShardConfig, *, schema: int = SCHEMA) -> EncodedVideo:
    """One video, in memory, as a set of this schema stores it. A frame whose label cannot be read, or contradicts the
    annotation, has none; one whose picture cannot be read is left out. Both are among the `faults`.

    Raises BadInput naming the video, the file and the cure for a picture of another size, for any unreadable one of a
    video without labels, and where every labelled frame is faulty: "empty-video", "missing-image", "missing-label",
    "unreadable", "corrupt-image", "corrupt-label", "size-differs", "unlisted-id", "no-pixels", "unknown-category",
    "too-many-segments", "bad-name", or a reason of the data set's reader.
    """
    with _blame(video_id):
        video = dataset.read(video_id)
        refuse_unfit_video(video, dataset.classes)
        with store.held(path for frame in video.frames for path in (frame.image, frame.label)):
            labels: dict[str, BadInput] = {}
            pictures: dict[str, BadInput] = {}
            encoded = _encode(dataset, video, config, schema, labels, pictures)
            if labels or pictures:      # other ids and clips, without the objects and frames that are lost
                rest = replace(video, frames=tuple(frame for frame in video.frames if frame.name not in pictures))
                encoded = _encode(dataset, without_faulty_labels(rest, pictures | labels), config, schema, {}, {})
            return encoded


def _encode(dataset: Dataset, video: VideoRecord, config: ShardConfig, schema: int, labels: dict[str, BadInput],
            pictures: dict[str, BadInput]) -> EncodedVideo:
    """labels, pictures: get the faults of these; with one of a picture, the result is not to be used."""
    stored_ids = StoredIds(video)
    encode_label = _label_encoder(config.stored_size(video.height, video.width), schema)
    starts = range(0, len(video.frames), config.clip_frames)
    frames = [_encode_frames(dataset, video, start, stored_ids, config, encode_label, labels, pictures)
              for start in starts]
    # The meta of every clip lists all overlaps, which are complete only now.
    return EncodedVideo(
        clips=[_encode_clip(video, clip, members, stored_ids, config, schema) for clip, members in enumerate(frames)],
        classes=video_counts(stored_ids.table, stored_ids.overlaps, stored_ids.pixels), remarks=_remarks(video),
        faults=video.faults)


def _label_encoder(size: tuple[int, int], schema: int) -> Callable[[IdRuns], bytes]:
    """What makes the PNGs of a video in a set of this schema. size: of the maps, height and width."""
    return LabelEncoder(size).encode if schema == 3 else lambda runs: encode_png(runs.painted())


def _remarks(video: VideoRecord) -> Mapping[str, int]:
    unlabelled = sum(frame.label is None and frame.masks is None for frame in video.frames)
    if unlabelled == len(video.frames):
        return {**video.remarks, "videos without a label": 1}
    return {**video.remarks, UNLABELLED: unlabelled} if unlabelled else video.remarks


def _encode_frames(dataset: Dataset, video: VideoRecord, start: int, stored_ids: StoredIds,
                   config: ShardConfig, encode_label: Callable[[IdRuns], bytes], labels: dict[str, BadInput],
                   pictures: dict[str, BadInput]) -> list[tuple[str, bytes]]:
    size = config.stored_size(video.height, video.width)
    members = []
    for index, frame in enumerate(video.frames[start:start + config.clip_frames]):
        readable = start + index - len(pictures)        # frames before this one
        try:
            image = _encode_image(video, frame, size, config, decode=readable < config.decoded_frames)
        except BadInput as error:
            if error.reason == "size-differs":      # nothing tells which of the sizes is right
                raise
            pictures[frame.name] = error
            continue
        members.append((f"f{index:03d}.jpg", image))
        runs = None
        try:
            with _blame(video.video_id, frame.label, missing="missing-label"):
                runs = stored_ids.runs(dataset, video, frame, size)
        except BadInput as error:
            if error.reason in FAULTS_OF_A_VIDEO:
                raise
            labels[frame.name] = error
        if runs is not None:
            members.append((f"f{index:03d}.png", encode_label(runs)))
    return members


def _encode_clip(video: VideoRecord, clip: int, members: list[tuple[str, bytes]], stored_ids: StoredIds,
                 config: ShardConfig, schema: int) -> EncodedClip:
    start = clip * config.clip_frames
    names = [frame.name for frame in video.frames[start:start + config.clip_frames]]
    height, width = config.stored_size(video.height, video.width)
    meta = {"schema": schema, "video_id": video.video_id, "clip_index": clip, "start_frame": start,
            "num_frames": len(names), "video_frames": len(video.frames), "height": height, "width": width,
            "frame_names": names, "segments": stored_ids.table, "overlaps": stored_ids.overlaps}
    return EncodedClip(key=clip_key(video.video_id, clip), meta=meta, members=(*members, (META, canonical_json(meta))))


def _encode_image(video: VideoRecord, frame: FrameRecord, size: tuple[int, int], config: ShardConfig, *,
                  decode: bool) -> bytes:
    """The data set's own JPEG, checked. A frame that is resized, turned upright or no JPEG is encoded as a new one.

    Other formats are converted because JPEGs decode in a fraction of the time in every epoch, and so that shards hold
    one kind of image.
    """
    with _blame(video.video_id, frame.image, missing="missing-image"):
        data = read_file(frame.image)
        if (actual := image_size(data)) != (video.height, video.width):
            raise _other_size(data, actual, video)
        if size == actual and is_upright_jpeg(data):
            if decode:
                check_jpeg(data)
            return data
        pixels = decode_image(data)
        return encode_jpeg(pixels if size == actual else resize_image(pixels, *size), quality=config.jpeg_quality)


def _other_size(data: bytes, actual: tuple[int, int], video: VideoRecord) -> BadInput:
    turned = orientation(data)
    upright = f" once it is turned upright (EXIF orientation {turned})" if turned > 1 else ""
    cure = "Save the frames without an orientation, as the labels see them." if upright else \
        "Resize frames, labels and annotations together."
    return BadInput("size-differs", f"the frame is {actual[1]}x{actual[0]} pixels{upright}, but the video is "
                    f"{video.width}x{video.height}.", cure=cure)


@contextmanager
def _blame(video_id: str, file: Path | None = None, *, missing: str = "missing-file") -> Iterator[None]:
    """Turn errors of source files into a BadInput that names them. Errors of writing shards are raised elsewhere."""
    try:
        yield
    except BadInput as error:
        if error.video and (error.file or file is None):
            raise
        raise BadInput(error.reason, error.what, video=error.video or video_id, file=error.file or file,
                       cure=error.cure) from error
    except ConnectionError:         # the store does not answer, and the video is not to blame
        raise
    except FileNotFoundError as error:
        raise BadInput(missing, "the file does not exist.", video=video_id, file=error.filename or file,
                       cure="Copy it again, or remove the video from the list of the split.") from error
    except OSError as error:
        raise BadInput("unreadable", f"it cannot be read: {error.strerror}.", video=video_id,
                       file=error.filename or file,
                       cure="Give the current user read permission, or copy the file again.") from error
    except Exception as error:
        error.add_note(f"while sharding video {video_id!r}" + (f", file {file}" if file else ""))
        raise
