"""CVAT's export "COCO 1.0" of one task: an annotation per object and frame, with a track_id among its attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pipeline.datasets.cvat_xml import TrackedObject
from pipeline.datasets.folders import load_entry
from pipeline.datasets.json_entries import Entry, shown, whole_number, whole_or_text
from pipeline.datasets.run_lengths import packed_mask
from pipeline.datasets.tracked_masks import TrackedMasks
from pipeline.errors import BadInput
from pipeline.file_names import frame_name
from pipeline.records import Mask

CURE = "Export the task again as 'COCO 1.0'."
DRAW_TRACKS = "In CVAT, draw objects as 'Track', not as 'Shape', and export the task again."


class CocoExport:
    """Raises BadInput for a file that is no such json."""

    def __init__(self, file: Path, video: str) -> None:
        self.file = file
        self._content = load_entry(file, cure=CURE).of_video(video)

    def labels(self) -> list[str]:
        """The names of the categories, in the order of their ids."""
        categories = self._content.entries("categories", "category")
        rows = sorted((row.whole("id"), row.text("name").strip()) for row in categories)
        return [name for _, name in rows]

    def tracks(self, frames: Sequence[str], masks: TrackedMasks) -> Iterator[TrackedObject]:
        """One object with one mask for every annotation; those of a track have the same key.

        An annotation of no listed image is counted; one of an unknown class, or without a track where there are several
        frames, costs its frame the label. A frame that is listed twice or in another size loses its label; one without
        a picture is left out.
        """
        names = self._names(masks)
        labels = {row.key("id"): row.text("name").strip() for row in self._content.entries("categories", "category")}
        pictures = set(frames)
        annotations = self._content.list("annotations")
        known = [values for values in annotations if isinstance(values, dict)
                 and whole_or_text(values.get("image_id")) in names]
        if annotations and not known:
            raise self._content.bad(f"none of {len(annotations)} annotations belongs to an image that the json lists.",
                                    "missing-image")
        if strays := len(annotations) - len(known):
            masks.remarks["annotations of no listed image"] += strays
        for index, annotation in enumerate(self._content.part(values, "annotation") for values in known):
            name = names[annotation.key("image_id")]
            try:
                if name not in pictures:
                    raise annotation.bad(f"{annotation.name} belongs to the image {name!r}, which is not among the "
                                         "pictures.", "missing-image")
                track = f"number {index}" if len(frames) == 1 else _track(annotation)
                label = self._label(annotation, labels)
                is_crowd = annotation.flag("iscrowd")
            except BadInput as error:
                masks.unreadable(name, error)
                continue
            yield TrackedObject(f"{label} {track}", label, is_crowd, self._mask(annotation, name, masks))

    def _label(self, annotation: Entry, labels: Mapping[int | str, str]) -> str:
        category = annotation.key("category_id")
        if category not in labels:
            raise annotation.bad(f"{annotation.name} has the category {category}, which the json does not list.",
                                 "unknown-category")
        return labels[category]

    def labelled(self, frames: Collection[str]) -> Collection[str]:
        """The frames that belong to the task: those that the json lists. Other pictures have no label."""
        return {name for name, _ in self._images()}.intersection(frames)

    def _images(self) -> Iterator[tuple[str, Entry]]:
        """Frame and entry of the images of the json, without what is none; a picture that is not listed has no label.
        """
        for values in self._content.list("images"):
            with suppress(BadInput):
                image = self._content.part(values, "image")
                yield _frame(image), image

    def _names(self, masks: TrackedMasks) -> dict[int | str, str]:
        """Id of every image -> the name of its frame. Frames that share an id or a name with another have no label."""
        names: dict[int | str, str] = {}
        images = list(self._images())
        if nothing := len(self._content.list("images")) - len(images):
            masks.remarks["images of the json that cannot be read"] = nothing
        times = Counter(name for name, _ in images)
        for name, image in images:
            try:
                first = names.setdefault(image.key("id"), name)
                if first != name or times[name] > 1:
                    twice = image.bad(f"the id {shown(image.value('id'))} or the name {name!r} of an image is listed "
                                      "twice; each image needs its own.", "duplicate-id")
                    masks.unreadable(first, twice)
                    raise twice
                self._refuse_other_size(name, image, masks)
            except BadInput as error:
                masks.unreadable(name, error)
        return names

    def _refuse_other_size(self, name: str, image: Entry, masks: TrackedMasks) -> None:
        told = [whole_number(image.values.get(side)) or actual
                for side, actual in (("width", masks.width), ("height", masks.height))]
        if told != [masks.width, masks.height]:
            raise image.bad(f"the image {name!r} was labelled at {told[0]}x{told[1]} pixels, but the pictures are "
                            f"{masks.width}x{masks.height}.", "size-differs")

    def _mask(self, annotation: Entry, name: str, masks: TrackedMasks) -> Iterator[tuple[str, Mask | None]]:
        segmentation = annotation.values.get("segmentation")
        if not segmentation:
            masks.remarks["boxes without a mask"] += 1
            return
        try:
            mask = packed_mask(segmentation, height=masks.height, width=masks.width)
        except ValueError as error:
            masks.unreadable(name, annotation.bad(f"{annotation.name}, frame {name!r}: {error}", "bad-mask"))
            return
        yield name, mask


def _frame(image: Entry) -> str:
    return frame_name(PurePosixPath(image.path("file_name")).stem)


def _track(annotation: Entry) -> int | str:
    attributes = annotation.values.get("attributes")
    for values in (attributes, annotation.values):
        for field in ("track_id", "instance_id"):
            if isinstance(values, dict) and field in values:
                return annotation.part(values, annotation.name).key(field)
    raise BadInput("inconsistent-id", f"{annotation.name} has no track_id, so nothing tells which object it is in the "
                   "next frame.", video=annotation.video, file=annotation.file, cure=DRAW_TRACKS)
