"""Names of frames and videos as other systems and tools write them, in every reader of videos and in `predict`."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from pipeline.clips import FolderSource
from pipeline.datasets.own_videos import find_videos
from pipeline.errors import BadInput
from pipeline.file_names import can_name_a_file, frame_name
from pipeline.predictions import read_predictions
from pipeline.records import Dataset, VideoRecord
from pipeline.shards import ShardSet, make_shards
from tests.own_data.exports import export
from tests.own_data.renaming import READERS, rename_frames, written
from tests.own_data.test_exports import opened
from tests.own_data.test_predict_inputs import recipe, run  # noqa: F401  the fixture of an untrained run
from tests.own_data.worlds import SOURCES, edit, save

SECONDS = ["9.75", "10.0", "10.25", "10.5"]
UNCLEAR = ["10.25", "10.5", "10.625"]
ODD = ["a\nb 0", "b" * 230 + "1", "c\x1b[31m2"]
NFC = "\xe9t\xe9"
NFD = unicodedata.normalize("NFD", NFC)


def read(dataset: Dataset) -> list[VideoRecord]:
    return [dataset.read(video) for video in dataset.video_ids()]


def labels(video: VideoRecord) -> list:
    return [(frame.segment_ids, frame.masks) for frame in video.frames]


@pytest.mark.parametrize("reader", READERS)
def test_frames_named_by_seconds_are_in_the_order_of_time(tmp_path, reader):
    root, opened = written(reader, tmp_path / "data", frames=4)
    before = read(opened())
    rename_frames(root, opened(), SECONDS)
    for video, same in zip(read(opened()), before, strict=True):
        assert [frame.name for frame in video.frames] == SECONDS
        assert labels(video) == labels(same)
        assert FolderSource(video.frames[0].image.parent).frame_names == tuple(SECONDS)


@pytest.mark.parametrize("reader", READERS)
def test_frames_whose_names_tell_no_order_are_refused_by_name(tmp_path, reader):
    root, opened = written(reader, tmp_path / "data", frames=3)
    dataset = opened()
    folder = dataset.read(dataset.video_ids()[0]).frames[0].image.parent
    rename_frames(root, dataset, UNCLEAR)
    with pytest.raises(BadInput, match=r"'10\.25' comes before '10\.5' if") as error:
        opened().read(dataset.video_ids()[0])
    assert (error.value.reason, error.value.video) == ("unclear-order", dataset.video_ids()[0])
    assert str(error.value.file).startswith(str(root))
    with pytest.raises(BadInput, match=r"10\.25") as error:
        FolderSource(folder)
    assert (error.value.reason, error.value.file) == ("unclear-order", folder)


def test_places_in_an_xml_of_cvat_have_two_meanings_where_fractions_are_named(tmp_path):
    root = export("cvat", SOURCES["youtube_vis"].write(tmp_path / "world", frames=4), tmp_path / "cvat")
    rename_frames(root, opened("cvat", root), SECONDS)
    with pytest.raises(BadInput, match="in another order as numbers than as words"):
        opened("cvat", root).read("train_00000")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("on_disk", "listed"), [(NFC, NFD), (NFD, NFC)])
def test_names_match_in_either_form_of_unicode(tmp_path, reader, on_disk, listed):
    """Frames, labels and jsons; and where the layout has them, folders and the lists of videos."""
    root, opened = written(reader, tmp_path / "data", frames=3)
    before = read(opened())
    rename_frames(root, opened(), [f"{on_disk}{index}" for index in range(3)])
    for path in (path for path in root.rglob(f"*{on_disk}*.png")):          # label maps; pictures are jpg or png too
        if "mask" in str(path) or "Annotations" in str(path) or "maps" in str(path):
            path.rename(path.with_name(path.name.replace(on_disk, listed)))
    for path in root.rglob("*.json"):
        if path.name.startswith(on_disk):
            path.rename(path.with_name(path.name.replace(on_disk, listed)))
        elif not path.is_symlink():
            text = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
            save(path, json.loads(text.replace(on_disk, listed)))
    after = read(opened())
    assert [labels(video) for video in after] == [labels(video) for video in before]
    assert {frame.name for video in after for frame in video.frames} == {f"{NFC}{index}" for index in range(3)}
    make_shards(opened(), tmp_path / "shards", split="train")
    assert len(ShardSet(tmp_path / "shards").videos) == 2


@pytest.mark.parametrize("reader", ["vipseg", "vipseg categories", "vspw categories", "davis", "youtube_vis"])
@pytest.mark.parametrize(("on_disk", "listed"), [(NFC, NFD), (NFD, NFC)])
def test_folders_of_videos_match_in_either_form(tmp_path, reader, on_disk, listed):
    root, opened = written(reader, tmp_path / "data", frames=2)
    name = sorted(opened().video_ids())[0]
    before = opened().read(name)
    for path in [path for path in root.rglob(name) if path.is_dir()]:
        path.rename(path.with_name(on_disk))
    for path in [*root.rglob("*.txt"), *root.glob("*.json")]:
        path.write_text(path.read_text().replace(name, listed))
    dataset = opened()
    assert NFC in dataset.video_ids()
    assert labels(dataset.read(NFC)) == labels(before)


@pytest.mark.parametrize(("on_disk", "listed"), [(NFC, NFD), (NFD, NFC)])
def test_images_of_coco_match_in_either_form(tmp_path, on_disk, listed):
    for reader, folder in (("coco_panoptic", "panoptic_train2017"), ("coco_instance", "train2017")):
        source = SOURCES[reader]
        root = source.write(tmp_path / reader)
        first = min((root / "train2017").iterdir())
        for path in {first, root / folder / f"{first.stem}.png"} if folder != "train2017" else {first}:
            path.rename(path.with_name(on_disk + path.suffix))
        edit(root / source.json, lambda content, old=first.stem: json.loads(
            json.dumps(content, ensure_ascii=False).replace(f"{old}.", f"{listed}.")))
        assert source.open(root).read(NFC).segments


def test_labels_match_listed_classes_in_either_form(tmp_path):
    root = export("labelme", SOURCES["youtube_vis"].write(tmp_path / "world"), tmp_path / "labelme")
    names = [info.name for info in opened("labelme", root).classes.classes]
    (root / "labels.txt").write_text("\n".join([NFC, *names]))
    path = min((root / "train" / "train_00000").glob("*.json"))
    edit(path, lambda content: content["shapes"][0].update(label=NFD))
    dataset = opened("labelme", root)
    assert 0 in {segment.class_index for segment in dataset.read("train_00000").segments}


@pytest.mark.parametrize(("on_disk", "given"), [(NFC, NFD), (NFD, NFC)])
def test_what_is_given_to_predict_matches_in_either_form(tmp_path, on_disk, given):
    (tmp_path / f"{on_disk}.mp4").touch()
    (tmp_path / "list.txt").write_text(f"{given}.mp4\n")
    for entry in (f"{given}.mp4", f"{given}*.mp4", "list.txt"):
        found = find_videos(str(tmp_path / entry))
        assert [(video.name, Path(video.path).name) for video in found.videos] == [(NFC, f"{on_disk}.mp4")]


@pytest.mark.parametrize("reader", READERS)
def test_a_frame_of_any_name_is_read_under_one_that_results_can_have(tmp_path, reader):
    root, opened = written(reader, tmp_path / "data", frames=3)
    before = read(opened())
    rename_frames(root, opened(), ODD)
    names = [frame_name(name) for name in ODD]
    assert all(map(can_name_a_file, names))
    for video, same in zip(read(opened()), before, strict=True):
        assert [frame.name for frame in video.frames] == names
        assert labels(video) == labels(same)
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped, report.faults) == (2, {}, ())
    assert [frame.name for frame in ShardSet(tmp_path / "shards").videos[0].frames] == names


def test_frames_of_any_name_are_predicted(recipe, tmp_path):  # noqa: F811
    root, opened = written("vspw categories", tmp_path / "data", frames=3)
    rename_frames(root, opened(), ODD)
    dataset = opened()
    folder = dataset.read(dataset.video_ids()[0]).frames[0].image.parent
    said = run(recipe, folder, tmp_path / "out")
    assert (len(said["videos"]), said["skipped"]) == (1, [])
    (video,) = read_predictions(tmp_path / "out").values()
    assert list(video.frame_names) == [frame_name(name) for name in ODD]
    assert len(list(video.frames)) == 3


LISTS = {"vipseg": "train.txt", "vipseg categories": "train.txt", "vspw categories": "train.txt",
         "davis": "ImageSets/2017/train.txt"}


@pytest.mark.parametrize("line", [b"../elsewhere", b"/etc/passwd", b"C:/data/v", b"broken \xff\xfe", b"nul \0",
                                  b"\x1b[31mred"])
@pytest.mark.parametrize("reader", LISTS)
def test_a_bad_line_of_a_list_costs_that_line(tmp_path, reader, line):
    root, opened = written(reader, tmp_path / "data", frames=2)
    path = root / LISTS[reader]
    videos = opened().video_ids()
    path.write_bytes(line + b"\n" + path.read_bytes())
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, sum(report.skipped.values())) == (2, 1)
    assert [video.video_id for video in ShardSet(tmp_path / "shards").videos] == videos
    (row,) = map(json.loads, (tmp_path / "shards" / "errors.jsonl").read_text().splitlines())
    assert str(path) in row["message"]
    with pytest.raises(BadInput):
        make_shards(opened(), tmp_path / "strict", split="train", strict=True)


def test_comments_and_quotation_marks_of_a_list_are_left_out(tmp_path):
    root, opened = written("vspw categories", tmp_path / "data", frames=2)
    videos = opened().video_ids()
    (root / "train.txt").write_text("# mine\n" + "".join(f' "{video}" \n' for video in videos))
    assert opened().video_ids() == videos


def test_a_list_without_a_good_line_is_refused(tmp_path):
    root, opened = written("vspw categories", tmp_path / "data", frames=2)
    (root / "train.txt").write_bytes(bytes(range(256)) * 3)
    with pytest.raises(BadInput, match="none of its") as error:
        opened().video_ids()
    assert (error.value.reason, error.value.file) == ("bad-list", root / "train.txt")
