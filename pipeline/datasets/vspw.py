"""VSPW, and any semantic video data set in its layout: every pixel has a class, and there are no objects.

data/<video>/origin/<frame>.jpg, data/<video>/mask/<frame>.png and <split>.txt. A mask stores class ids plus one;
0 and 253 ... 255 are void. Source: VSPW (Miao et al., CVPR 2021), README and `VC_perclip.py` of its evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.datasets.classes_vspw import TABLE
from pipeline.datasets.folders import class_table, first_existing, folder_of, read_list, root_folder
from pipeline.datasets.id_maps import ids_in, read_label
from pipeline.datasets.video_files import VideoFiles
from pipeline.errors import BadInput
from pipeline.records import FrameRecord, Segment, VideoRecord

CATEGORIES = "categories.json"
FIRST_IGNORED = 253     # values from here on mark pixels that are not scored
RELEASED_ARTEFACT = 252     # occurs in the release, where it names no class; read as void there only


class Vspw:
    """One split. A video has one segment per class, all of them stuff; the id of a segment is the stored value.

    The classes are the 124 of VSPW unless the folder has a categories.json.
    A frame need not have a mask. Raises `FileNotFoundError` when the root, the frames or the list of the split do not
    exist, and `BadInput` for categories that cannot be read or stored in a mask.
    """

    remarks: ClassVar[Mapping[str, int]] = {}

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="vspw")
        self.split = split
        self.videos = first_existing([self.root / "data"], description="folder of videos")
        self.list = first_existing([self.root / f"{split}.txt"], description=f"list of the split {split!r}")
        categories = self.root / CATEGORIES
        self.classes = TABLE
        if categories.is_file():
            self.classes = class_table("vspw", categories, only_stuff=True, highest=FIRST_IGNORED - 2)

    def __reduce__(self):
        return _reopen, (str(self.root), self.split)

    def video_ids(self) -> list[str]:
        """All videos on the split's list, sorted; folders that lie in others are joined by "+"."""
        return sorted(self._folders)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. All its masks are decoded, since only they list the classes of a frame.

        A frame whose mask cannot be read, is of another size or holds a value of no class has no label, and is named
        among the faults. Raises `BadInput` where all labelled frames are so, and for missing or unreadable pictures and
        frames that have only a mask.
        """
        folder = self.videos / folder_of(self._folders, video_id)
        files = VideoFiles.find(video_id, images=folder / "origin", labels=folder / "mask",
                                roots=(self.root, self.videos))
        return files.record(read_ids=lambda file: self._ids(file, video_id), make_segment=self._segment)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: the stored value of every pixel, 0 void. Raises `BadInput` for a missing or faulty mask."""
        return self._ids(frame.label, video.video_id, size=(video.height, video.width))

    @cached_property
    def _folders(self) -> dict[str, str | BadInput]:
        """Name of each video -> its folder, or why it cannot be read."""
        return read_list(self.list)

    @cached_property
    def _table(self) -> np.ndarray:
        """Stored value -> segment id; 65536 int32, 0 void, -1 not a legal value."""
        table = np.full(1 << 16, -1, dtype=np.int32)
        for info in self.classes.classes:
            table[info.dataset_id + 1] = info.dataset_id + 1
        table[0] = table[FIRST_IGNORED:256] = 0
        if self.classes is TABLE:
            table[RELEASED_ARTEFACT] = 0
        return table

    def _segment(self, id: int) -> Segment:
        return Segment(id=id, class_index=self.classes.index_of[id - 1])

    def _ids(self, file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
        label = read_label(file, video=video_id, indexed=True, size=size)
        if label.ndim != 2:
            raise BadInput("corrupt-label", "the mask has 3 channels instead of 1.", video=video_id, file=file,
                           cure="Copy it again, or store class ids plus one in a single channel.")
        ids = self._table[label]
        if ids.min() < 0:
            raise BadInput("unknown-category", f"the mask holds the values {ids_in(label[ids < 0])[:5]}, which "
                           f"belong to no class.", video=video_id, file=file,
                           cure=f"Copy it again, or list the classes of your own data in {CATEGORIES}.")
        return ids


def _reopen(root: str, split: str) -> Vspw:
    return Vspw(root, split=split)
