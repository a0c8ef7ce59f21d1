"""Class tables: colours in any form, ids that a coding can store, values it reserves, and how often each occurs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from jobs import make_shards as verb
from model.contracts import PanopticVideo, VideoResults, VideoSegment
from model.labels import ClassInfo, ClassTable, panoptic_id
from pipeline.datasets import OFFICIAL_CLASSES
from pipeline.datasets.classes_youtube_vis import distinct_color
from pipeline.errors import BadInput
from pipeline.images import decode_png, encode_png
from pipeline.predictions import PredictionWriter, read_predictions
from pipeline.shards import ShardSet, class_table, make_shards
from pipeline.shards.allowed import refuse_unfit_classes
from tests.own_data.worlds import SOURCES, edit, save
from tests.runs import here, tiny_run

COLORS = [(60, 80, 100), (220, 60, 60), (0, 0, 0), (255, 255, 255)]
FORMS = {
    "numbers": list, "floats": lambda color: [float(part) for part in color],
    "fractions": lambda color: [part / 255 for part in color], "with alpha": lambda color: [*color, 255],
    "hex": lambda color: "#" + "".join(f"{part:02x}" for part in color),
    "HEX without #": lambda color: "".join(f"{part:02X}" for part in color),
    "0x": lambda color: "0x" + "".join(f"{part:02x}" for part in color),
    "texts": lambda color: list(map(str, color)), "object": lambda color: dict(zip("rgb", color)),
    "text": lambda color: ", ".join(map(str, color)), "rgb()": lambda color: f"rgb({color[0]}, {color[1]},{color[2]})",
}
CATEGORIES = [name for name in SOURCES if "categories" in name]


def rewritten(name: str, tmp_path: Path, change) -> Path:
    """The world of a reader whose category file is changed row by row."""
    root = SOURCES[name].write(tmp_path / "world")
    edit(root / SOURCES[name].json, lambda rows: [change(index, row) for index, row in enumerate(rows)])
    return root


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CATEGORIES)
def test_colours_are_read_in_any_common_form(tmp_path, name, form):
    write = FORMS[form]
    root = rewritten(name, tmp_path, lambda index, row: {**row, "color": write(COLORS[index % 4])})
    colors = [info.color for info in SOURCES[name].open(root).classes.classes]
    assert colors == [COLORS[index % 4] for index in range(len(colors))]


@pytest.mark.parametrize(("text", "color"), [
    ("red", (255, 0, 0)), (" CornflowerBlue ", (100, 149, 237)), ("#f80f", (255, 136, 0)),
    ("#ff8000cc", (255, 128, 0)), ("rgb(100%, 50%, 0%)", (255, 128, 0)), ("hsl(120, 100%, 50%)", (0, 255, 0))])
def test_colours_are_read_as_css_writes_them(tmp_path, text, color):
    root = rewritten("vspw categories", tmp_path, lambda index, row: {**row, "color": text if index else [0.5, 0, 1.0]})
    colors = [info.color for info in SOURCES["vspw categories"].open(root).classes.classes]
    assert colors == [(128, 0, 255), *[color] * (len(colors) - 1)]      # beside fractions, which stay fractions


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_class_without_a_colour_gets_one_of_its_own(tmp_path, name):
    root = rewritten(name, tmp_path, lambda index, row: {key: row[key] for key in ("id", "name", "isthing")})
    classes = SOURCES[name].open(root).classes.classes
    assert [info.color for info in classes] == [distinct_color(info.dataset_id) for info in classes]


@pytest.mark.parametrize("color", [[0, 0, 256], [-1, 0, 0], [1, 2], "red-ish", 7, [0, 0, "1"], [0, 0, float("nan")],
                                   {"r": 1}, "#12", [0.5, 0.5, 2]], ids=repr)
@pytest.mark.parametrize("name", CATEGORIES)
def test_a_colour_that_is_none_is_named_with_its_class(tmp_path, name, color):
    root = rewritten(name, tmp_path, lambda index, row: {**row, "color": color if index == 1 else row["color"]})
    with pytest.raises(BadInput, match="color of category") as error:
        SOURCES[name].open(root)
    assert error.value.file == root / SOURCES[name].json


LIMITS = {"vipseg categories": 654, "vspw categories": 251, "kitti_step categories": 254}


@pytest.mark.parametrize("name", LIMITS)
def test_a_class_id_that_the_label_maps_cannot_store_is_refused_by_name(tmp_path, name):
    limit = LIMITS[name]
    root = SOURCES[name].write(tmp_path / "world")
    rows = json.loads((root / SOURCES[name].json).read_text())
    for id, refused in ((limit, False), (limit + 1, True), (10**9, True), (-1, True)):
        save(root / SOURCES[name].json, [*rows, {**rows[0], "id": id, "name": "last"}])
        if refused:
            with pytest.raises(BadInput, match=f"{id}") as error:
                SOURCES[name].open(root)
            assert "last" in str(error.value) or "from 0" in str(error.value)
        else:
            assert SOURCES[name].open(root).classes.classes[-1].dataset_id == id


def test_the_value_200_is_an_object_in_own_data_and_void_in_the_release(tmp_path, real_data):
    """200 is the first instance of the second class, if that is a thing; the release has it as an error of its tool."""
    source = SOURCES["vipseg categories"]
    root = rewritten("vipseg categories", tmp_path, lambda index, row: {**row, "isthing": 1})
    path = next((root / "panomasks" / "train_00000").iterdir())
    label = decode_png(path.read_bytes())
    label[:5, :5] = 200
    path.write_bytes(encode_png(label))
    second = [index for index, info in enumerate(source.open(root).classes.classes) if info.dataset_id == 1]
    video = source.open(root).read("train_00000")
    assert {segment.id: segment.class_index for segment in video.segments}[200] == second[0]
    official = json.loads((real_data / "real_vps" / "panoVIPSeg_categories.json").read_text())
    save(root / source.json, official)
    path.write_bytes(encode_png(np.full((48, 64), 200, np.uint16)))
    dataset = source.open(root)
    assert dataset.classes == OFFICIAL_CLASSES["vipseg"]
    video = dataset.read("train_00000")
    assert 200 not in {segment.id for segment in video.segments}
    frame = next(frame for frame in video.frames if frame.label == path)
    assert not dataset.frame_ids(video, frame).any()


@pytest.mark.parametrize("official", [True, False])
def test_the_value_252_is_void_in_the_release_of_vspw_and_costs_its_frame_the_label_elsewhere(tmp_path, official):
    source = SOURCES["vspw categories"]
    root = source.write(tmp_path / "world")
    path = next((root / "data" / "train_00000" / "mask").iterdir())
    path.write_bytes(encode_png(np.full((48, 64), 252, np.uint8)))
    if official:
        (root / "categories.json").unlink()
    video = source.open(root).read("train_00000")
    assert video.segments
    if official:
        assert not video.faults
    else:
        ((name, fault),) = video.faults.items()
        assert name == path.stem
        assert "252" in str(fault)
        assert next(frame for frame in video.frames if frame.name == name).label is None


def test_the_table_of_classes_counts_videos_objects_and_pixels(tmp_path):
    """Against the records of the reader and the masks of the shards, and in the manifest."""
    for name in ("vipseg", "youtube_vis", "vspw categories"):
        root = SOURCES[name].write(tmp_path / name, videos_train=3)
        dataset = SOURCES[name].open(root)
        make_shards(dataset, tmp_path / "shards" / name, split="train")
        shards = ShardSet(tmp_path / "shards" / name)
        rows = shards.manifest["classes"]
        assert [row["name"] for row in rows] == [info.name for info in dataset.classes.classes]
        for class_index, row in enumerate(rows):
            objects = [segment for video in shards.videos for segment in video.segments
                       if segment.class_index == class_index]
            pixels = sum(int((shards.ids(video, frame) == segment.id).sum()) for video in shards.videos
                         for segment in video.segments if segment.class_index == class_index
                         for frame in range(len(video.frames)))
            videos = sum(any(segment.class_index == class_index for segment in video.segments)
                         for video in shards.videos)
            assert (row["videos"], row["objects"], row["pixels"]) == (videos, len(objects), pixels)


def test_pixels_that_objects_share_count_for_each_of_them(tmp_path):
    source = SOURCES["youtube_vis"]
    root = source.write(tmp_path / "world")

    def overlap(content: dict) -> None:
        first, second = [track for track in content["annotations"] if track["video_id"] == 1][:2]
        content["annotations"] = [first, second]
        for track in (first, second):
            track["segmentations"] = [[[0, 0, 10, 0, 10, 10, 0, 10]], None, None]

    edit(root / source.json, overlap)
    make_shards(source.open(root), tmp_path / "shards", split="train")
    rows = ShardSet(tmp_path / "shards").manifest["classes"]
    assert sum(row["pixels"] for row in rows) == 200
    assert sum(row["objects"] for row in rows) == 2


def test_a_shift_by_one_shows_in_the_printed_table():
    rows = [{"id": 0, "name": "sky", "videos": 0, "objects": 0, "pixels": 0},
            {"id": 1, "name": "sheep", "videos": 3, "objects": 7, "pixels": 750},
            {"id": 2, "name": "dog", "videos": 1, "objects": 1, "pixels": 250}]
    table = class_table(rows).splitlines()
    assert table[1].split() == ["sheep", "3", "7", "75.000%"]
    assert table[-1] == "never: sky"


def test_make_shards_prints_the_table_and_what_was_left_out(tmp_path, capsys):
    source = SOURCES["coco_instance"]
    root = source.write(tmp_path / "world")
    edit(root / source.json, lambda content: content["annotations"][0].update(segmentation=[], bbox=[1, 2, 3, 4]))
    edit(root / source.json, lambda content: content["categories"].append({"id": 77, "name": "comet"}))
    recipe = here(tiny_run(tmp_path / "run"))
    report = verb.shard_split(recipe, "train", source.open(root))
    said = capsys.readouterr().out
    assert report.remarks == {"boxes without a mask": 1}
    assert "remarks: 1 boxes without a mask" in said
    assert "videos   objects    pixels" in said
    assert "never: " in said
    assert "comet" in said.splitlines()[-2]


def test_the_table_is_in_mlflow(tmp_path):
    recipe = here(tiny_run(tmp_path / "run"))
    verb.main(recipe)
    client = MlflowClient(f"sqlite:///{tmp_path / 'tracking.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (run,) = [run.info.run_id for run in runs
              if "classes_train.json" in {file.path for file in client.list_artifacts(run.info.run_id)}]
    rows = json.loads(Path(client.download_artifacts(run, "classes_train.json", str(tmp_path))).read_text())
    assert rows == ShardSet(recipe.shards_of("train")).manifest["classes"]
    assert any(row["objects"] for row in rows)


@pytest.mark.parametrize("wrong", [{"color": (0.5, 0, 0)}, {"color": (0, 0)}, {"name": 7}, {"dataset_id": -1},
                                   {"name": "a\nb"}], ids=repr)
def test_classes_that_a_later_verb_cannot_write_are_refused_before_anything_is_made(wrong):
    fields = {"dataset_id": 1, "name": "cow", "is_thing": True, "color": (1, 2, 3), **wrong}
    with pytest.raises(BadInput, match="class "):
        refuse_unfit_classes(ClassTable("own", (ClassInfo(**fields),)))


def test_stuff_of_equal_and_black_colours_is_told_apart_in_written_maps(tmp_path):
    classes = ClassTable("own", tuple(ClassInfo(id, f"c{id}", False, (0, 0, 0)) for id in range(3)))
    ids = np.repeat([[panoptic_id(index, 0) for index in range(3)]], 4, axis=0).astype(np.int32)
    segments = {int(panoptic_id(index, 0)): VideoSegment(class_index=index, track=0) for index in range(3)}
    video = PanopticVideo(video_id="v", frame_names=("0",), frames=[ids], segments=segments)
    writer = PredictionWriter(folder=tmp_path, classes=classes, made_by={})
    writer.write(VideoResults(panoptic=video))
    writer.finish()
    (read,) = list(read_predictions(tmp_path)["v"].frames)
    np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("name", OFFICIAL_CLASSES)
def test_official_classes_pass(name):
    refuse_unfit_classes(OFFICIAL_CLASSES[name])
