"""Predictions on disk: read back equal, official in shape, tied to what made them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from model.contracts import PanopticVideo, SemanticVideo, Track, Tracks, VideoResults, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, class_of, panoptic_id, track_of
from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.images import decode_png, ids_from_rgb
from pipeline.metrics.vpq import VPQ
from pipeline.predictions.reading import Predictions, read_predictions
from pipeline.predictions.writer import PredictionWriter

CLASSES = ClassTable("three", (ClassInfo(7, "cat", True, (200, 0, 0)), ClassInfo(9, "dog", True, (0, 200, 0)),
                               ClassInfo(3, "sky", False, (0, 0, 200))))
MADE_BY = {"recipe": "tiny", "checkpoint": "abc"}


def video_of(maps, name="v"):
    maps = np.asarray(maps, np.int32)
    segments = {i: VideoSegment(class_index=class_of(i), track=track_of(i), score=1 / (2 + i))
                for i in np.unique(maps).tolist() if i != VOID}
    return PanopticVideo(video_id=name, frame_names=tuple(f"{3 * i:05d}" for i in range(len(maps))),
                         frames=list(maps), segments=segments)


IDS = (VOID, panoptic_id(0, 1), panoptic_id(0, 2), panoptic_id(1, 9_999), panoptic_id(2, 0))


def some_video(seed=0, name="v", shape=(3, 8, 11)):
    return video_of(np.random.default_rng(seed).choice(IDS, shape), name)


@pytest.fixture
def writer(tmp_path):
    return PredictionWriter(folder=tmp_path / "out", classes=CLASSES, made_by=MADE_BY)


def assert_equal_videos(found, expected):
    assert (found.video_id, found.frame_names, found.segments) == (expected.video_id, expected.frame_names,
                                                                   expected.segments)
    for _ in range(2):     # lazy frames can be iterated again
        for ids, other in zip(found.frames, expected.frames, strict=True):
            assert ids.dtype == np.int32
            assert (ids == other).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), frames=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9))
def test_what_is_written_is_read_back_equal(tmp_path_factory, seed, frames, height, width):
    writer = PredictionWriter(folder=tmp_path_factory.mktemp("out"), classes=CLASSES, made_by=MADE_BY)
    video = some_video(seed, shape=(frames, height, width))
    writer.write(VideoResults(panoptic=video))
    writer.finish()
    assert_equal_videos(read_predictions(writer.folder)["v"], video)


def test_more_tracks_than_a_byte_survive(writer):
    video = video_of([[[panoptic_id(0, 1 + 30 * row + column) for column in range(30)] for row in range(30)]])
    writer.write(VideoResults(panoptic=video))
    writer.finish()
    assert_equal_videos(read_predictions(writer.folder)["v"], video)


def test_the_panoptic_part_is_what_the_official_tools_read(writer):
    video = some_video()
    writer.write(VideoResults(panoptic=video))
    writer.finish()
    (entry,) = json.loads((writer.folder / "pred.json").read_text())["annotations"]
    assert entry["video_id"] == "v"
    official = {}
    for frame, ids in zip(entry["annotations"], video.frames, strict=True):
        numbers = ids_from_rgb(decode_png((writer.folder / "pan_pred" / "v" / frame["file_name"]).read_bytes()))
        assert set(np.unique(numbers)) - {0} == {info["id"] for info in frame["segments_info"]}
        assert ((numbers == 0) == (ids == VOID)).all()
        for info in frame["segments_info"]:
            rows, columns = np.nonzero(numbers == info["id"])
            assert official.setdefault(info["id"], ids[rows[0], columns[0]]) == ids[rows[0], columns[0]]
            assert info["category_id"] == CLASSES.classes[class_of(official[info["id"]])].dataset_id
            assert (info["area"], info["iscrowd"]) == (len(rows), 0)
            left = columns.min()
            top = rows.min()
            assert info["bbox"] == [left, top, columns.max() - left + 1, rows.max() - top + 1]


@pytest.mark.parametrize("stuff_tracks", [False, True])
def test_tracks_are_youtube_vis_results(writer, stuff_tracks):
    video = some_video()
    writer = replace(writer, stuff_tracks=stuff_tracks)
    writer.write(VideoResults(panoptic=video), path="film.mp4", times=[0.0, 0.5, 1.25])
    writer.finish()
    tracks = json.loads((writer.folder / "tracks.json").read_text())
    maps = [ids_from_rgb(decode_png((writer.folder / "pan_pred" / "v" / f"{name}.png").read_bytes()))
            for name in video.frame_names]
    wanted = [i for i in sorted(video.segments) if stuff_tracks or CLASSES.is_thing[class_of(i)]]
    assert [track["category_id"] for track in tracks] == [CLASSES.classes[class_of(i)].dataset_id for i in wanted]
    assert [track["score"] for track in tracks] == [video.segments[i].score for i in wanted]
    for i, track in zip(wanted, tracks):
        assert track["category_name"] == CLASSES.classes[class_of(i)].name
        assert (track["frame_names"], track["times"]) == (list(video.frame_names), [0.0, 0.5, 1.25])
        rows = zip(video.frames, maps, *(track[key] for key in ("segmentations", "bboxes", "areas")), strict=True)
        for ids, colors, mask, (left, top, width, height), area in rows:
            assert (run_lengths.decode(mask).astype(bool) == (ids == i)).all()
            assert ((colors == track["id_in_maps"]) == (ids == i)).all()
            assert area == (ids == i).sum()
            assert (ids == i)[top:top + height, left:left + width].sum() == area
            assert (ids == i)[top].any()
            assert (ids == i)[:, left + width - 1].any()


def test_a_frame_without_the_track_has_no_mask(writer):
    writer.write(VideoResults(panoptic=video_of([[[1, 1]], [[VOID, VOID]], [[1, VOID]]])))
    writer.finish()
    (track,) = json.loads((writer.folder / "tracks.json").read_text())
    for key in ("segmentations", "bboxes", "areas"):
        assert [value is None for value in track[key]] == [False, True, False]
    assert track["times"] is None


def test_workers_in_any_order_give_the_same_bytes(tmp_path, writer):
    other = replace(writer, folder=tmp_path / "other")
    for name in "abc":
        writer.write(VideoResults(panoptic=some_video(ord(name), name)))
    for name in "bca":
        pickle.loads(pickle.dumps(other)).write(VideoResults(panoptic=some_video(ord(name), name)))
    writer.finish()
    other.finish(["c", "a", "b"])
    files = [path.relative_to(writer.folder) for path in sorted(writer.folder.rglob("*")) if path.is_file()]
    assert len(files) == 3 + 3 + 9
    for file in files:
        assert (writer.folder / file).read_bytes() == (other.folder / file).read_bytes(), file


def test_an_interrupted_video_is_not_finished_and_can_be_written_again(writer):
    video = some_video()

    def breaking():
        yield video.frames[0]
        raise RuntimeError("power cut")

    writer.write(VideoResults(panoptic=video))     # finished once, so that its old part would be found
    with pytest.raises(RuntimeError):
        writer.write(VideoResults(panoptic=replace(video, frames=breaking())))
    assert not writer.is_finished("v")
    with pytest.raises(ValueError, match=r"1 of 1 videos are not predicted by this run, first \['v'\]"):
        writer.finish(["v"])
    with pytest.raises(FileNotFoundError, match="no finished predictions"):
        read_predictions(writer.folder)
    writer.write(VideoResults(panoptic=video))
    assert writer.is_finished("v")
    writer.finish(["v"])
    assert_equal_videos(read_predictions(writer.folder)["v"], video)


def test_predictions_of_another_run_are_refused_with_the_difference(writer):
    writer.write(VideoResults(panoptic=some_video()))
    other = replace(writer, made_by={**MADE_BY, "checkpoint": "xyz"})
    assert not other.is_finished("v")
    writer.finish()
    assert read_predictions(writer.folder, expected={"recipe": "tiny"}).made_by == MADE_BY
    with pytest.raises(ValueError, match="checkpoint: they have 'abc', expected 'xyz'"):
        read_predictions(writer.folder, expected={"checkpoint": "xyz"})
    with pytest.raises(ValueError, match="checkpoint: they have 'abc', expected 'xyz'"):
        replace(writer, made_by=other.made_by)


@pytest.mark.parametrize(("segments", "reason"), [({}, "unlisted-id"), ({1: 0, 2: 0}, "empty-segment")])
def test_maps_and_lists_that_disagree_are_not_written(writer, segments, reason):
    listed = {i: VideoSegment(class_index=c, track=i) for i, c in segments.items()}
    with pytest.raises(BadInput, match="video 'v'") as error:
        writer.write(VideoResults(panoptic=replace(video_of([[[1, VOID]]]), segments=listed)))
    assert error.value.reason == reason
    assert not writer.is_finished("v")


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_names_that_leave_the_folder_are_refused(writer, name):
    with pytest.raises(ValueError, match="cannot name a folder"):
        writer.write(VideoResults(panoptic=some_video(name=name)))


def damage(writer, change):
    """Write a video, change the entry of its first segment in pred.json, read it."""
    writer.write(VideoResults(panoptic=some_video()))
    writer.finish()
    content = json.loads((writer.folder / "pred.json").read_text())
    change(content["annotations"][0]["annotations"][0]["segments_info"])
    (writer.folder / "pred.json").write_text(json.dumps(content))
    return list(read_predictions(writer.folder)["v"].frames)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda infos: infos.pop(), "unlisted-id"),
    (lambda infos: infos.append(infos[0] | {"id": 5, "track_id": 77}), "empty-segment"),
    (lambda infos: infos[0].update(category_id=3 if infos[0]["category_id"] != 3 else 7), "inconsistent-id"),
    (lambda infos: infos[0].update(category_id=1234), "inconsistent-id")])
def test_files_that_contradict_each_other_are_refused_when_read(writer, change, reason):
    with pytest.raises(BadInput, match="video 'v'") as error:
        damage(writer, change)
    assert error.value.reason == reason


def test_a_changed_pred_json_is_named_and_costs_the_videos_that_are_not_as_they_were_written(writer, caplog):
    for name in ("v", "w"):
        writer.write(VideoResults(panoptic=some_video(name=name)))
    manifest = json.loads(writer.finish().read_text())
    path = writer.folder / "pred.json"
    assert_equal_videos(read_predictions(writer.folder, compare=True)["w"], some_video(name="w"))
    assert caplog.messages == []
    content = json.loads(path.read_text())
    content["annotations"][1]["annotations"][0]["segments_info"][0]["area"] = 1
    path.write_text(json.dumps(content))
    predictions = read_predictions(writer.folder, compare=True)
    (line,) = caplog.messages
    assert line.startswith(f"{path} has sha256 {sha256_of(path)[:12]}..., but predictions.json lists "
                           f"{manifest['sha256'][path.name][:12]}...")
    assert_equal_videos(predictions["v"], some_video(name="v"))
    with pytest.raises(BadInput, match=r"video 'w'.*pred\.json: its entry is not the one in .*w\.json"):
        list(predictions["w"].frames)


def test_predictions_of_other_tools_are_read_and_scored_as_ours(writer):
    video = some_video()
    writer.write(VideoResults(panoptic=video))
    writer.finish()
    content = json.loads((writer.folder / "pred.json").read_text())
    for frame in content["annotations"][0]["annotations"]:
        for info in frame["segments_info"]:
            del info["track_id"], info["score"]
    foreign = writer.folder / "foreign.json"
    foreign.write_text(json.dumps(content))
    found = Predictions(annotations=foreign, maps=writer.folder / "pan_pred", classes=CLASSES)
    vpq = VPQ(CLASSES, windows=(1, 3))
    vpq.update(found["v"], video)
    assert vpq.result().mean((1, 3)).all == 1
    assert (list(found), len(found)) == (["v"], 1)
    for i, segment in found["v"].segments.items():
        assert i == panoptic_id(segment.class_index, segment.track)
        assert CLASSES.is_thing[segment.class_index] == (segment.track > 0)


def some_tracks() -> Tracks:
    rng = np.random.default_rng(0)
    masks = [run_lengths.encode(np.asfortranarray(rng.integers(0, 2, (6, 5), np.uint8))) for _ in range(3)]
    return Tracks(video_id="v", frame_names=("00000", "00003"), size=(6, 5), tracks=(
        Track(class_index=1, score=0.75, masks=(masks[0], None)),
        Track(class_index=0, score=0.5, masks=(masks[1], masks[2]))))


def test_tracks_are_read_back_equal_and_replace_those_of_the_panoptic_video(writer):
    writer.write(VideoResults(panoptic=some_video(shape=(2, 6, 5)), tracks=some_tracks()))
    writer.finish()
    assert writer.tracks("v") == some_tracks()
    assert [row["category_id"] for row in json.loads((writer.folder / "tracks.json").read_text())] == [9, 7]
    assert list(read_predictions(writer.folder)) == ["v"]


def test_a_video_without_tracks_has_none_to_read(writer):
    writer.write(VideoResults(panoptic=some_video()))
    with pytest.raises(ValueError, match="tracks among the results"):
        writer.tracks("v")


def test_a_semantic_video_is_written_as_one_map_per_frame(writer):
    maps = [np.array([[0, VOID], [2, 1]], np.int32)]
    writer.write(VideoResults(semantic=SemanticVideo(video_id="v", frame_names=("a",), frames=maps)))
    writer.finish()
    assert decode_png((writer.folder / "semantic/v/a.png").read_bytes()).tolist() == [[7 + 1, 0], [3 + 1, 9 + 1]]
    assert json.loads((writer.folder / "pred.json").read_text()) == {"annotations": []}
