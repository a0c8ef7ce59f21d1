"""Exports of annotation tools: the same videos in every layout are read as the same objects, and faults are named."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as run_lengths

from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.id_maps import ids_in
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.errors import BadInput
from pipeline.images import encode_png
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.shards.encode import encode_video
from tests.own_data.exports import TOOLS, export
from tests.own_data.worlds import SOURCES, edit, save


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Twelve frames, so that the numbers of frames have one and two digits."""
    return SOURCES["youtube_vis"].write(tmp_path_factory.mktemp("exports") / "world", frames=12)


@pytest.fixture(scope="module")
def exports(world, tmp_path_factory) -> dict[str, Path]:
    return {tool: export(tool, world, tmp_path_factory.mktemp("export") / tool) for tool in TOOLS}


@pytest.fixture
def copy(exports, tmp_path):
    return lambda tool: Path(shutil.copytree(exports[tool], tmp_path / "copy"))


def opened(tool: str, root: Path, split: str = "train"):
    return open_dataset(DatasetConfig(name=tool.split()[0], root=str(root), split=split))


def objects(dataset, video_id: str) -> dict[tuple, tuple]:
    """The masks of every object in all frames (areas and bytes), by the name of its class and its first frame."""
    video = dataset.read(video_id)
    named = {}
    for segment in video.segments:
        masks = []
        for frame in video.frames:
            if frame.masks is not None:
                mask = frame.masks.get(segment.id)
            else:
                pixels = dataset.frame_ids(video, frame) == segment.id
                mask = run_lengths.encode(np.asfortranarray(pixels.astype(np.uint8))) if pixels.any() else None
            masks.append(None if mask is None else mask["counts"])
        named[dataset.classes.classes[segment.class_index].name, tuple(masks)] = segment.is_crowd
    return named


@pytest.mark.parametrize("tool", TOOLS)
def test_every_export_holds_the_objects_of_the_same_videos(tool, world, exports):
    for split, theirs in (("train", "train"), ("val", "valid")):
        ours = opened(tool, exports[tool], split)
        truth = YouTubeVis(str(world), split=theirs)
        assert len(ours.video_ids()) == len(truth.video_ids()) > 0
        used = {info.name for info in truth.classes.classes}
        assert {info.name for info in ours.classes.classes} <= used
        for our_id, their_id in zip(ours.video_ids(), truth.video_ids(), strict=True):
            assert objects(ours, our_id) == objects(truth, their_id)
            stems = [frame.image.read_bytes() for frame in ours.read(our_id).frames]
            assert stems == [frame.image.read_bytes() for frame in truth.read(their_id).frames]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_export_is_sharded_with_the_same_areas(tool, world, exports, tmp_path):
    """A copy in another process gives the same, too."""
    dataset = pickle.loads(pickle.dumps(opened(tool, exports[tool])))
    report = make_shards(dataset, tmp_path / "ours", split="train")
    make_shards(YouTubeVis(str(world)), tmp_path / "theirs", split="train")
    assert (report.skipped, report.videos) == ({}, 2)
    counted = [{row["name"]: (row["objects"], row["pixels"]) for row in ShardSet(tmp_path / name).manifest["classes"]
                if row["videos"]} for name in ("ours", "theirs")]
    assert counted[0] == counted[1]


@pytest.mark.parametrize("tool", TOOLS)
def test_classes_may_be_listed(tool, copy):
    root = copy(tool)
    names = [info.name for info in opened(tool, root).classes.classes]
    (root / "labels.txt").write_text("__ignore__\n_background_\n" + "\n".join([*reversed(names), "unicorn"]))
    assert [info.name for info in opened(tool, root).classes.classes] == [*reversed(names), "unicorn"]
    rows = [{"id": id, "name": name, "isthing": 0} for id, name in enumerate(names)]
    save(root / "categories.json", rows)
    assert not opened(tool, root).classes.is_thing.any()
    save(root / "categories.json", [{**row, "name": "same"} for row in rows])
    with pytest.raises(BadInput, match=r"lists the classes \['same'\] twice"):
        opened(tool, root)
    save(root / "categories.json", rows[:0])
    with pytest.raises(BadInput, match="lists no categories"):
        opened(tool, root)


@pytest.mark.parametrize("tool", TOOLS)
def test_classes_that_fit_no_frame_refuse_every_video(tool, copy, tmp_path):
    root = copy(tool)
    (root / "labels.txt").write_text("unicorn")
    dataset = opened(tool, root)
    for video in dataset.video_ids():
        with pytest.raises(BadInput, match=r"unicorn|is not listed") as refused:
            dataset.read(video)
        assert refused.value.reason == "unknown-category"


@pytest.mark.parametrize("tool", ["cvat", "cvat coco", "labelme"])
def test_a_split_that_is_not_there_is_named(tool, exports, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'nowhere'.*evaluation\.split"):
        opened(tool, exports[tool], "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="give every video a folder of its own"):
        opened(tool, tmp_path)


def shapes_of(root: Path, change) -> Path:
    """Change the shapes of every frame of the first video of an export of LabelMe."""
    folder = min((root / "train").iterdir())
    for path in folder.glob("*.json"):
        edit(path, lambda content: content["shapes"].__setitem__(slice(None), change(content["shapes"])))
    return folder


SQUARE = {"label": "a", "points": [[2, 3], [12, 3], [12, 13], [2, 13]], "group_id": None, "shape_type": "polygon"}


@pytest.mark.parametrize(("shape", "area"), [
    (SQUARE, 100), ({**SQUARE, "shape_type": "rectangle", "points": [[12, 13], [2, 3]]}, 100),
    ({**SQUARE, "shape_type": "rectangle"}, 100),
    ({**SQUARE, "shape_type": "circle", "points": [[20, 20], [20, 26]]}, 113)])
def test_shapes_of_labelme_have_their_area(copy, shape, area):
    root = copy("labelme")
    folder = shapes_of(root, lambda _: [shape])
    video = opened("labelme", root).read(folder.name)
    assert len(video.segments) == 1
    for frame in video.frames:
        assert float(run_lengths.area(frame.masks[1])) == pytest.approx(area, rel=0.05)


def test_frames_without_json_have_no_label_and_empty_ones_are_labelled(copy):
    root = copy("labelme")
    folder = shapes_of(root, lambda _: [SQUARE])
    (folder / "3.json").unlink()
    edit(folder / "4.json", lambda content: content.update(shapes=[]))
    frames = opened("labelme", root).read(folder.name).frames
    assert [frame.name for frame in frames if frame.masks is None] == ["3"]
    assert frames[4].masks == {}


def test_parts_with_one_group_are_one_object_and_areas_without_are_told_apart_or_refused(copy):
    root = copy("labelme")
    other = {**SQUARE, "points": [[30, 30], [40, 30], [40, 40]]}
    folder = shapes_of(root, lambda _: [{**SQUARE, "group_id": 5}, {**other, "group_id": 5}])
    assert len(opened("labelme", root).read(folder.name).segments) == 1
    shapes_of(root, lambda _: [SQUARE, other])
    with pytest.raises(BadInput, match="2 shapes 'a' without group_id"):
        opened("labelme", root).read(folder.name)
    for path in sorted(folder.glob("*.json"))[1:]:
        path.unlink()
    assert len(opened("labelme", root).read(folder.name).segments) == 2     # only one labelled frame
    save(root / "categories.json", [{"id": 1, "name": "a", "isthing": 0}])
    assert len(opened("labelme", root).read(folder.name).segments) == 1     # stuff has no objects


@pytest.mark.parametrize(("change", "message"), [
    ({"points": [[1, 2], [3, float("nan")], [5, 5]]}, "a corner of the polygon is nan"),
    ({"points": [[1, 2], ["a", 3], [5, 5]]}, "a corner of the polygon is 'a'"),
    ({"points": 5}, "points of shape is 5; it must be a list"),
    ({"shape_type": "star"}, "its shape_type is 'star'"), ({"shape_type": ["x"]}, "its shape_type is a list"),
    ({"shape_type": "circle", "points": [[1, 2]]}, "a circle and a mask have two"),
    ({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "no"}, "no PNG in base64"),
    ({"label": None}, "label of shape")])
def test_what_is_no_shape_is_named_with_its_file(copy, change, message):
    root = copy("labelme")
    folder = min((root / "train").iterdir())
    name = opened("labelme", root).classes.classes[0].name
    shapes_of(root, lambda _: [{**SQUARE, "label": name, **change}])
    (root / "labels.txt").write_text(name)
    with pytest.raises(BadInput, match=re.escape(message)) as refused:
        opened("labelme", root).read(folder.name)
    assert (refused.value.video, Path(refused.value.file).suffix) == (folder.name, ".json")


def test_lines_and_ignored_shapes_of_labelme_are_counted(copy):
    root = copy("labelme")
    folder = shapes_of(root, lambda _: [SQUARE, {**SQUARE, "shape_type": "line", "points": [[0, 0], [5, 5]]},
                                        {**SQUARE, "label": "__ignore__"}])
    remarks = opened("labelme", root).read(folder.name).remarks
    assert remarks == {"points and lines, which have no area": 12, "shapes labelled __ignore__": 12}


def xml_of(root: Path, change) -> Path:
    folder = min((root / "train").iterdir())
    path = folder / "annotations.xml"
    path.write_text(change(path.read_text()))
    return folder


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text[:len(text) // 2], "not valid XML"),
    (lambda text: text.replace('<track ', '<image id="0" name="a"/><track ', 1), "export 'CVAT for images'"),
    (lambda text: re.sub('rle="', 'rle="7, ', text), "do not add up"),
    (lambda text: re.sub(' left="', ' left="9', text), "does not lie inside the frame")])
def test_faults_of_an_xml_cost_its_video_and_are_named(copy, change, message):
    root = copy("cvat")
    folder = xml_of(root, change)
    dataset = opened("cvat", root)
    with pytest.raises(BadInput, match=message) as refused:
        dataset.read(folder.name)
    assert refused.value.file == folder / "annotations.xml"
    other = max((root / "train").iterdir())
    assert dataset.read(other.name).segments


@pytest.mark.parametrize(("number", "message", "faults"), [
    ("12", "labelled in frame 12, but the pictures are .* 0 to 11", ["frame_000011", "frame_000012"]),
    ("last", "frame of .* is 'last'", ["frame_000011"])])
def test_a_wrong_number_of_a_frame_costs_the_frame_that_it_stands_for(copy, number, message, faults):
    root = copy("cvat")
    folder = xml_of(root, lambda text: text.replace('frame="11"', f'frame="{number}"'))
    video = opened("cvat", root).read(folder.name)
    assert [frame.name for frame in video.frames if frame.masks is None] == ["frame_000011"]
    assert sorted(video.faults) == faults
    assert all(re.search(message, fault.what) for fault in video.faults.values())


TEXTS = st.one_of(st.text(max_size=4), st.sampled_from([
    "-1", "1e9", "nan", "1;2", "1,2;3", "10" * 30, "0,0;9,0;9,9", ""]))


@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(where=st.floats(0, 1, exclude_max=True), value=TEXTS, drop=st.booleans())
def test_whatever_an_attribute_of_an_xml_holds_only_named_errors_are_raised(exports, tmp_path_factory, where, value,
                                                                            drop):
    root = tmp_path_factory.getbasetemp() / "fuzzed xml"
    folder = root / "train" / "v"
    if not root.exists():
        shutil.copytree(min((exports["cvat"] / "train").iterdir()), folder)
        (folder / "annotations.xml").rename(root / "original.xml")
    tree = ElementTree.parse(root / "original.xml")
    places = [(element, name) for element in tree.iter() for name in element.attrib]
    element, name = places[int(where * len(places))]
    element.set(name, "".join(c for c in value if c.isprintable() and not 0xD800 <= ord(c) < 0xE000))
    if drop:
        del element.attrib[name]
    tree.write(folder / "annotations.xml")
    with suppress(BadInput):
        dataset = opened("cvat", root)
        encode_video(dataset, "v", ShardConfig())


def test_polygons_are_read_and_boxes_are_counted(copy):
    root = copy("cvat")
    shapes = ('<track id="7" label="disc"><polygon frame="0" points="2,3;12,3;12,13;2,13"/>'
              '<polygon frame="1" outside="1" points="0,0;0,0;0,0"/></track>'
              '<track id="8" label="disc"><box frame="0" xtl="0" ytl="0" xbr="5" ybr="5"/></track></annotations>')
    folder = xml_of(root, lambda text: re.sub("<track.*</annotations>", shapes, text))
    video = opened("cvat", root).read(folder.name)
    assert [int(run_lengths.area(frame.masks[1])) for frame in video.frames if frame.masks] == [100]
    assert video.remarks["boxes without a mask"] == 1
    assert [times for text, times in video.remarks.items() if text.startswith("objects in one frame only")] == [1]


def test_frames_whose_order_is_unclear_are_refused_and_padded_ones_are_counted_from_zero(copy):
    root = copy("cvat")
    folder = min((root / "train").iterdir())
    before = objects(opened("cvat", root), folder.name)
    for index in range(12):
        (folder / "images" / f"frame_{index:06d}.jpg").rename(folder / "images" / f"pic{index + 1:02d}.jpg")
    assert objects(opened("cvat", root), folder.name) == before
    for index in range(12):
        (folder / "images" / f"pic{index + 1:02d}.jpg").rename(folder / "images" / f"pic{index + 1}.jpg")
    with pytest.raises(BadInput, match="the numbers of frames in the XML have two meanings"):
        opened("cvat", root).read(folder.name)


def task(size: int | None = None, shape: tuple[int, int] | None = None) -> str:
    """What CVAT says about a task: its frames, and their width and height."""
    told = [f"<size>{size}</size>"] if size is not None else []
    if shape is not None:
        told.append(f"<original_size><width>{shape[0]}</width><height>{shape[1]}</height></original_size>")
    return "<meta><task>" + "".join(told)


@pytest.mark.parametrize(("told", "named", "message"), [
    (task(12), "pic", None), (task(14), "pic", "lists 14 frames, but there are 12 pictures"),
    (task(11), "pic", "lists 11 frames"), (task(14), "frame_0000", None), (task(shape=(64, 48)), "frame_0000", None),
    (task(), "mixed", "CVAT named the frames frame_000000 and so on"),
    (task(shape=(128, 96)), "frame_0000", "labelled at 128x96 pixels, but the pictures are 64x48")])
def test_pictures_that_are_not_those_of_the_task_are_refused(copy, told, named, message):
    """Otherwise labels would silently be those of another frame, or at another place."""
    root = copy("cvat")
    folder = xml_of(root, lambda text: text.replace("<meta><task>", told, 1))
    before = objects(opened("cvat", root), folder.name) if message is None else None
    if named != "frame_0000":
        for index in range(12 if named == "pic" else 1):
            (folder / "images" / f"frame_{index:06d}.jpg").rename(folder / "images" / f"pic{index:02d}.jpg")
    if message is None:
        assert objects(opened("cvat", root), folder.name) == before
        return
    with pytest.raises(BadInput, match=message):
        opened("cvat", root).read(folder.name)


def test_two_tracks_with_one_id_are_two_objects(copy):
    root = copy("cvat")
    shapes = ('<track id="0" label="disc"><polygon frame="0" points="2,3;11,3;2,13"/></track>'
              '<track id="0" label="square"><polygon frame="0" points="20,3;29,3;20,13"/></track></annotations>')
    folder = xml_of(root, lambda text: re.sub("<track.*</annotations>", shapes, text))
    dataset = opened("cvat", root)
    video = dataset.read(folder.name)
    assert [dataset.classes.classes[segment.class_index].name for segment in video.segments] == ["disc", "square"]
    assert sorted(video.frames[0].masks) == [1, 2]


def update_all(images: list[dict], **values) -> None:
    for image in images:
        image.update(values)


@pytest.mark.parametrize(("change", "message", "frames"), [
    (lambda images: images[1].update(id=images[0]["id"]), "listed twice", [0, 1]),
    (lambda images: images[1].update(file_name="cam/" + images[0]["file_name"]), "listed twice", [0, 1]),
    (lambda images: images[1].update(width=128, height=96), "at 128x96 pixels, but the pictures are 64x48", [1])])
def test_images_of_a_coco_export_have_their_own_id_and_the_size_of_the_pictures(copy, change, message, frames):
    root = copy("cvat coco")
    folder = min((root / "train").iterdir())
    edit(folder / "annotations" / "instances_default.json", lambda content: change(content["images"]))
    video = opened("cvat coco", root).read(folder.name)
    assert [index for index, frame in enumerate(video.frames) if frame.masks is None] == frames
    assert all(message in fault.what for fault in video.faults.values())


def test_a_coco_export_of_pictures_of_another_size_is_refused(copy):
    root = copy("cvat coco")
    folder = min((root / "train").iterdir())
    edit(folder / "annotations" / "instances_default.json",
         lambda content: update_all(content["images"], width=128, height=96))
    with pytest.raises(BadInput, match="labelled at 128x96 pixels, but the pictures are 64x48"):
        opened("cvat coco", root).read(folder.name)


def test_a_picture_that_a_coco_export_does_not_list_has_no_label(copy):
    root = copy("cvat coco")
    folder = min((root / "train").iterdir())
    shutil.copy(folder / "images" / "default" / "frame_000000.jpg", folder / "images" / "default" / "later.jpg")
    frames = opened("cvat coco", root).read(folder.name).frames
    assert [frame.name for frame in frames if frame.masks is None] == ["later"]


@pytest.mark.parametrize("tool", ["cvat", "cvat coco", "labelme"])
@pytest.mark.parametrize("target", ["nowhere", "broken"])
def test_a_link_to_nowhere_costs_its_video_and_files_beside_videos_are_counted(tool, copy, target):
    root = copy(tool)
    (root / "train" / "broken").symlink_to(target)
    (root / "train" / "notes.txt").touch()
    (root / "train" / ".DS_Store").touch()
    dataset = opened(tool, root)
    assert len(dataset.video_ids()) == 3
    assert dataset.remarks == {"files beside the folders of videos": 1}
    with pytest.raises(BadInput, match=r"train/broken.*it holds no pictures|train/broken.*Too many levels of symbolic"):
        dataset.read("broken")
    assert dataset.read("train_00000").segments


def test_two_folders_of_davis_with_one_name_are_named(copy):
    root = copy("davis")
    (root / "ImageSets" / "2017" / "train.txt").write_text("a/b\na+b\n")
    dataset = opened("davis", root)
    assert dataset.video_ids() == ["a+b"]
    with pytest.raises(BadInput, match=r"'a\+b' and 'a/b' both become the video"):
        dataset.read("a+b")


def test_shapes_of_cvat_without_track_are_refused_with_the_way_to_draw_them(copy):
    root = copy("cvat coco")
    folder = min((root / "train").iterdir())
    edit(folder / "annotations" / "instances_default.json",
         lambda content: [annotation.pop("attributes") for annotation in content["annotations"]] and None)
    with pytest.raises(BadInput, match=r"has no track_id.* draw objects as 'Track', not as 'Shape'"):
        opened("cvat coco", root).read(folder.name)


def test_an_export_without_annotations_is_named(copy):
    root = copy("cvat")
    folder = min((root / "train").iterdir())
    (folder / "annotations.xml").unlink()
    with pytest.raises(BadInput, match=r"holds no annotations\.xml and no json"):
        opened("cvat", root).read(folder.name)


def test_without_meta_all_objects_of_davis_are_of_one_class(copy):
    root = copy("davis")
    (root / "meta.json").unlink()
    dataset = opened("davis", root)
    assert [(info.name, info.is_thing) for info in dataset.classes.classes] == [("object", True)]
    assert {segment.class_index for video in dataset.video_ids() for segment in dataset.read(video).segments} == {0}


def test_255_is_void_beside_objects_and_the_object_where_it_is_alone(copy):
    root = copy("davis")
    (root / "meta.json").unlink()
    video_id = opened("davis", root).video_ids()[0]
    first, *others = sorted((root / "Annotations" / "480p" / video_id).iterdir())
    ids = np.array(Image.open(first))
    ids[:4] = 255
    first.write_bytes(encode_png(ids))
    dataset = opened("davis", root)
    video = dataset.read(video_id)
    assert 255 not in {segment.id for segment in video.segments}
    assert not dataset.frame_ids(video, video.frames[0])[:4].any()
    for path in [first, *others]:
        path.write_bytes(encode_png((np.array(Image.open(path)) > 0).astype(np.uint8) * 255))
    video = dataset.read(video_id)
    assert [segment.id for segment in video.segments] == [255]
    assert ids_in(dataset.frame_ids(video, video.frames[0])) == [0, 255]


def test_the_layout_of_youtube_vos_has_its_splits_as_folders(copy):
    root = copy("davis")
    for name in ("JPEGImages", "Annotations"):
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
            for folder in (root / name / "480p").glob(f"{split}*"):
                folder.rename(root / split / name / folder.name)
        shutil.rmtree(root / name)
    videos = json.loads((root / "meta.json").read_text())["videos"]
    (root / "meta.json").unlink()
    for split in ("train", "val"):
        save(root / split / "meta.json", {"videos": {k: v for k, v in videos.items() if k.startswith(split)}})
    assert opened("davis", root).video_ids() == ["train_00000", "train_00001"]
    assert len(opened("davis", root, "val").read("val_00000").segments) > 0
    edit(root / "val" / "meta.json", lambda content: content["videos"].update(
        val_9={"objects": {"1": {"category": "aardvark"}}}))
    both = [opened("davis", root, split).classes for split in ("train", "val")]
    assert both[0] == both[1]
    assert both[0].classes[0].name == "aardvark"


def test_maps_in_colours_are_refused(copy):
    root = copy("davis")
    for path in (root / "Annotations" / "480p" / "train_00000").iterdir():
        path.write_bytes(encode_png(np.zeros((48, 64, 3), np.uint8)))
    with pytest.raises(BadInput, match="it has colours and no objects"):
        opened("davis", root).read("train_00000")
