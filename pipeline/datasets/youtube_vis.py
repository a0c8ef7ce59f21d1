"""YouTube-VIS 2019, 2021 and 2022, OVIS, and any video instance data set in their layouts, in one reader.

<split>/JPEGImages/<video>/<frame>.jpg with <split>.json, or the older <split>/instances.json; OVIS has no folder
JPEGImages and keeps its jsons in annotations/. A track is an annotation with one mask per frame, stored as run
lengths and null where the object is absent. Source: youtubevos.org and the YouTube-VIS API; songbai.site/ovis (Qi et
al., IJCV 2022).
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from model.labels import ClassTable
from pipeline.datasets.classes_youtube_vis import TABLES, thing_table
from pipeline.datasets.folders import files_by_stem, first_existing, load_json, root_folder
from pipeline.datasets.run_lengths import packed_mask
from pipeline.datasets.video_files import IMAGES
from pipeline.errors import BadInput
from pipeline.records import FrameRecord, Segment, VideoRecord

COPY_AGAIN = "Copy the json of this split again, or correct this entry."


class YouTubeVis:
    """One split. Its json is parsed once per process, however many copies of this object the process holds.

    name: the class table; "youtube_vis" takes the classes from the json, for your own data. In a split without any
    annotation (the public valid json), videos have no labels.
    Raises `FileNotFoundError` when the root, the frames or the json do not exist, `ValueError` when the json is of
    another year.
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
        """The folder names of all videos of the split, sorted."""
        return sorted(self._videos)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video; its masks are COCO run lengths.

        Raises `BadInput` for an unknown or empty video, missing images, ids that are missing, below 1 or used twice,
        categories outside the table, tracks without any pixel, and masks of another size than the video.
        """
        if video_id not in self._videos:
            raise BadInput("not-in-json", f"the json of split {self.split!r} has no such video.", video=video_id,
                           file=self.annotations, cure="Use a name that video_ids() lists.")
        video = self._videos[video_id]
        try:
            names = video["file_names"]
            height = video["height"]
            width = video["width"]
            if not names:
                raise self._bad("empty-video", "the video has no frames.", video_id)
            segments, masks = self._tracks(video_id, self._annotated.get(video["id"], []), len(names), height, width)
            if not self._annotated:
                masks = [None] * len(names)
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of this video is missing or has the wrong type: {error}.",
                            video_id) from None
        images = files_by_stem(self.images / video_id, IMAGES, video=video_id, kind="image")
        frames = []
        for name, masks_of_frame in zip(names, masks, strict=True):
            stem = PurePosixPath(name).stem
            if stem not in images:
                raise BadInput("missing-image", "the json lists this frame, but the file does not exist.",
                               video=video_id, file=self.images / name, cure="Copy the missing files.")
            frames.append(FrameRecord(name=stem, image=images[stem], segment_ids=tuple(masks_of_frame or ()),
                                      masks=masks_of_frame))
        return VideoRecord(video_id=video_id, height=height, width=width, frames=tuple(frames), segments=segments)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: instances may overlap, so no id map can hold them. Read `FrameRecord.masks` instead."""
        raise TypeError(f"{self.name} has masks as run lengths and no id maps; read FrameRecord.masks")

    def _class_table(self) -> ClassTable:
        try:
            rows = load_json(self.annotations).get("categories") or []
            listed = {row["id"]: row["name"] for row in rows}
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of a category is missing or has the wrong type: {error}.") from None
        if len(listed) != len(rows):
            raise self._bad("duplicate-id", f"{len(rows)} categories have only {len(listed)} different ids; each "
                            f"needs its own.")
        if self.name not in TABLES:
            return thing_table(self.name, listed)
        table = TABLES[self.name]
        known = [info for info in table.classes if info.dataset_id in listed]
        renamed = [info for info in known if _plain(listed[info.dataset_id]) != _plain(info.name)]
        if len(renamed) > len(known) // 2:    # a few differences are spellings; this many mean another year
            raise ValueError(f"{self.annotations} calls category {renamed[0].dataset_id} "
                             f"{listed[renamed[0].dataset_id]!r}, but in {self.name} it is {renamed[0].name!r}. Set "
                             f"the name of the right year, or name='youtube_vis' for the categories of the json.")
        return table

    @cached_property
    def _videos(self) -> dict[str, dict]:
        """Folder name -> the video's entry in the json."""
        content = load_json(self.annotations)
        try:
            videos = {_folder(entry): entry for entry in content["videos"]}
            ids = {entry["id"] for entry in content["videos"]}
            orphans = {entry["video_id"] for entry in content.get("annotations") or []} - ids
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of a video or track is missing or has the wrong type: "
                            f"{error}.") from None
        if not len(videos) == len(ids) == len(content["videos"]):
            raise self._bad("duplicate-id", f"{len(content['videos'])} videos have only {len(ids)} different ids and "
                            f"{len(videos)} different folders; each video needs its own.")
        if orphans:
            raise self._bad("orphan-annotation", f"annotations belong to the video ids {sorted(orphans)[:5]}, which "
                            f"the json does not list.")
        return videos

    @cached_property
    def _annotated(self) -> dict[int, list[dict]]:
        annotated = defaultdict(list)
        for entry in load_json(self.annotations).get("annotations") or []:
            annotated[entry["video_id"]].append(entry)
        return annotated

    def _tracks(self, video_id: str, annotations: list[dict], length: int, height: int,
                width: int) -> tuple[tuple[Segment, ...], list[dict[int, dict]]]:
        """The segments, and for each frame a dict of track id -> run lengths."""
        masks: list[dict[int, dict]] = [{} for _ in range(length)]
        segments = []
        ids = [entry.get("id") for entry in annotations]
        if any(not isinstance(i, int) or i < 1 for i in ids) or len(set(ids)) != len(ids):
            raise self._bad("bad-id", f"the track ids are {ids}; they must be whole numbers above 0, each used once.",
                            video_id)
        for entry in sorted(annotations, key=lambda entry: entry["id"]):
            track = entry["id"]
            category = entry["category_id"]
            masks_of_track = entry["segmentations"]
            if category not in self.classes.index_of:
                raise self._bad("unknown-category", f"track {track} has the category {category}, which is "
                                f"not in the classes of {self.classes.name}.", video_id)
            if len(masks_of_track) != length:
                raise self._bad("frame-mismatch", f"track {track} has {len(masks_of_track)} masks for {length} "
                                f"frames.",
                                video_id)
            packed = [self._mask(mask, height, width, f"track {track}, frame {t}", video_id)
                      for t, mask in enumerate(masks_of_track)]
            if not any(packed):
                raise self._bad("track-without-frames", f"track {track} has no pixel in any frame.", video_id)
            for frame, mask in zip(masks, packed, strict=True):
                if mask is not None:
                    frame[track] = mask
            segments.append(Segment(id=track, class_index=self.classes.index_of[category],
                                    is_crowd=bool(entry.get("iscrowd", 0))))
        return tuple(segments), masks

    def _mask(self, mask: dict | list | None, height: int, width: int, where: str, video_id: str) -> dict | None:
        try:
            return packed_mask(mask, height=height, width=width)
        except ValueError as error:
            raise self._bad("size-differs", f"{where}: {error}", video_id) from None

    def _bad(self, reason: str, problem: str, video_id: str | None = None) -> BadInput:
        return BadInput(reason, problem, video=video_id, file=self.annotations, cure=COPY_AGAIN)


def _folder(entry: dict) -> str:
    """The folder of a video's frames; a video without frames gets a name made from its id."""
    return str(PurePosixPath(entry["file_names"][0]).parent) if entry["file_names"] else f"video_{entry['id']}"


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _reopen(root: str, split: str, name: str) -> YouTubeVis:
    return YouTubeVis(root, split=split, name=name)
