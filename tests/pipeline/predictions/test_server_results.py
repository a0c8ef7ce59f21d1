"""Results for the evaluation servers: read back equal, official in shape, refused where a server would misread."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from model.contracts import Track, Tracks
from model.labels import ClassInfo, ClassTable
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.errors import BadInput
from pipeline.metrics.track_ap import TrackAP
from pipeline.predictions.server_results import read_listed_videos, read_results, write_results

CLASSES = ClassTable("two", (ClassInfo(1, "cat", True, (200, 0, 0)), ClassInfo(4, "dog", True, (0, 200, 0))))
FRAMES = ("00000", "00005", "00010")
SIZE = (4, 6)


def mask_of(seed, size=SIZE):
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < 0.5
    mask[0, 0] = True
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))


def tracks_of(name, *tracks):
    return Tracks(video_id=name, frame_names=FRAMES, size=SIZE, tracks=tracks)


def some_track(seed=0, **fields):
    return Track(**{"class_index": 1, "score": 0.25, "masks": (mask_of(seed), None, mask_of(seed + 1)), **fields})


@pytest.fixture
def videos(tmp_path):
    entries = [{"id": 10 + i, "height": SIZE[0], "width": SIZE[1], "length": len(FRAMES),
                "file_names": [f"{name}/{frame}.jpg" for frame in FRAMES]} for i, name in enumerate("ab")]
    (tmp_path / "valid.json").write_text(json.dumps({"videos": entries, "categories": []}))
    return read_listed_videos(tmp_path / "valid.json")


def test_what_is_written_is_read_back_equal(videos, tmp_path):
    given_ = [tracks_of("a", some_track(), some_track(5, class_index=0, score=-1.5)), tracks_of("b")]
    path = write_results(tmp_path / "out" / "results.zip", given_, videos=videos, classes=CLASSES)
    assert read_results(path, videos=videos, classes=CLASSES) == {"a": given_[0], "b": given_[1]}


def test_the_zip_is_what_the_servers_take(videos, tmp_path):
    path = write_results(tmp_path / "results.zip", [tracks_of("b", some_track()), tracks_of("a", some_track(3))],
                         videos=videos, classes=CLASSES)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["results.json"]
        rows = json.loads(archive.read("results.json"))
    assert [(row["video_id"], row["category_id"], row["score"]) for row in rows] == [(11, 4, 0.25), (10, 4, 0.25)]
    assert rows[0]["segmentations"][1] is None
    assert (run_lengths.decode(rows[0]["segmentations"][0]) == run_lengths.decode(mask_of(0))).all()


def test_equal_tracks_give_equal_bytes(videos, tmp_path):
    both = [write_results(tmp_path / name, [tracks_of("a", some_track()), tracks_of("b")], videos=videos,
                          classes=CLASSES).read_bytes() for name in ("one.zip", "other.zip")]
    assert both[0] == both[1]


def test_a_split_that_is_not_complete_leaves_no_file(videos, tmp_path):
    with pytest.raises(ValueError, match="1 of 2 videos have no tracks, first 'b'"):
        write_results(tmp_path / "results.zip", [tracks_of("a", some_track())], videos=videos, classes=CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["valid.json"]


@pytest.mark.parametrize(("video", "reason"), [
    (tracks_of("c"), "unknown-video"),
    (tracks_of("a"), "duplicate-video"),
    (replace(tracks_of("b"), frame_names=FRAMES[:2]), "frame-mismatch"),
    (replace(tracks_of("b"), size=(6, 4)), "frame-mismatch"),
    (tracks_of("b", some_track(score=float("nan"))), "bad-score"),
    (tracks_of("b", some_track(class_index=2)), "unknown-category"),
    (tracks_of("b", some_track(masks=(None,))), "frame-mismatch"),
    (tracks_of("b", some_track(masks=(mask_of(0, (6, 4)), None, None))), "size-differs"),
    (tracks_of("b", some_track(masks=(None, None, None))), "track-without-frames"),
    (tracks_of("b", some_track(), some_track(3), some_track()), "duplicate-track"),
])
def test_tracks_that_do_not_fit_are_not_written(videos, tmp_path, video, reason):
    with pytest.raises(BadInput, match=f"video '{video.video_id}'") as error:
        write_results(tmp_path / "results.zip", [tracks_of("a"), video], videos=videos, classes=CLASSES)
    assert error.value.reason == reason
    assert not (tmp_path / "results.zip").exists()


def entry(**changes):
    mask = mask_of(0)
    row = {"video_id": 10, "category_id": 1, "score": 0.5,
           "segmentations": [{"size": list(SIZE), "counts": mask["counts"].decode()}, None, None], **changes}
    return {key: value for key, value in row.items() if value != "absent"}


def mask_entry(**changes):
    return entry(segmentations=[None, {**entry()["segmentations"][0], **changes}, None])


EMPTY = run_lengths.encode(np.zeros(SIZE, np.uint8, order="F"))["counts"].decode()


@pytest.mark.parametrize(("row", "reason", "message"), [
    (entry(video_id=99), "unknown-video", "video_id 99"),
    (entry(video_id="absent"), "missing-id", "video_id"),
    (entry(video_id="a"), "missing-id", "video_id"),
    (entry(category_id=None), "missing-id", "category_id"),
    (entry(category_id=-1), "unknown-category", "-1; 'two' has 1 to 4"),
    (entry(score=float("nan")), "bad-score", "nan"),
    (entry(score=float("inf")), "bad-score", "inf"),
    (entry(score="absent"), "bad-score", "None"),
    (entry(score=True), "bad-score", "True"),
    (entry(segmentations=[None, None]), "frame-mismatch", "2 masks, the video 3 frames"),
    (entry(segmentations="absent"), "bad-json", "is not an object with a list"),
    (entry(segmentations=[None] * 3), "track-without-frames", "no pixel"),
    (mask_entry(counts=EMPTY), "track-without-frames", "no pixel"),
    (mask_entry(size=[6, 4]), "size-differs", r"\[6, 4\] \(height, width\), the video is \[4, 6\]"),
    (mask_entry(counts="04"), "corrupt-mask", "frame '00005' run lengths that describe 4 pixels; a frame has 24"),
    (mask_entry(counts="0o"), "corrupt-mask", "cannot be read"),
    (mask_entry(counts=[4, 20]), "corrupt-mask", "is not an object of size and compressed counts"),
    ([1, 2], "bad-json", "is not an object"),
])
@pytest.mark.parametrize("zipped", [False, True])
def test_results_the_server_would_misread_are_refused_by_entry(videos, tmp_path, row, reason, message, zipped):
    path = tmp_path / "results"
    text = json.dumps([entry(), row])
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("results.json", text)
    else:
        path.write_text(text)
    with pytest.raises(BadInput, match=f"entry 1 .*{message}") as error:
        read_results(path, videos=videos, classes=CLASSES)
    assert error.value.reason == reason
    assert str(path) in str(error.value)


def test_the_same_track_twice_is_refused(videos, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([entry(), entry(score=0.6), entry()]))
    with pytest.raises(BadInput, match="entries 0 and 2 are the same track"):
        read_results(tmp_path / "results.json", videos=videos, classes=CLASSES)


@pytest.mark.parametrize("content", [b"{}", b"[{", b"", b"\xff\xfe"])
def test_a_file_of_something_else_is_refused(videos, tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_results(tmp_path / "results.json", videos=videos, classes=CLASSES)
    assert error.value.reason == "bad-json"


def test_a_zip_without_results_and_no_file_at_all_are_named(videos, tmp_path):
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as archive:
        archive.writestr("folder/results.json", "[]")
    with pytest.raises(BadInput, match="exactly that file at its top"):
        read_results(tmp_path / "results.zip", videos=videos, classes=CLASSES)
    with pytest.raises(FileNotFoundError, match="no results at"):
        read_results(tmp_path / "none.json", videos=videos, classes=CLASSES)


@pytest.mark.parametrize(("change", "reason"), [
    ({"id": 10}, "duplicate-id"), ({"file_names": ["a/00000.jpg"]}, "duplicate-id"), ({"file_names": None}, "bad-json"),
])
def test_a_list_of_videos_that_contradicts_itself_is_refused(tmp_path, change, reason):
    entries = [{"id": number, "height": 4, "width": 6, "file_names": [f"{name}/00000.jpg"]}
               for number, name in ((10, "a"), (11, "b"))]
    entries[1] |= change
    (tmp_path / "valid.json").write_text(json.dumps({"videos": entries}))
    with pytest.raises(BadInput) as error:
        read_listed_videos(tmp_path / "valid.json")
    assert error.value.reason == reason


def test_real_annotations_written_as_results_score_everything(real_data, tmp_path):
    dataset = YouTubeVis(str(real_data / "real_vis"))
    listed = read_listed_videos(dataset.annotations)
    truth = {}
    for name in dataset.video_ids():
        record = dataset.read(name)
        truth[name] = Tracks(video_id=name, frame_names=tuple(frame.name for frame in record.frames),
                             size=(record.height, record.width),
                             tracks=tuple(Track(class_index=segment.class_index, masks=tuple(
                                 dict(frame.masks[segment.id]) if segment.id in frame.masks else None
                                 for frame in record.frames))
                                 for segment in record.segments))
    path = write_results(tmp_path / "results.zip", truth.values(), videos=listed, classes=dataset.classes)
    metric = TrackAP(dataset.classes)
    for name, results in read_results(path, videos=listed, classes=dataset.classes).items():
        assert results == truth[name]
        metric.update(results, truth[name])
    assert metric.result().summary()["ap"] == pytest.approx(100)
