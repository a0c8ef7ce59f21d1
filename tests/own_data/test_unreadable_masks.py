"""A mask that cannot be read costs its frame the label, in every reader of masks; it is counted, and named with a cure.

The frame stays, without label. Left without the one object, it would teach and score that the object is not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import check_dataset
from pipeline.errors import BadInput
from pipeline.faulty_labels import UNREADABLE
from pipeline.records import Dataset, VideoRecord
from pipeline.shards import ShardSet, make_shards, verify
from tests.own_data.exports import export
from tests.own_data.test_exports import opened
from tests.own_data.test_no_objects import on_own_data
from tests.own_data.worlds import SOURCES, edit

FRAMES = 4
BROKEN = [[5, 5, None, 9, 9, 9]]


def in_youtube_vis(root: Path, frames: set[int]) -> None:
    edit(root / "train.json", lambda content: [track["segmentations"].__setitem__(frame, BROKEN) for frame in frames
                                               for track in content["annotations"][:1]] and None)


def in_coco_video(root: Path, frames: set[int]) -> None:
    def change(content: dict) -> None:
        images = {image["id"] for image in content["images"] if image["frame_id"] in frames}
        for annotation in content["annotations"]:
            if annotation["video_id"] == 1 and annotation["image_id"] in images:
                annotation["segmentation"] = BROKEN

    edit(root / "coco_video.json", change)


def in_cvat(root: Path, frames: set[int]) -> None:
    path = root / "train" / "train_00000" / "annotations.xml"
    for frame in frames:
        path.write_text(re.sub(rf'(<mask frame="{frame}"[^>]*rle=")', r"\g<1>7, ", path.read_text()))


def in_cvat_coco(root: Path, frames: set[int]) -> None:
    def change(content: dict) -> None:
        names = {image["id"]: int(re.sub(r"\D", "", Path(image["file_name"]).stem)) for image in content["images"]}
        for annotation in content["annotations"]:
            if names[annotation["image_id"]] in frames:
                annotation["segmentation"] = BROKEN

    edit(root / "train" / "train_00000" / "annotations" / "instances_default.json", change)


def in_labelme(root: Path, frames: set[int]) -> None:
    for frame in frames:
        edit(root / "train" / "train_00000" / f"{frame}.json",
             lambda content: content["shapes"][0].update(points=[[1, 2], [3, None], [5, 5]], shape_type="polygon"))


def in_labelme_files(root: Path, frames: set[int]) -> None:
    for frame in frames:
        path = root / "train" / "train_00000" / f"{frame}.json"
        path.write_text(path.read_text()[:40])


WAYS: dict[str, tuple[str, Callable[[Path, set[int]], None]]] = {
    "youtube_vis": ("youtube_vis", in_youtube_vis), "coco video": ("coco video", in_coco_video),
    "cvat": ("cvat", in_cvat), "cvat coco": ("cvat coco", in_cvat_coco), "labelme": ("labelme", in_labelme),
    "labelme, half a file": ("labelme", in_labelme_files)}


@pytest.fixture(params=WAYS)
def world(request, tmp_path) -> tuple[Path, Callable[[], Dataset], Callable[[set[int]], None]]:
    """Two videos; the way to open them, and the way to damage masks of the first one in some frames."""
    name, damage = WAYS[request.param]
    root = SOURCES["youtube_vis" if name not in SOURCES else name].write(tmp_path / "world", frames=FRAMES)
    if name in SOURCES:
        return root, lambda: SOURCES[name].open(root), lambda frames: damage(root, frames)
    root = export(name, root, tmp_path / "export")
    return root, lambda: opened(name, root), lambda frames: damage(root, frames)


def videos(dataset: Dataset) -> list[VideoRecord]:
    return [dataset.read(video) for video in dataset.video_ids()]


def test_one_frame_loses_its_label_and_nothing_else(world):
    _, dataset, damage = world
    first, second = videos(dataset())
    damage({2})
    damaged, other = videos(dataset())
    assert other == second
    assert [frame.masks is None for frame in damaged.frames] == [False, False, True, False]
    assert [frame.name for frame in damaged.frames] == [frame.name for frame in first.frames]
    assert [frame.masks for frame in damaged.frames if frame.masks is not None] == [
        first.frames[index].masks for index in (0, 1, 3)]
    assert {segment.class_index for segment in damaged.segments} <= {segment.class_index for segment in first.segments}
    assert list(damaged.faults) == [first.frames[2].name]
    (fault,) = damaged.faults.values()
    assert fault.video == "train_00000"
    assert fault.file
    assert fault.cure
    assert damaged.remarks[UNREADABLE] == 1


def test_the_frame_is_counted_named_and_repaired(world, tmp_path):
    root, dataset, damage = world
    files = {path: path.read_bytes() for path in root.rglob("*") if path.suffix in (".json", ".xml")}
    whole = make_shards(dataset(), tmp_path / "whole", split="train")
    damage({2})
    report = make_shards(dataset(), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped, len(report.faults)) == (2, {}, 1)
    assert report.remarks[UNREADABLE] == report.remarks["frames without a label"] == 1
    (row,) = map(json.loads, (tmp_path / "shards" / "errors.jsonl").read_text().splitlines())
    assert verify(tmp_path / "shards") == []
    first, second = ShardSet(tmp_path / "shards").videos
    assert (row["video"], row["frame"]) == ("train_00000", first.frames[2].name)
    assert (first.labelled, second.labelled) == ((0, 1, 3), (0, 1, 2, 3))
    again = make_shards(dataset(), tmp_path / "shards", split="train")
    assert again == report
    with pytest.raises(BadInput):
        make_shards(dataset(), tmp_path / "shards", split="train", strict=True)
    for path, content in files.items():
        path.write_bytes(content)
        path.touch()
    repaired = make_shards(dataset(), tmp_path / "shards", split="train")
    assert (repaired.faults, repaired.fingerprint) == ((), whole.fingerprint)


def test_a_video_in_which_every_frame_has_such_a_mask_is_skipped_as_a_whole(world, tmp_path):
    _, dataset, damage = world
    damage(set(range(FRAMES)))
    report = make_shards(dataset(), tmp_path / "shards", split="train")
    assert (report.videos, sum(report.skipped.values()), report.faults) == (1, 1, ())


def test_check_dataset_names_the_frame(tmp_path, capsys):
    root = SOURCES["youtube_vis"].write(tmp_path / "world", frames=FRAMES)
    in_youtube_vis(root, {2})
    check_dataset.main(on_own_data("tiny_vis", tmp_path / "run", root))
    said = capsys.readouterr().out
    assert f"1 {UNREADABLE}" in said
    assert re.search(r"faulty frame: video 'train_00000', file .*train\.json: .*frame 2: a corner", said)
