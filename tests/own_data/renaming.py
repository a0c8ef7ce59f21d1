"""Gives the frames of a data set other names: pictures, labels, and the jsons that list them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.records import Dataset
from tests.own_data.exports import EXPORTS, export
from tests.own_data.worlds import SOURCES, save

PER_FRAME = (".jpg", ".png", ".json")
READERS = (*(name for name in SOURCES if not name.startswith("coco_")), *EXPORTS)      # of videos


def written(reader: str, root: Path, *, frames: int) -> tuple[Path, Callable[[], Dataset]]:
    """Two training videos in the layout of a reader, and the way to open them."""
    if reader in SOURCES:
        source = SOURCES[reader]
        source.write(root, frames=frames)
    else:
        source = EXPORTS[reader]
        export(source.tool, SOURCES["youtube_vis"].write(root.with_name("world"), frames=frames), root)
    return root, lambda: source.open(root)


def rename_frames(root: Path, dataset: Dataset, names: list[str]) -> None:
    """Frame i of every training video gets the i-th name."""
    old = [path.image.stem for path in dataset.read(dataset.video_ids()[0]).frames]
    new = dict(zip(old, names, strict=True))
    for path in [path for path in root.rglob("*") if path.stem in new and path.suffix in PER_FRAME]:
        path.rename(path.with_name(new[path.stem] + path.suffix))
    for path in root.rglob("*.json"):
        if not path.is_symlink():
            save(path, replaced(json.loads(path.read_text()), new))


def replaced(value: Any, new: Mapping[str, str]) -> Any:
    """A json value in which names of pictures are replaced."""
    if isinstance(value, dict):
        return {key: replaced(child, new) for key, child in value.items()}
    if isinstance(value, list):
        return [replaced(child, new) for child in value]
    if isinstance(value, str) and (path := PurePosixPath(value)).suffix in (".jpg", ".png") and path.stem in new:
        return str(path.with_name(new[path.stem] + path.suffix))
    return value
