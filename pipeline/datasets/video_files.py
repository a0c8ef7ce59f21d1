"""The frames and label maps of one video on disk, and its record when only the maps list the segments of a frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.folders import files_by_stem, pictures_by_name
from pipeline.datasets.id_maps import ids_in
from pipeline.errors import BadInput
from pipeline.file_names import on_disk
from pipeline.foreign_files import read_file
from pipeline.images import image_size
from pipeline.records import FrameRecord, Segment, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFiles:
    """Images in the order of time and label maps, by the name of the frame, and their folders, which messages name.

    A frame need not have a label, and a video need not have any.
    """

    video_id: str
    image_folder: Path
    label_folder: Path | None       # None: a split without labels; the folder of a video need not exist
    images: Mapping[str, Path]
    labels: Mapping[str, Path]

    @classmethod
    def find(cls, video_id: str, *, images: Path, labels: Path | None, roots: Sequence[Path]) -> VideoFiles:
        """List the folders of one video; one without a folder of labels has none.

        Raises `BadInput` for a folder of images that is missing, and for folders that may not be read or lead out of
        the `roots`.
        """
        has_labels = labels is not None and os.path.exists(on_disk(labels))
        return cls(video_id=video_id, image_folder=images, label_folder=labels,
                   images=pictures_by_name(images, roots=roots, video=video_id),
                   labels=files_by_stem(labels, (".png",), roots=roots, video=video_id, kind="label") if has_labels
                   else {})

    def refuse_mismatch(self, names: Sequence[str], labelled: Collection[str]) -> None:
        """Raise `BadInput` if `names` is empty, or if images and labels are not those of `names` and `labelled`."""
        if not names:
            raise BadInput("empty-video", "the video has no frames.", video=self.video_id, file=self.image_folder,
                           cure="Copy its frames, or remove the video from the split list.")
        for kind, files, folder, wanted in (("image", self.images, self.image_folder, names),
                                            ("label", self.labels, self.label_folder, labelled)):
            missing = set(wanted) - files.keys()
            extra = files.keys() - set(wanted)
            if missing:
                suffix = next((path.suffix for path in files.values()), "")
                raise BadInput(f"missing-{kind}", f"{len(missing)} of {len(wanted)} frames have no {kind}.",
                               video=self.video_id, file=folder / f"{min(missing)}{suffix}",
                               cure="Copy the missing files, or remove these frames everywhere.")
            if extra:
                raise BadInput("frame-mismatch", f"the {kind}s of the frames {first_names(extra)} are not in the json.",
                               video=self.video_id, file=folder,
                               cure="Remove them, or convert the labels again.")

    def one_size(self, sizes: Mapping[tuple[int, int], str]) -> tuple[int, int]:
        """The (height, width) of all frames. sizes: size -> a frame that has it; `BadInput` if there are several."""
        if len(sizes) > 1:
            raise BadInput("size-differs", f"the frames have different sizes, height x width: {dict(sizes)}.",
                           video=self.video_id, file=self.label_folder or self.image_folder,
                           cure="Resize them to one size.")
        return next(iter(sizes))

    def record(self, *, read_ids: Callable[[Path], np.ndarray], make_segment: Callable[[int], Segment]) -> VideoRecord:
        """The record of the video, from its label maps, all of which are decoded. Without labels, it has no segments.

        read_ids: file of a map -> H W segment ids, 0 void. make_segment: id -> segment.
        """
        names = [*self.images, *(self.labels.keys() - self.images.keys())]
        self.refuse_mismatch(names, self.labels)
        frames = []
        sizes = {}
        seen = set()
        for name in names:
            if name not in self.labels:
                frames.append(FrameRecord(name=name, image=self.images[name]))
                continue
            map_of_frame = read_ids(self.labels[name])
            ids = tuple(i for i in ids_in(map_of_frame) if i)
            frames.append(FrameRecord(name=name, image=self.images[name], label=self.labels[name], segment_ids=ids))
            sizes.setdefault(map_of_frame.shape, name)
            seen.update(ids)
        height, width = self.one_size(sizes or {self._image_size(names[0]): names[0]})
        return VideoRecord(video_id=self.video_id, height=height, width=width, frames=tuple(frames),
                           segments=tuple(make_segment(id) for id in sorted(seen)))

    def _image_size(self, name: str) -> tuple[int, int]:
        try:
            return image_size(read_file(self.images[name]))
        except OSError as error:
            raise BadInput("unreadable", f"{error.strerror}.", video=self.video_id, file=self.images[name],
                           cure="Copy it again, or give this user read permission.") from None
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=self.video_id, file=self.images[name], cure=error.cure
                           ) from None


def first_names(names: Iterable[str]) -> str:
    """The first three names and the number of the others, for messages."""
    names = sorted(names)
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
