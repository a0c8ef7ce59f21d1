"""The frames and label maps of one video on disk, and its record when only the maps list the segments of a frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.folders import files_by_stem, pictures_by_name, size_of_pictures
from pipeline.datasets.id_maps import ids_in
from pipeline.errors import BadInput
from pipeline.faulty_labels import without_faulty_labels
from pipeline.file_names import on_disk
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
    faults: Mapping[str, BadInput]  # frame -> why its label is not opened

    @classmethod
    def find(cls, video_id: str, *, images: Path, labels: Path | None, roots: Sequence[Path]) -> VideoFiles:
        """List the folders of one video; one without a folder of labels has none.

        Raises `BadInput` for a folder of images that is missing, and for pictures and folders that may not be read or
        lead out of the `roots`; labels that do are `faults`.
        """
        faults: dict[str, BadInput] = {}
        has_labels = labels is not None and os.path.exists(on_disk(labels))
        return cls(video_id=video_id, image_folder=images, label_folder=labels,
                   images=pictures_by_name(images, roots=roots, video=video_id),
                   labels=files_by_stem(labels, (".png",), roots=roots, video=video_id, kind="label", faults=faults)
                   if has_labels else {}, faults=faults)

    def with_pictures(self, names: Collection[str], labelled: Collection[str], faults: dict[str, BadInput]
                      ) -> list[str]:
        """Those of the frames `names` that have a picture.

        faults: gets the others, and the frames of `labelled` that have no picture or no label. Raises `BadInput` if no
        frame has a picture, and for each that has none in a video without labels, whose results need every frame.
        """
        if not names:
            raise BadInput("empty-video", "the video has no frames.", video=self.video_id, file=self.image_folder,
                           cure="Copy its frames, or remove the video from the split list.")
        missing = {name: self._missing("image", name, self.images, self.image_folder)
                   for name in sorted({*names, *labelled} - self.images.keys())}
        present = [name for name in names if name in self.images]
        if missing and not (present and labelled):
            raise next(iter(missing.values()))
        faults |= missing
        for name in sorted(set(labelled) - self.labels.keys()):
            faults.setdefault(name, self._missing("label", name, self.labels, self.label_folder))
        return present

    def _missing(self, kind: str, name: str, files: Mapping[str, Path], folder: Path) -> BadInput:
        suffix = next((path.suffix for path in files.values()), "")
        return BadInput(f"missing-{kind}", f"the frame has no {kind}.", video=self.video_id,
                        file=folder / f"{name}{suffix}",
                        cure="Copy the missing files, or remove these frames everywhere.")

    def one_size(self, sizes: Mapping[tuple[int, int], str]) -> tuple[int, int]:
        """The (height, width) of all frames. sizes: size -> a frame that has it; `BadInput` if there are several."""
        if len(sizes) > 1:
            raise BadInput("size-differs", f"the frames have different sizes, height x width: {dict(sizes)}.",
                           video=self.video_id, file=self.label_folder or self.image_folder,
                           cure="Resize them to one size.")
        return next(iter(sizes))

    def record(self, *, read_ids: Callable[[Path], np.ndarray], make_segment: Callable[[int], Segment]) -> VideoRecord:
        """The record of the video, from its label maps, all of which are decoded. Without labels, it has no segments.

        read_ids: file of a map -> H W segment ids, 0 void. make_segment: id -> segment. A frame in which one of them
        raises BadInput, or whose map is of another size than the video, has no label and is named among the faults. A
        map without a picture is left out, and named too.
        """
        faults = dict(self.faults)
        names = self.with_pictures(self.images, self.labels, faults)
        sizes: dict[str, tuple[int, int]] = {}
        ids: dict[str, tuple[int, ...]] = {}
        segments: dict[int, Segment] = {}
        for name in (name for name in names if name in self.labels and name not in faults):
            try:
                map_of_frame = read_ids(self.labels[name])
                ids[name] = tuple(id for id in ids_in(map_of_frame) if id)
                segments |= {id: make_segment(id) for id in ids[name] if id not in segments}
                sizes[name] = map_of_frame.shape
            except BadInput as error:
                faults[name] = error
        height, width = self._size(names, sizes, faults)
        frames = tuple(FrameRecord(name=name, image=self.images[name], label=self.labels.get(name),
                                   segment_ids=() if name in faults else ids.get(name, ())) for name in names)
        return without_faulty_labels(
            VideoRecord(video_id=self.video_id, height=height, width=width, frames=frames,
                        segments=tuple(segment for _, segment in sorted(segments.items()))),
            {name: faults[name] for name in (*names, *sorted(faults.keys() - names)) if name in faults})

    def _size(self, names: Sequence[str], sizes: Mapping[str, tuple[int, int]], faults: dict[str, BadInput]
              ) -> tuple[int, int]:
        """Height and width of the video: those of its maps, and where these differ or are none, of its pictures.

        faults: gets the maps of another size.
        """
        if len(set(sizes.values())) == 1:
            return next(iter(sizes.values()))
        height, width = size_of_pictures(map(self.images.get, names), self.video_id)
        for name, size in sizes.items():
            if size != (height, width):
                faults[name] = BadInput("size-differs", f"the label has {size[1]}x{size[0]} pixels, the frames have "
                                        f"{width}x{height}.", video=self.video_id, file=self.labels[name],
                                        cure="Resize frames and labels together.")
        return height, width
