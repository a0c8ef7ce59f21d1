"""YouTube-VIS 2019, 2021 and 2022, OVIS, and any video instance data set in their layouts, in one reader.

<split>/JPEGImages/<video>/<frame>.jpg with <split>.json, or the older <split>/instances.json; OVIS has no folder
JPEGImages and keeps its jsons in annotations/. A track is an annotation with one mask per frame, stored as run
lengths and null where the object is absent. Source: youtubevos.org and the YouTube-VIS API; songbai.site/ovis (Qi et
al., IJCV 2022).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from model.labels import ClassTable
from pipeline.datasets.classes_youtube_vis import TABLES, thing_table
from pipeline.datasets.coco_video import Faults, as_youtube_vis, is_coco_video
from pipeline.datasets.folders import files_by_stem, first_existing, load_entry, root_folder, size_of_pictures
from pipeline.datasets.json_entries import Entry, shown, whole_number, whole_or_text
from pipeline.datasets.run_lengths import packed_masks
from pipeline.errors import BadInput
from pipeline.faulty_labels import without_faulty_labels
from pipeline.file_names import PICTURES, frame_name, video_name
from pipeline.frame_order import in_order_of_time
from pipeline.records import FrameRecord, Mask, Segment, VideoRecord

NO_SIZE = "videos without a size in the json (that of the picture counts)"
COPY_AGAIN = "Copy the json of this split again, or correct this entry."
NO_OBJECTS = "videos without an object, since the json lists no annotation (if nobody labelled them, write null there)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One video as the json lists it."""

    entry: Entry
    folder: str                         # of its frames, inside the folder of all frames; "" if they lie in that one
    files: tuple[str | BadInput, ...]   # names of its frames in the order of the json, without the folder; or why none


class YouTubeVis:
    """One split. Its json is parsed once per process, however many copies of this object the process holds.

    name: the class table; "youtube_vis" takes the classes from the json, for your own data, which may also be a COCO
    video json (`coco_video.py`). In a json without `annotations`, or with null (the public valid json), videos have no
    labels; in one with an empty list, they are labelled and hold no object.
    Raises `FileNotFoundError` when the root, the frames or the json do not exist, `BadInput` for a json that cannot be
    read, `ValueError` when it is of another year.
    """

    def __init__(self, root: str, *, split: str = "train", name: str = "youtube_vis") -> None:
        self.root = root_folder(root, name=name)
        self.split = split
        self.name = name
        names = [f"{split}.json", f"{split}/instances.json", f"annotations/{split}.json",
                 f"annotations/instances_{split}.json", f"annotations/annotations_{split}.json",
                 f"annotations_{split}.json", *(["instances.json"] if split == "train" else [])]
        self.annotations = first_existing([self.root / name for name in names],
                                          description=f"json of the split {split!r}")
        self.images = first_existing([self.root / split / "JPEGImages", self.root / "JPEGImages", self.root / split],
                                     description="folder of frames")
        self.classes = self._class_table()

    def __reduce__(self):
        return _reopen, (str(self.root), self.split, self.name)

    def video_ids(self) -> list[str]:
        """The folder names of all videos of the split, sorted; nested folders are joined by "+"."""
        return sorted(self._videos)

    @property
    def remarks(self) -> Mapping[str, int]:
        """Entries of the json that belong to no video, and are left out."""
        counts = {"annotations of no listed video": self._orphans,
                  NO_OBJECTS: len(self._videos) * (self._content.values.get("annotations") == []),
                  "images of no listed video": self._json[1].strays,
                  "images or annotations that cannot be read, of no listed video": self._json[1].of_no_video}
        return {remark: count for remark, count in counts.items() if count}

    def listed(self) -> dict[str, Listed]:
        """The videos whose entries can be read, by name."""
        return {name: video for name, video in self._videos.items() if isinstance(video, Listed)}

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video; its masks are COCO run lengths. Frames are in natural order, whatever that of the json.

        A frame in which a mask cannot be read, is of another size than the video, or belongs to a track of an unknown
        category or without an id of its own, has no label and is named among the faults; so is a frame whose file does
        not exist or is badly named, which is left out. Tracks without any pixel are left out and counted. Raises
        `BadInput` where all frames are faulty, and for an unknown or empty video and fields of the wrong type; in a
        split without labels, whose results need every frame, for each bad frame.
        """
        video = self._videos.get(video_id)
        if video is None:
            raise BadInput("not-in-json", f"the json of split {self.split!r} has no such video.", video=video_id,
                           file=self.annotations, cure="Use a name that video_ids() lists.")
        if isinstance(video, BadInput):
            raise BadInput(video.reason, video.what, video=video_id, file=self.annotations, cure=COPY_AGAIN)
        entry = video.entry.of_video(video_id)
        if fault := self._json[1].by_video.get(entry.key("id")):
            raise BadInput(fault.reason, fault.what, video=video_id, file=self.annotations, cure=COPY_AGAIN)
        if not video.files:
            raise entry.bad("the video has no frames.", "empty-video")
        remarks: Counter[str] = Counter()
        faults = {frame: entry.bad(fault.what, fault.reason)
                  for frame, fault in self._json[1].of_frames(entry.key("id")).items()}
        left_out: dict[str, BadInput] = {}
        images = self._images(video, video_id, remarks, faults, left_out)
        names = {index: frame_name(PurePosixPath(video.files[index]).stem) for index in images}
        size = _size(entry, images, remarks)
        annotations = [annotation.of_video(video_id) for annotation in self._annotated.get(entry.key("id"), [])]
        segments, masks = self._tracks(annotations, len(video.files), size, remarks, faults)
        frames = {names[index]: FrameRecord(name=names[index], image=image, segment_ids=tuple(masks[index]),
                                            masks=masks[index] if self._has_labels else None)
                  for index, image in images.items()}
        in_order = [frame_name(stem) for stem in _in_order((video.files[index] for index in images), entry)]
        if in_order != list(frames):
            remarks["videos whose frames were put in natural order"] += 1
        return without_faulty_labels(
            VideoRecord(video_id=video_id, height=size[0], width=size[1], segments=segments, remarks=remarks,
                        frames=tuple(frames[name] for name in in_order)),
            {names[index]: fault for index, fault in sorted(faults.items()) if index in names} | left_out)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: instances may overlap, so no id map can hold them. Read `FrameRecord.masks` instead."""
        raise TypeError(f"{self.name} has masks as run lengths and no id maps; read FrameRecord.masks")

    def _images(self, video: Listed, video_id: str, remarks: Counter[str], faults: dict[int, BadInput],
                left_out: dict[str, BadInput]) -> dict[int, Path]:
        """Place of each frame in the json -> its picture. left_out: gets the frames without one. faults: gets the first
        place of a frame that is listed twice, since nothing tells which label is right.
        """
        pictures = files_by_stem(self.images / video.folder, PICTURES, roots=(self.root, self.images), video=video_id,
                                 kind="image")
        entry = video.entry.of_video(video_id)
        places: dict[str, int] = {}
        for index, file in enumerate(video.files):
            if isinstance(file, BadInput):
                left_out[f"number {index} in the json"] = entry.bad(file.what, file.reason)
                continue
            name = frame_name(PurePosixPath(file).stem)
            if name not in pictures:
                left_out[name] = BadInput(
                    "missing-image", "the json lists this frame, but the file does not exist.", video=video_id,
                    file=self.images / video.folder / file, cure="Copy the missing files, or correct the name.")
            elif places.setdefault(name, index) != index:
                faults.setdefault(places[name], entry.bad(f"its frame {name!r} is listed twice.", "frame-mismatch"))
        if (left_out or faults) and not (places and self._has_labels):
            raise next(iter([*left_out.values(), *faults.values()]))
        if video.folder and len(pictures) > len(places):
            remarks["frames that the json does not list"] += len(pictures) - len(places)
        return {index: pictures[name] for name, index in places.items()}

    def _class_table(self) -> ClassTable:
        rows = list(self._content.entries("categories", "category")) if self._content.values.get("categories") else []
        listed = {row.whole("id", least=0): row.text("name") for row in rows}
        if len(listed) < len(rows):
            raise self._content.bad(f"{len(rows)} categories have only {len(listed)} different ids; each needs its "
                                    "own.", "duplicate-id")
        if self.name not in TABLES:
            if not listed:
                raise self._content.bad("the json lists no categories.", "unknown-category")
            return thing_table(self.name, listed)
        table = TABLES[self.name]
        known = [info for info in table.classes if info.dataset_id in listed]
        renamed = [info for info in known if _plain(listed[info.dataset_id]) != _plain(info.name)]
        if len(renamed) > len(known) // 2:    # a few differences are spellings; this many mean another year
            raise ValueError(f"{self.annotations} calls category {renamed[0].dataset_id} "
                             f"{listed[renamed[0].dataset_id]!r}, but in {self.name} it is {renamed[0].name!r}. Set "
                             f"dataset.name to the right year, or to youtube_vis for the categories of the json.")
        return table

    @cached_property
    def _json(self) -> tuple[Entry, Faults]:
        """The content as of YouTube-VIS, and the videos with faulty entries, where it was converted."""
        content = load_entry(self.annotations, cure=COPY_AGAIN)
        if not is_coco_video(content):
            return content, Faults()
        converted, faults = as_youtube_vis(content)
        return content.part(converted, content.kind), faults

    @property
    def _content(self) -> Entry:
        return self._json[0]

    @cached_property
    def _videos(self) -> dict[str, Listed | BadInput]:
        """Name -> the video, or the reason why its entry cannot be read."""
        videos: dict[str, Listed | BadInput] = {}
        ids = Counter(whole_or_text(values.get("id")) for values in self._content.list("videos")
                      if isinstance(values, dict))
        for index, values in enumerate(self._content.list("videos")):
            name = f"videos[{index}]"
            try:
                video = _listed(self._content.part(values, "video"))
                name = video_name(video.folder) or f"video_{video.entry.key('id')}"
                if ids[video.entry.key("id")] > 1 or name in videos:
                    video = video.entry.bad(f"the id {shown(video.entry.value('id'))} or the folder of this video is "
                                            "listed twice; each video needs its own.", "duplicate-id")
                videos[name] = video
            except BadInput as error:
                videos[name] = error
        return videos

    @cached_property
    def _grouped(self) -> tuple[dict[int | str, list[Entry]], int]:
        """The annotations of each video by its id, and the number of those that belong to no video."""
        if not self._has_labels:
            return {}, 0
        ids = {video.entry.key("id") for video in self.listed().values()}
        ids |= {whole_or_text(values.get("id")) for values in self._content.list("videos") if isinstance(values, dict)}
        grouped = defaultdict(list)
        orphans = 0
        for values in self._content.list("annotations"):
            video = whole_or_text(values.get("video_id")) if isinstance(values, dict) else None
            if video is None or video not in ids:
                orphans += 1
            else:
                grouped[video].append(self._content.part(values, "track"))
        if orphans and not grouped:
            raise self._content.bad(f"none of {orphans} annotations belongs to a video that the json lists; compare "
                                    "their video_id with the id of the videos.", "orphan-annotation")
        return dict(grouped), orphans

    @property
    def _has_labels(self) -> bool:
        """Whether the json has a list of annotations, be it empty."""
        return self._content.values.get("annotations") is not None

    @property
    def _annotated(self) -> dict[int | str, list[Entry]]:
        return self._grouped[0]

    @property
    def _orphans(self) -> int:
        return self._grouped[1]

    def _tracks(self, annotations: list[Entry], length: int, size: tuple[int, int], remarks: Counter[str],
                faults: dict[int, BadInput]) -> tuple[tuple[Segment, ...], list[dict[int, Mask]]]:
        """The segments, and for each frame a dict of track id -> run lengths. What is left out is counted.

        faults: gets the first fault of every frame in which a mask cannot be read, or its class is not known.
        """
        masks: list[dict[int, Mask]] = [{} for _ in range(length)]
        segments = []
        told = [entry.values.get("id") for entry in annotations]
        ids = [whole_number(id) for id in told]
        times = Counter(ids)
        for track, entry in sorted(zip(ids, annotations), key=lambda pair: pair[0] or 0):
            packed = _masks(entry, length, size, remarks, faults)
            frames = [frame for frame, mask in enumerate(packed) if mask is not None]
            if not frames:
                remarks["objects without a pixel"] += 1
                continue
            try:
                if track is None or track < 1 or times[track] > 1:
                    raise entry.bad(f"the track ids are {', '.join(map(shown, told[:5]))}; they must be whole numbers "
                                    "above 0, each used once.", "bad-id")
                segment = Segment(id=track, class_index=self._class_of(entry), is_crowd=entry.flag("iscrowd"))
            except BadInput as error:
                faults |= {frame: faults.get(frame, error) for frame in frames}
                continue
            segments.append(segment)
            for frame in frames:
                masks[frame][track] = packed[frame]
        return tuple(segments), masks

    def _class_of(self, entry: Entry) -> int:
        category = entry.whole("category_id")
        if category not in self.classes.index_of:
            raise entry.bad(f"{entry.name} has the category {category}, which is not in the classes of "
                            f"{self.classes.name}.", "unknown-category")
        return self.classes.index_of[category]


def _listed(entry: Entry) -> Listed:
    """Raises BadInput where no file name is a path, or where they lie in several folders and most not in one."""
    entry.key("id")
    files = [_path(entry, index, name) for index, name in enumerate(entry.list("file_names"))]
    folders = Counter(str(file.parent) for file in files if isinstance(file, PurePosixPath))
    if files and not folders:
        raise files[0]
    folder, times = folders.most_common(1)[0] if folders else (".", 0)
    if len(folders) > 1 and 2 * times <= folders.total():
        raise entry.bad(f"the frames of {entry.name} lie in several folders, such as {sorted(folders)[:2]}; a video "
                        "needs a folder of its own.", "frame-mismatch")
    elsewhere = entry.bad(f"the frame lies in another folder than {folder!r}, as most of {entry.name} do.",
                          "frame-mismatch")
    return Listed(entry=entry, folder="" if folder == "." else folder, files=tuple(
        file if isinstance(file, BadInput) else file.name if str(file.parent) == folder else elsewhere
        for file in files))


def _path(entry: Entry, index: int, name: Any) -> PurePosixPath | BadInput:
    """The path of a frame, or why it is none."""
    try:
        return PurePosixPath(entry.checked_path(name, f"the file name of frame {index}"))
    except BadInput as error:
        return error


def _size(entry: Entry, images: Mapping[int, Path], remarks: Counter[str]) -> tuple[int, int]:
    """Height and width of a video: those of its first picture where the json does not give both."""
    if None not in (entry.values.get("height"), entry.values.get("width")):
        return entry.size()
    remarks[NO_SIZE] += 1
    return size_of_pictures(images.values(), entry.video)


def _in_order(files: Iterable[str], entry: Entry) -> list[str]:
    """The names of the frames in the order of time, without suffix. Raises BadInput where they tell none."""
    try:
        return in_order_of_time((PurePosixPath(file).stem for file in files), listed=True)
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=entry.video, file=entry.file, cure=error.cure) from None


def _masks(entry: Entry, length: int, size: tuple[int, int], remarks: Counter[str],
           faults: dict[int, BadInput]) -> list[Mask | None]:
    """The mask of a track in every frame. One that cannot be read becomes the fault of its frame, if it is the first.
    """
    told = entry.list("segmentations")
    if len(told) != length:
        raise entry.bad(f"{entry.name} has {len(told)} masks for {length} frames.", "frame-mismatch")
    boxes = entry.values.get("bboxes")
    boxes = boxes if isinstance(boxes, list) and len(boxes) == length else [None] * length
    masks: list[Mask | None] = []
    for frame, (mask, box, packed) in enumerate(zip(told, boxes, packed_masks(told, height=size[0], width=size[1]))):
        if isinstance(packed, ValueError):
            faults.setdefault(frame, entry.bad(f"{entry.name}, frame {frame}: {packed}", "size-differs"))
            packed = None
        elif packed is None and (mask or box):
            remarks["masks without a pixel" if mask else "boxes without a mask"] += 1
        masks.append(packed)
    return masks


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _reopen(root: str, split: str, name: str) -> YouTubeVis:
    return YouTubeVis(root, split=split, name=name)
