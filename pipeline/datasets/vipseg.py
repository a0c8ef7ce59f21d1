"""VIPSeg, and any panoptic video data set in its layout.

Two layouts are read. `rgb` is the output of the 720p script, used for training: images/, panomasksRGB/ and
panoptic_gt_VIPSeg_<split>.json. `raw` is the release: imgs/ and panomasks/, with <split>.txt. In both, a segment has
the same id in the whole video. Source: VIPSeg-Dataset, README and conversion scripts (Miao et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from model.labels import ClassTable
from pipeline.datasets.folders import class_table, first_existing, load_json, root_folder
from pipeline.datasets.id_maps import ids_in, listed_segments, raw_dataset_class, raw_table, read_label
from pipeline.datasets.video_files import VideoFiles, first_names
from pipeline.errors import BadInput
from pipeline.images import ids_from_rgb
from pipeline.records import FrameRecord, Segment, VideoRecord

CATEGORIES = "panoVIPSeg_categories.json"
CONVERT_AGAIN = "Make the json and the label maps in the same run of the converter."


class VipSeg:
    """One split of VIPSeg. Building and pickling are cheap: files are read when they are needed, and a json only once.

    Raises `FileNotFoundError` when the root, the frames, the labels, the categories or the split do not exist.
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
        self.classes = self._class_table()

    def __reduce__(self):
        return _reopen, (str(self.root), self.split, self.layout)

    def video_ids(self) -> list[str]:
        """All videos of the split, sorted: from <split>.txt if it exists, else from the json of the split."""
        if self.list.suffix == ".json":
            return sorted(self._entries)
        return sorted({line.strip() for line in self.list.read_text().splitlines() if line.strip()})

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. The raw layout decodes all its label maps, since only they list the segments of a frame.

        Raises `BadInput` for missing or unreadable files, frames that have only an image or only a label, a video that
        is empty or not in the json, unknown categories, ids that change their class, and sizes that differ.
        """
        files = VideoFiles.find(video_id, images=self.images / video_id, labels=self.labels / video_id)
        if self.layout == "rgb":
            return self._read_rgb(video_id, files)
        return files.record(read_ids=lambda file: self._label_ids(file, video_id), make_segment=self._raw_segment)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void.

        Raises `BadInput` for a label that is missing, corrupt or of another size than the video, and for values that
        are not in the coding. Writing shards checks that the map and the annotation agree.
        """
        return self._label_ids(frame.label, video.video_id, size=(video.height, video.width))

    def _class_table(self) -> ClassTable:
        file = first_existing([self.root / CATEGORIES, self.root.parent / CATEGORIES,
                               *([self.annotations] if self.annotations else [])], description="category file")
        return class_table("vipseg", file)

    @cached_property
    def _raw_ids(self) -> np.ndarray:
        return raw_table(self.classes)

    @cached_property
    def _entries(self) -> dict[str, tuple[list[dict], list[dict]]]:
        """video id -> (its images, its annotations), as in the json."""
        file = self.annotations or self.list
        content = load_json(file)
        try:
            annotated = {entry["video_id"]: entry["annotations"] for entry in content["annotations"]}
            return {entry["video_id"]: (entry["images"], annotated.get(entry["video_id"], []))
                    for entry in content["videos"]}
        except (KeyError, TypeError) as error:
            raise BadInput("bad-json", f"a field of a video is missing or has the wrong type: {error}.", file=file,
                           cure=CONVERT_AGAIN) from None

    def _label_ids(self, file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
        label = read_label(file, video=video_id, indexed=self.layout == "raw", size=size)
        if (label.ndim == 3) != (self.layout == "rgb"):
            raise BadInput("corrupt-label", f"the label has {3 if label.ndim == 3 else 1} channel(s); the "
                           f"{self.layout} coding needs {3 if self.layout == 'rgb' else 1}.", video=video_id, file=file,
                           cure="Set layout to the coding of these labels, or convert the labels again.")
        if self.layout == "rgb":
            return ids_from_rgb(label)
        ids = self._raw_ids[label]
        if ids.min() < 0:
            raise BadInput("unknown-category", f"the label holds the values {ids_in(label[ids < 0])[:5]}, which "
                           f"belong to no class of {CATEGORIES}.", video=video_id, file=file,
                           cure="Use the category file that belongs to this data set.")
        return ids

    def _raw_segment(self, id: int) -> Segment:
        return Segment(id=id, class_index=self.classes.index_of[raw_dataset_class(id)])

    def _read_rgb(self, video_id: str, files: VideoFiles) -> VideoRecord:
        if video_id not in self._entries:
            raise BadInput("not-in-json", f"the video is on the list {self.list.name}, but the json has no entry for "
                           f"it.", video=video_id, file=self.annotations,
                           cure="Convert the labels of this split again, or remove the video from the list.")
        try:
            entries, annotations = self._entries[video_id]
            sizes = {(entry["height"], entry["width"]): entry["file_name"] for entry in entries}
            names = [Path(entry["file_name"]).stem for entry in entries]
            infos = {Path(entry["file_name"]).stem: entry["segments_info"] for entry in annotations}
            files.refuse_mismatch(names)
            if set(names) != set(infos):
                raise BadInput("frame-mismatch", f"the json lists {len(names)} images and {len(infos)} annotations; "
                               f"the frames {first_names(set(names) ^ set(infos))} are in only one of the two.",
                               video=video_id, file=self.annotations, cure=CONVERT_AGAIN)
            segments = self._segments(video_id, infos)
            frames = tuple(FrameRecord(name=name, image=files.images[name], label=files.labels[name],
                                       segment_ids=tuple(info["id"] for info in infos[name])) for name in names)
        except (KeyError, TypeError) as error:
            raise BadInput("bad-json", f"a field of this video is missing or has the wrong type: {error}.",
                           video=video_id, file=self.annotations, cure=CONVERT_AGAIN) from None
        height, width = files.one_size(sizes)
        return VideoRecord(video_id=video_id, height=height, width=width, frames=frames, segments=segments)

    def _segments(self, video_id: str, infos: Mapping[str, list[dict]]) -> tuple[Segment, ...]:
        def refuse(reason: str, problem: str) -> BadInput:
            return BadInput(reason, problem, video=video_id, file=self.annotations, cure=CONVERT_AGAIN)

        return listed_segments(infos, self.classes, refuse=refuse)


def _reopen(root: str, split: str, layout: str) -> VipSeg:
    return VipSeg(root, split=split, layout=layout)
