"""`check_dataset`: what it says of good, partial and faulty data, what it draws, and that it writes nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.check_dataset import main
from jobs.verb import chosen_recipe, guarded, resolved
from model.labels import ClassInfo, ClassTable
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, encode_jpeg, encode_png
from pipeline.visualise.palette import identity_colors
from pipeline.visualise.stored_labels import labelled_picture
from tests.own_data.worlds import SOURCES


def recipe_of(root: Path, folder: Path, *changes: str, name: str = "vipseg"):
    return resolved(chosen_recipe("tiny", [f"folder={folder}", f"dataset.root={root}", f"dataset.name={name}",
                                           *changes]))


@pytest.fixture
def world(tmp_path) -> Path:
    return SOURCES["vipseg"].write(tmp_path / "world")


def test_good_data_are_counted_and_drawn_and_nothing_else_is_written(world, tmp_path, capsys):
    summary = main(recipe_of(world, tmp_path / "run"))
    assert (summary["train"]["videos"], summary["train"]["frames"], summary["train"]["skipped"]) == (2, 6, {})
    pictures = sorted(path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert [path.parts[:2] for path in pictures] == [("check", "train")] * 4 + [("check", "val")] * 2
    assert Image.open(tmp_path / "run" / pictures[0]).size[0] > 2 * 6 * 64      # enlarged, frame beside labels
    printed = capsys.readouterr().out
    assert "train: 2 videos, 6 frames" in printed
    assert "next: python -m jobs.make_shards --recipe tiny" in printed


def test_a_video_with_a_fault_is_told_with_file_and_cure_and_ends_in_the_code_of_data(world, tmp_path, capsys):
    image = sorted((world / "images" / "train_00001").iterdir())[1]
    image.write_bytes(encode_jpeg(np.zeros((20, 30, 3), np.uint8)))      # of another size than the others
    assert guarded(main, lambda: recipe_of(world, tmp_path / "run")) == 3
    printed = capsys.readouterr()
    [line] = [line for line in printed.out.splitlines() if line.startswith("wrong: ")]
    assert str(image) in line
    assert "val: 1 videos, 3 frames" in printed.out         # the other splits are checked all the same
    assert "1 videos have faults" in printed.err


def test_a_picture_that_cannot_be_read_is_told_and_costs_its_frame(world, tmp_path, capsys):
    image = sorted((world / "images" / "train_00001").iterdir())[1]
    image.write_bytes(b"no picture")
    assert main(recipe_of(world, tmp_path / "run"))["train"]["frames"] == 5
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("faulty frame: ")]
    assert str(image) in line
    with pytest.raises(BadInput, match=image.name):
        main(recipe_of(world, tmp_path / "strict", "strict=true"))


def test_a_late_frame_that_cannot_be_decoded_is_found(world, tmp_path, capsys):
    """make_shards decodes the first frame of a video only."""
    image = sorted((world / "images" / "train_00001").iterdir())[2]
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    data = bytearray(encode_jpeg(pixels))
    middle = len(data) // 2
    data[middle:-2] = b"\xff\xd8" * ((len(data) - 2 - middle) // 2)
    image.write_bytes(bytes(data) + b"\xff\xd9")
    assert main(recipe_of(world, tmp_path / "run"))["train"]["frames"] == 5
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("faulty frame: ")]
    assert str(image) in line


def test_a_split_that_cannot_be_read_does_not_hide_the_others(world, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="'nowhere'"):
        main(recipe_of(world, tmp_path / "run", "train_split=nowhere", "cache.splits=[]"))
    printed = capsys.readouterr().out
    assert "nowhere: cannot be read" in printed
    assert "val: 1 videos, 3 frames" in printed


def test_partial_labels_are_counted(own_data_of, tmp_path, capsys):
    summary = main(recipe_of(own_data_of("sparse_labels"), tmp_path / "run"))
    assert summary["train"]["remarks"] == {"frames without a label": 12}
    printed = capsys.readouterr().out
    assert "12 frames without a label" in printed
    assert "never: cell" in printed
    assert "the recipe has 6 classes, the data 4: --set count_classes=true" in printed


@pytest.fixture
def own_data_of(real_data):
    return lambda name: real_data / "own_data" / name / "data"


def test_under_strict_the_first_fault_is_raised(own_data_of, tmp_path):
    recipe = recipe_of(own_data_of("vis_nan_polygon"), tmp_path / "run", "strict=true", "evaluation.split=train",
                       name="youtube_vis")
    with pytest.raises(BadInput, match="a corner of the polygon is nan"):
        main(recipe)


def test_pictures_of_an_earlier_check_are_replaced(world, tmp_path):
    old = tmp_path / "run" / "check" / "train" / "old.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    main(recipe_of(world, tmp_path / "run"))
    assert not old.exists()


def test_the_picture_shows_every_object_where_it_is():
    classes = ClassTable("own", (ClassInfo(1, "a", True, (255, 0, 0)), ClassInfo(2, "b", False, (0, 0, 255))))
    label = np.zeros((320, 320), np.uint8)
    label[:160, :160] = 1
    label[:160, 160:] = 2
    label[160:, :160] = 3           # an overlap of 1 and 2
    meta = {"segments": [{"id": 1, "class_index": 0}, {"id": 2, "class_index": 1}],
            "overlaps": [{"id": 3, "segments": [1, 2]}]}
    gray = np.full((320, 320, 3), 100, np.uint8)
    picture = labelled_picture(encode_jpeg(gray), encode_png(label), json.loads(json.dumps(meta)), classes)
    labels = picture[-320:, -320:]
    thing = (np.array(identity_colors(classes)[0]) + 100) / 2
    expected = {(20, 20): thing, (20, 300): (50, 50, 178), (300, 20): (50, 50, 178), (300, 300): (100,) * 3}
    for place, color in expected.items():
        np.testing.assert_allclose(labels[place], color, atol=3)
    np.testing.assert_allclose(picture[-320:, :320], decode_jpeg(encode_jpeg(gray)))
