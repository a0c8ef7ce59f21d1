"""Every output format is read back by the reader of its own data set, and a format that does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from model.contracts import PanopticVideo, SemanticVideo, Track, Tracks, VideoResults, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, class_of, panoptic_id, track_of
from pipeline.datasets.kitti_step import KittiStep
from pipeline.datasets.vspw import Vspw
from pipeline.images import encode_jpeg, encode_png
from pipeline.predictions import (
    FormatName,
    PredictionWriter,
    default_formats,
    read_listed_videos,
    read_predictions,
    read_results,
    refuse_unfit_formats,
)
from pipeline.predictions.formats import FORMATS

CLASSES = ClassTable("three", (ClassInfo(7, "cat", True, (200, 0, 0)), ClassInfo(9, "dog", True, (0, 200, 0)),
                               ClassInfo(3, "sky", False, (0, 0, 200))))
FRAMES = ("00000", "00003")
SIZE = (6, 5)


def panoptic(name: str = "v") -> PanopticVideo:
    ids = (VOID, panoptic_id(0, 1), panoptic_id(0, 300), panoptic_id(1, 2), panoptic_id(2, 0))
    maps = np.random.default_rng(0).choice(ids, (2, *SIZE)).astype(np.int32)
    return PanopticVideo(video_id=name, frame_names=FRAMES, frames=list(maps), segments={
        i: VideoSegment(class_index=class_of(i), track=track_of(i)) for i in ids if i != VOID})


def tracks(name: str = "v") -> Tracks:
    mask = run_lengths.encode(np.asfortranarray(np.eye(*SIZE, dtype=np.uint8)))
    return Tracks(video_id=name, frame_names=FRAMES, size=SIZE, tracks=(
        Track(class_index=1, score=0.75, masks=(mask, None)),))


def semantic(name: str = "v") -> SemanticVideo:
    maps = np.random.default_rng(1).integers(VOID, 3, (2, *SIZE)).astype(np.int32)
    return SemanticVideo(video_id=name, frame_names=FRAMES, frames=list(maps))


RESULTS = {"panoptic": panoptic, "tracks": tracks, "semantic": semantic}


def written(folder: Path, *formats: FormatName, **results) -> PredictionWriter:
    writer = PredictionWriter(folder=folder, classes=CLASSES, made_by={"recipe": "tiny"}, formats=formats)
    writer.write(VideoResults(**results))
    return writer


def write_categories(root: Path) -> None:
    rows = [{"id": info.dataset_id, "name": info.name, "isthing": info.is_thing, "color": info.color}
            for info in CLASSES.classes]
    (root / "categories.json").write_text(json.dumps(rows))


def test_the_kitti_step_reader_reads_the_maps_of_kitti_step(tmp_path):
    video = panoptic()
    written(tmp_path / "out", "kitti_step", panoptic=video).finish()
    images = tmp_path / "set" / "images" / "val" / "v"
    images.mkdir(parents=True)
    for name in FRAMES:
        (images / f"{name}.png").write_bytes(encode_png(np.zeros((*SIZE, 3), np.uint8)))
    (tmp_path / "set" / "panoptic_maps").mkdir()
    (tmp_path / "out" / "panoptic_maps").rename(tmp_path / "set" / "panoptic_maps" / "val")
    write_categories(tmp_path / "set")
    dataset = KittiStep(str(tmp_path / "set"), split="val")
    record = dataset.read("v")
    for frame, ids in zip(record.frames, video.frames, strict=True):
        numbers = np.array([(info.dataset_id + 1) << 16 for info in CLASSES.classes])
        expected = np.where(ids == VOID, 0, numbers[ids // 10_000] + ids % 10_000)
        assert (dataset.frame_ids(record, frame) == expected).all()


def test_the_vspw_reader_reads_the_maps_of_vspw(tmp_path):
    video = semantic()
    written(tmp_path / "out", "vspw", semantic=video).finish()
    folder = tmp_path / "set" / "data" / "v"
    (folder / "origin").mkdir(parents=True)
    for name in FRAMES:
        (folder / "origin" / f"{name}.jpg").write_bytes(encode_jpeg(np.zeros((*SIZE, 3), np.uint8)))
    (tmp_path / "out" / "semantic" / "v").rename(folder / "mask")
    (tmp_path / "set" / "val.txt").write_text("v\n")
    write_categories(tmp_path / "set")
    dataset = Vspw(str(tmp_path / "set"), split="val")
    record = dataset.read("v")
    numbers = np.array([*(info.dataset_id + 1 for info in CLASSES.classes), 0])
    for frame, ids in zip(record.frames, video.frames, strict=True):
        assert (dataset.frame_ids(record, frame) == numbers[ids]).all()


def test_panoptic_videos_are_read_back_from_vipseg_alone(tmp_path):
    video = panoptic()
    writer = written(tmp_path, "vipseg", panoptic=video)
    writer.finish()
    found = read_predictions(tmp_path)["v"]
    assert found.segments == video.segments
    assert all((ids == other).all() for ids, other in zip(found.frames, video.frames, strict=True))


@pytest.fixture
def listed(tmp_path):
    """The videos "w" and "v", in the order of their json."""
    entries = [{"id": number, "height": SIZE[0], "width": SIZE[1], "file_names": [f"{name}/{f}.jpg" for f in FRAMES]}
               for number, name in ((3, "w"), (8, "v"))]
    (tmp_path / "valid.json").write_text(json.dumps({"videos": entries}))
    return read_listed_videos(tmp_path / "valid.json")


def test_the_zip_for_the_server_holds_the_tracks_of_all_listed_videos(tmp_path, listed):
    writer = written(tmp_path / "out", "youtube_vis", tracks=tracks("v"))
    writer.write(VideoResults(tracks=tracks("w")))
    writer.finish(listed=lambda: listed)
    found = read_results(tmp_path / "out" / "results.zip", videos=listed, classes=CLASSES)
    assert found == {"v": tracks("v"), "w": tracks("w")}


def test_a_video_that_was_not_predicted_is_listed_without_tracks_and_named(tmp_path, listed, caplog):
    writer = written(tmp_path / "out", tracks=tracks("v"))
    writer.finish(listed=lambda: listed)
    assert "results.zip lists 1 of its 2 videos without tracks, since they were not predicted; the first is 'w'" in (
        caplog.text)
    found = read_results(tmp_path / "out" / "results.zip", videos=listed, classes=CLASSES)
    assert found["v"] == tracks("v")
    assert found["w"].tracks == ()


def test_without_the_json_or_any_video_of_it_there_is_no_zip_and_the_reason_is_logged(tmp_path, listed, caplog):
    def absent():
        raise FileNotFoundError("the data set is elsewhere")

    writer = written(tmp_path / "out", tracks=tracks("v"))
    writer.finish(listed=absent)
    assert "no results.zip for an evaluation server: the data set is elsewhere" in caplog.text
    writer.finish(listed=lambda: {"w": listed["w"]})
    assert "none of its 1 videos has tracks" in caplog.text
    writer.finish(listed=lambda: None)
    assert len(caplog.records) == 2             # a data set without a server is nothing to report
    assert not (tmp_path / "out" / "results.zip").exists()
    assert (tmp_path / "out" / "tracks.json").exists()


def test_things_of_a_panoptic_video_are_not_sent_to_a_server(tmp_path, listed):
    written(tmp_path / "out", panoptic=panoptic()).finish(listed=lambda: pytest.fail("nobody needs the list"))
    assert json.loads((tmp_path / "out" / "tracks.json").read_text())


FILES = {"vipseg": {"pan_pred", "pred.json"}, "youtube_vis": {"tracks.json"}, "vspw": {"semantic"},
         "kitti_step": {"panoptic_maps"}}


@pytest.mark.parametrize("formats", [("vipseg",), ("youtube_vis",), ("vspw",), ("kitti_step",),
                                     ("kitti_step", "youtube_vis")])
def test_only_the_chosen_formats_are_written(tmp_path, formats):
    written(tmp_path, *formats, panoptic=panoptic(), tracks=tracks(), semantic=semantic()).finish()
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.json", "videos"}.union(
        *(FILES[name] for name in formats))


@pytest.mark.parametrize(("results", "formats"), [
    (("panoptic",), ("vipseg", "youtube_vis")), (("tracks",), ("youtube_vis",)), (("semantic",), ("vspw",)),
    (("panoptic", "semantic"), ("vipseg", "youtube_vis", "vspw"))])
def test_without_a_choice_the_formats_follow_from_the_results(results, formats):
    assert default_formats(results) == formats


def test_the_table_has_every_name():
    assert tuple(FORMATS) == get_args(FormatName)


@pytest.mark.parametrize("name", get_args(FormatName))
@pytest.mark.parametrize("result", RESULTS)
def test_a_format_is_written_from_the_results_it_reads_and_refused_without_them(tmp_path, name, result):
    results = {result: RESULTS[result]()}
    if result in FORMATS[name].reads:
        refuse_unfit_formats([name], [result])
        written(tmp_path, name, **results).finish()
        return
    for refuse in (lambda: refuse_unfit_formats([name], [result]), lambda: written(tmp_path, name, **results)):
        with pytest.raises(ValueError, match=f"the format '{name}' is written from .* and the results are {result}"):
            refuse()
    assert not list(tmp_path.iterdir())


def test_a_refusal_names_the_setting_and_the_formats_that_fit():
    with pytest.raises(ValueError, match=r"predict\.formats=\['vspw'\].* Choose from vipseg, youtube_vis, kitti_step, "
                                         "or let the results include semantic"):
        refuse_unfit_formats(["vspw"], ["panoptic"], setting="predict.formats")
    with pytest.raises(ValueError, match="there is no format 'coco'; choose from vipseg"):
        refuse_unfit_formats(["coco"], ["panoptic"])


def test_a_video_in_other_formats_is_not_finished(tmp_path):
    writer = written(tmp_path, "kitti_step", panoptic=panoptic())
    assert writer.is_finished("v")
    assert not replace(writer, formats=()).is_finished("v")
    assert not replace(writer, formats=("vipseg",)).is_finished("v")


def test_predictions_without_vipseg_are_not_read_back(tmp_path):
    written(tmp_path, "kitti_step", panoptic=panoptic()).finish()
    with pytest.raises(ValueError, match="Predict again with 'vipseg' among the formats"):
        read_predictions(tmp_path)
