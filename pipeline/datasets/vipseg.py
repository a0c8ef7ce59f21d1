"""VIPSeg, and any panoptic video data set in its layout.

Two layouts are read. `rgb` is the output of the 720p script, used for training: images/, panomasksRGB/ and
panoptic_gt_VIPSeg_<split>.json. `raw` is the release: imgs/ and panomasks/, with <split>.txt. In both, a segment has
the same id in the whole video. Source: VIPSeg-Dataset, README and conversion scripts (Miao et al., CVPR 2022).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.datasets.classes_vipseg import TABLE
from pipeline.datasets.folders import (
    class_table,
    first_existing,
    folder_of,
    load_entry,
    read_list,
    root_folder,
    size_of_pictures,
    videos_by_name,
)
from pipeline.datasets.id_maps import RawCoding, ids_in, listed_segments, raw_coding, read_label
from pipeline.datasets.json_entries import Entry, whole_or_text
from pipeline.datasets.video_files import VideoFiles
from pipeline.errors import BadInput
from pipeline.faulty_labels import without_faulty_labels
from pipeline.file_names import composed, frame_name
from pipeline.frame_order import in_order_of_time
from pipeline.images import ids_from_rgb
from pipeline.records import FrameRecord, Segment, VideoRecord

CATEGORIES = "panoVIPSeg_categories.json"
CONVERT_AGAIN = "Make the json and the label maps in the same run of the converter."


class VipSeg:
    """One split of VIPSeg. Building and pickling are cheap: files are read when they are needed, and a json only once.

    Raises `FileNotFoundError` when the root, the frames, the labels, the categories or the split do not exist, and
    `BadInput` for categories that cannot be read or do not fit the coding.
    """

    def __init__(self, root: str, *, split: str = "train", layout: str = "auto") -> None:
        self.root = root_folder(root, name="vipseg")
        self.split = split
        self.images = first_existing([self.root / "images", self.root / "imgs"], description="folder of frames")
        jsons = [self.root / f"panoptic_gt_VIPSeg_{split}.json", self.root / "panoptic_gt_VIPSeg.json"]
        has_rgb = (self.root / "panomasksRGB").is_dir() and any(path.exists() for path in jsons)
        self.layout = ("rgb" if has_rgb else "raw") if layout == "auto" else layout
        self.labels = first_existing([self.root / {"rgb": "panomasksRGB", "raw": "panomasks"}[self.layout]],
                                     description="folder of labels")
        self.annotations = first_existing(jsons, description="annotation file") if self.layout == "rgb" else None
        self.list = first_existing([self.root / f"{split}.txt", self.root.parent / f"{split}.txt", jsons[0]],
                                   description=f"list of the split {split!r}")
        self.categories = first_existing([self.root / CATEGORIES, self.root.parent / CATEGORIES,
                                          *([self.annotations] if self.annotations else [])],
                                         description="category file")
        self.classes = class_table("vipseg", self.categories)
        self._raw = self._raw_coding() if self.layout == "raw" else None

    def __reduce__(self):
        return _reopen, (str(self.root), self.split, self.layout)

    def video_ids(self) -> list[str]:
        """All videos of the split, sorted: from <split>.txt if it exists, else from the json of the split.

        Folders that lie in others are joined by "+".
        """
        return sorted(self._folders)

    @property
    def remarks(self) -> Mapping[str, int]:
        """Entries of the json that name no video, and are left out."""
        if self.layout != "rgb":
            return {}
        file = load_entry(self.annotations, cure=CONVERT_AGAIN)
        listed = sum(len(file.list(field)) for field in ("videos", "annotations") if file.values.get(field) is not None)
        videos = {entry.key("video_id") for entry in self._listed("videos")}
        annotated = [entry.key("video_id") for entry in self._listed("annotations")]
        counts = {"entries of the json without a video": listed - len(self._listed("videos")) - len(annotated),
                  "annotations of no listed video": sum(video not in videos for video in annotated)}
        return {remark: count for remark, count in counts.items() if count}

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. The raw layout decodes all its label maps, since only they list the segments of a frame.

        Frames are in natural order; those without a label, of which a json has no annotation, are left unlabelled. A
        frame whose label or list of segments cannot be read, or holds an unknown category, has no label and is named
        among the faults, and so is one in which a segment has another class than in most, and a frame without a
        picture, which is left out. Raises `BadInput` where all labelled frames are so, and for unreadable pictures and
        a video that is empty or not in the json.
        """
        folder = folder_of(self._folders, video_id)
        files = VideoFiles.find(video_id, images=self.images / folder, labels=self.labels / folder,
                                roots=(self.root, self.images, self.labels))
        if self.layout == "rgb":
            return self._read_rgb(video_id, folder, files)
        return files.record(read_ids=lambda file: self._label_ids(file, video_id), make_segment=self._raw_segment)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void.

        Raises `BadInput` for a label that is missing, corrupt or of another size than the video, and for values that
        are not in the coding. Writing shards checks that the map and the annotation agree.
        """
        return self._label_ids(frame.label, video.video_id, size=(video.height, video.width))

    def _raw_coding(self) -> RawCoding:
        """The value 200 is an error of the release, and an ordinary value in your own data."""
        released = [(info.dataset_id, info.name) for info in TABLE.classes]
        try:
            return raw_coding(self.classes, artefact=released == [(info.dataset_id, info.name)
                                                                  for info in self.classes.classes])
        except ValueError as error:
            raise BadInput("unknown-category", str(error), file=self.categories,
                           cure="Number the classes from 0, or store the labels in the rgb layout.") from None

    @cached_property
    def _folders(self) -> dict[str, str | BadInput]:
        """Name of each video -> its folder, or why it cannot be read."""
        if self.list.suffix == ".json":
            return videos_by_name(self._entries, file=self.list)
        return read_list(self.list)

    @cached_property
    def _entries(self) -> dict[str, tuple[list[Entry], list[Entry]]]:
        """Folder of a video -> its entries in the json, and those of its annotations; one of each in a sound json."""
        annotated = defaultdict(list)
        for entry in self._listed("annotations"):
            annotated[entry.key("video_id")].append(entry)
        entries: dict[str, tuple[list[Entry], list[Entry]]] = {}
        for entry in self._listed("videos"):
            folder = composed(str(entry.value("video_id")).replace("\\", "/"))
            entries.setdefault(folder, ([], annotated[entry.key("video_id")]))[0].append(entry)
        return entries

    def _listed(self, field: str) -> list[Entry]:
        """The entries of a list in the json that name a video."""
        file = load_entry(self.annotations or self.list, cure=CONVERT_AGAIN)
        if field == "annotations" and file.values.get(field) is None:
            return []
        return [file.part(values, field.removesuffix("s")) for values in file.list(field)
                if isinstance(values, dict) and whole_or_text(values.get("video_id")) is not None]

    def _label_ids(self, file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
        label = read_label(file, video=video_id, indexed=self.layout == "raw", size=size)
        if (label.ndim == 3) != (self.layout == "rgb"):
            raise BadInput("corrupt-label", f"the label has {3 if label.ndim == 3 else 1} channel(s); the "
                           f"{self.layout} coding needs {3 if self.layout == 'rgb' else 1}.", video=video_id, file=file,
                           cure="Set layout to the coding of these labels, or convert the labels again.")
        if self.layout == "rgb":
            return ids_from_rgb(label)
        ids = self._raw.ids[label]
        if ids.min() < 0:
            raise BadInput("unknown-category", f"the label holds the values {ids_in(label[ids < 0])[:5]}, which "
                           f"belong to no class of {CATEGORIES}.", video=video_id, file=file,
                           cure="Use the category file that belongs to this data set.")
        return ids

    def _raw_segment(self, id: int) -> Segment:
        return Segment(id=id, class_index=int(self._raw.classes[id]))

    def _read_rgb(self, video_id: str, folder: str, files: VideoFiles) -> VideoRecord:
        if folder not in self._entries:
            raise BadInput("not-in-json", f"the video is on the list {self.list.name}, but the json has no entry for "
                           f"it.", video=video_id, file=self.annotations,
                           cure="Convert the labels of this split again, or remove the video from the list.")
        videos, annotations = self._entries[folder]
        if len(videos) > 1 or len(annotations) > 1:
            raise videos[0].of_video(video_id).bad(f"the json has {len(videos)} entries and {len(annotations)} "
                                                   "annotations of this video; it needs one of each.", "duplicate-id")
        (video,) = videos
        remarks: Counter[str] = Counter()
        images = self._listed_images(video.of_video(video_id), files, remarks)
        faults = dict(files.faults)
        infos = self._infos(video_id, annotations, faults, remarks)
        present = files.with_pictures(images, infos, faults)
        images = {name: images[name] for name in present}
        self._compare(video_id, images, infos, files, faults, remarks)
        segments = listed_segments(infos, self.classes, faults=faults)
        names = self._in_order(images.values(), video_id)
        remarks["videos whose frames were put in natural order"] += names != present
        ids = {name: tuple(info.whole("id") for info in listed) for name, listed in infos.items() if name not in faults}
        frames = tuple(FrameRecord(name=name, image=files.images[name], label=files.labels.get(name),
                                   segment_ids=ids.get(name, ())) for name in names)
        sizes = _sizes(images, remarks) or {size_of_pictures(map(files.images.get, names), video_id): names[0]}
        height, width = files.one_size(sizes)
        return without_faulty_labels(VideoRecord(video_id=video_id, height=height, width=width, frames=frames,
                                                 segments=segments, remarks=+remarks), faults)

    def _compare(self, video_id: str, images: Mapping[str, Entry], infos: Mapping[str, list[Entry]], files: VideoFiles,
                 faults: dict[str, BadInput], remarks: Counter[str]) -> None:
        """Compare the frames of the json with the files.

        A frame enters `faults` where it has a label without an annotation or an annotation without a label, and where
        the video does not have it.
        """
        def bad(what: str) -> BadInput:
            return BadInput("frame-mismatch", what, video=video_id, file=self.annotations, cure=CONVERT_AGAIN)

        remarks["frames that the json does not list"] += len(files.images.keys() - images.keys())
        for name in sorted(infos.keys() - images.keys()):
            faults.setdefault(name, bad(f"the json annotates the frame {name!r}, which is not among its images."))
        for name in sorted(files.labels.keys() - infos.keys()):
            faults.setdefault(name, bad(f"the frame {name!r} has a label map, which the json does not annotate."))

    def _listed_images(self, video: Entry, files: VideoFiles, remarks: Counter[str]) -> dict[str, Entry]:
        """Name of each frame -> its image in the json.

        Where an image cannot be read, the pictures in the folder that no other image names are the frames that it may
        have meant. Frames that are listed twice count once. Raises BadInput where no image can be read.
        """
        images: dict[str, Entry] = {}
        fault = None
        for values in video.list("images"):
            try:
                image = video.part(values, "image")
                name = _name(image)
            except BadInput as error:
                fault = fault or error
                remarks["images of the json that cannot be read (the files in the folder tell the frames)"] += 1
                continue
            remarks["frames that the json lists twice"] += name in images
            images.setdefault(name, image)
        if fault is None:
            return images
        if not images:
            raise fault
        return {name: images.get(name) or video.part({"file_name": path.name}, "image")
                for name, path in files.images.items()} | images

    def _infos(self, video_id: str, annotations: list[Entry], faults: dict[str, BadInput],
               remarks: Counter[str]) -> dict[str, list[Entry]]:
        """Name of each annotated frame -> its segments. faults: gets those of frames whose list cannot be read.

        Annotations that name no frame are counted; the label map of their frame is then named as a fault.
        """
        infos: dict[str, list[Entry]] = {}
        for annotation in annotations:
            for values in annotation.list("annotations"):
                try:
                    entry = annotation.of_video(video_id).part(values, "annotation")
                    name = _name(entry)
                except BadInput:
                    remarks["annotations that name no frame"] += 1
                    continue
                if name in infos:
                    faults[name] = entry.bad(f"the annotations list the frame {name!r} twice.", "frame-mismatch")
                    continue
                try:
                    infos[name] = list(entry.entries("segments_info", "segment"))
                except BadInput as error:
                    infos[name] = []
                    faults[name] = error
        return infos

    def _in_order(self, images: Iterable[Entry], video_id: str) -> list[str]:
        """The names of the frames in the order of time. Raises BadInput where they tell none."""
        try:
            return [frame_name(stem) for stem in in_order_of_time(map(_stem, images), listed=True)]
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=video_id, file=self.annotations, cure=error.cure) from None


def _sizes(images: Mapping[str, Entry], remarks: Counter[str]) -> dict[tuple[int, int], str]:
    """Size -> a frame that has it, of the images whose size can be read; the others are counted."""
    sizes = {}
    for name, image in images.items():
        try:
            sizes[image.size()] = name
        except BadInput:
            remarks["images without a size in the json (that of the picture counts)"] += 1
    return sizes


def _name(image: Entry) -> str:
    return frame_name(_stem(image))


def _stem(image: Entry) -> str:
    return PurePosixPath(image.path("file_name")).stem


def _reopen(root: str, split: str, layout: str) -> VipSeg:
    return VipSeg(root, split=split, layout=layout)
