"""Inputs as people bring them, through `predict`: one bad entry costs one entry, and everything is named."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jobs import predict
from jobs.models import load_system
from jobs.verb import guarded
from jobs.verb import resolved as resolved_recipe
from pipeline.datasets.raw_video import open_video
from pipeline.errors import BadInput
from pipeline.predictions import read_predictions
from pipeline.visualise.video_writer import VideoWriter
from tests.untrained_run import moving_square, predicting, untrained_run, write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def own_data(real_data, tmp_path):
    """A copy of the inputs in which each has one oddity."""
    return Path(shutil.copytree(real_data / "own_data", tmp_path / "own_data"))


def run(recipe, given, output: Path, **changes) -> dict:
    """The last line of `predict`, after a check that all result files hold exactly the videos that are done."""
    said = predict.main(predicting(recipe, given, output, **changes))
    names = {video["video"] for video in said["videos"]} | set(said["kept"])
    tracks = json.loads((output / "tracks.json").read_text())
    written = read_predictions(output)
    assert set(written) == names
    assert {row["video_id"] for row in tracks} <= names
    for video in said["videos"]:
        assert len(list(written[video["video"]].frames)) == video["frames"]
        assert Path(video["overlay"]).is_file()
    return said


def frames(said: dict) -> dict[str, int]:
    return {video["video"]: video["frames"] for video in said["videos"]}


def reasons(said: dict) -> dict[str, str]:
    return {video["video"]: video["reason"] for video in said["skipped"]}


def test_a_picture_beside_videos_is_named_and_the_videos_are_predicted(recipe, own_data, tmp_path, capsys):
    said = run(recipe, own_data / "cover_beside_videos" / "in", tmp_path / "out")
    assert frames(said) == {"a": 4, "b": 4}
    assert reasons(said) == {"cover.jpg": "picture-beside-videos"}
    assert "cover.jpg: it lies beside videos and is not predicted" in capsys.readouterr().out


def test_the_cure_of_a_cut_file_works_as_printed(recipe, own_data, tmp_path):
    given = own_data / "cut_mp4"
    said = run(recipe, given, tmp_path / "out")
    assert frames(said) == {"whole": 24}
    message = said["skipped"][0]["message"]
    assert "only 7 of 24 frames can be decoded" in message
    setting, value = message.split("--set predict.")[1].split(",")[0].split("=")
    said = run(recipe, given, tmp_path / "out2", **{setting: json.loads(value)})
    assert frames(said) == {"cut": 7, "whole": 24}
    assert "7 frames before the damage" in said["videos"][0]["damage"]


def test_hidden_and_companion_files_are_no_frames(recipe, own_data, tmp_path):
    said = run(recipe, own_data / "frames_appledouble" / "in", tmp_path / "out")
    assert (list(frames(said).values()), reasons(said)) == ([4], {})


def test_a_long_name_is_shortened_and_the_others_keep_theirs(recipe, own_data, tmp_path):
    said = run(recipe, own_data / "long_name" / "in", tmp_path / "out")
    assert len(said["videos"]) == 3
    assert {"a", "z"} < set(frames(said))
    assert reasons(said) == {}


def test_names_of_frames_with_raised_digits_are_read_in_order(recipe, own_data, tmp_path):
    said = run(recipe, own_data / "superscript_names" / "in", tmp_path / "out")
    assert frames(said) == {"a": 4, "s": 4}
    names = read_predictions(tmp_path / "out")["s"].frame_names
    assert names == ("0²0", "1²1", "2²2", "3²3")


def test_unpadded_numbers_are_in_natural_order(recipe, own_data, tmp_path):
    run(recipe, own_data / "raw_unpadded_names" / "data" / "imgs" / "val_000", tmp_path / "out")
    assert read_predictions(tmp_path / "out")["val_000"].frame_names == tuple(f"frame{i}" for i in range(12))


def test_webp_pictures_named_jpg_are_read_by_content(recipe, own_data, tmp_path):
    assert list(frames(run(recipe, own_data / "webp_named_jpg" / "in", tmp_path / "out")).values()) == [4]


def test_every_kind_of_bad_entry_costs_that_entry_alone(recipe, tmp_path, capsys):
    given = tmp_path / "in"
    given.mkdir()
    write_video(given / "good.mp4")
    write_video(given / os.fsdecode(b"new\nline\xff.mp4"))
    (given / "dangling.mp4").symlink_to("nowhere")
    (given / "circle.mp4").symlink_to("circle.mp4")
    (given / "empty.mp4").touch()
    (given / "text.mp4").write_text("no video\n" * 100)
    (given / "folder.mp4").mkdir()
    (given / "mixed").mkdir()
    for index, size in enumerate([(32, 32), (32, 40)]):
        Image.new("RGB", size).save(given / "mixed" / f"{index}.png")
    (given / "broken_frame").mkdir()
    Image.new("RGB", (32, 32)).save(given / "broken_frame" / "0.png")
    (given / "broken_frame" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = run(recipe, given, tmp_path / "out")
    assert frames(said) == {"good": 5, "new_line_": 5, "broken_frame": 1}
    assert reasons(said) == {"dangling.mp4": "unreadable", "circle.mp4": "unreadable", "empty.mp4": "empty-file",
                             "text.mp4": "corrupt-video", "folder.mp4": "not-a-video", "mixed": "size-differs"}
    printed = capsys.readouterr().out
    assert "broken_frame: 1 pictures are left out, since they cannot be read; the first: " in printed
    assert all(name in printed for name in reasons(said))


def test_a_picture_that_cannot_be_read_costs_its_frame_and_time_stays_right(recipe, tmp_path):
    given = tmp_path / "in"
    given.mkdir()
    for index in range(6):
        Image.fromarray(moving_square(index)).save(given / f"{index}.png")
    whole = run(recipe, given, tmp_path / "whole", fps=2.0)
    for index in (0, 3):
        (given / f"{index}.png").write_bytes((given / f"{index}.png").read_bytes()[:-9])
    said = run(recipe, given, tmp_path / "out", fps=2.0)
    assert (frames(whole), frames(said), said["skipped"]) == ({"in": 6}, {"in": 4}, [])
    assert f"{given}: 2 pictures are left out" in said["videos"][0]["damage"]
    assert f"file {given / '0.png'}" in said["videos"][0]["damage"]
    assert read_predictions(tmp_path / "out")["in"].frame_names == ("1", "2", "4", "5")
    assert open_video(said["videos"][0]["overlay"]).times == pytest.approx([0.0, 0.5, 1.5, 2.0])
    assert {tuple(row["times"]) for row in json.loads((tmp_path / "out" / "tracks.json").read_text())} <= {
        (0.5, 1.0, 2.0, 2.5)}
    late = run(recipe, given, tmp_path / "late", fps=2.0, start=1.4, every=2)
    assert (frames(late), read_predictions(tmp_path / "late")["in"].frame_names) == ({"in": 1}, ("4",))
    with pytest.raises(BadInput, match=r"0\.png"):
        predict.main(replace(predicting(recipe, given, tmp_path / "strict"), strict=True))


def test_further_video_streams_of_a_file_are_named(recipe, tmp_path, capsys):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=6, width=width, height=height)
                   for width, height in ((72, 50), (40, 30))]
        for stream in streams:
            for index in range(5):
                image = np.full((stream.height, stream.width, 3), 9 * index, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode())
    said = run(recipe, path, tmp_path / "out")
    assert frames(said) == {"two": 5}
    assert said["videos"][0]["left_out"].startswith(f"{path} has 2 video streams, and only the first is read")
    assert f"left out: {path} has 2 video streams" in capsys.readouterr().out
    assert Image.open(next((tmp_path / "out" / "pan_pred" / "two").iterdir())).size == (72, 50)


@pytest.mark.parametrize("size", [(16, 1200), (1200, 16), (1, 1), (1, 700), (3, 3)])
def test_frames_of_any_shape_are_predicted(recipe, tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    with VideoWriter(tmp_path / "strip.mp4", fps=6) as video:
        for frame in noise:
            video.write(frame)
    said = run(recipe, tmp_path / "strip.mp4", tmp_path / "out")
    assert frames(said) == {"strip": 3}


@pytest.mark.parametrize("suffix", ["bmp", "webp", "tif", "avif", "png", "jpg"])
def test_pictures_of_every_format_are_frames_and_videos_of_one_frame(recipe, tmp_path, suffix):
    given = tmp_path / "in"
    given.mkdir()
    for index in (0, 2, 10):
        Image.fromarray(moving_square(index)).save(given / f"{index}.{suffix}")
    assert frames(run(recipe, given, tmp_path / "folder")) == {"in": 3}
    said = run(recipe, str(given / f"*.{suffix}"), tmp_path / "glob")
    assert frames(said) == {"0": 1, "2": 1, "10": 1}
    assert Image.open(said["videos"][0]["overlay"]).size[0] >= 72
    assert frames(run(recipe, given / f"2.{suffix}", tmp_path / "single")) == {"2": 1}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_pictures_are_set_upright(recipe, tmp_path, suffix):
    tags = Image.Exif()
    tags[0x0112] = 6    # a quarter turn, as phones write it
    Image.fromarray(moving_square(0)).save(tmp_path / f"phone.{suffix}", exif=tags)
    run(recipe, tmp_path / f"phone.{suffix}", tmp_path / "out")
    written, = read_predictions(tmp_path / "out")["phone"].frames
    assert written.shape == (72, 50)


def test_a_picture_that_holds_several_or_16_bits_is_named(recipe, tmp_path):
    given = tmp_path / "in"
    given.mkdir()
    Image.fromarray(moving_square(0)).save(given / "good.png")
    Image.fromarray(moving_square(0)).save(given / "stack.tif", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(given / "deep.tif")
    content = io.BytesIO()
    Image.fromarray(moving_square(0)).save(content, "WEBP")
    (given / "cut.webp").write_bytes(content.getvalue()[:60])
    said = run(recipe, str(given / "*"), tmp_path / "out")
    assert frames(said) == {"good": 1}
    assert reasons(said) == dict.fromkeys(("stack.tif", "deep.tif", "cut.webp"), "corrupt-image")


def test_a_missing_entry_of_a_list_costs_that_entry(recipe, tmp_path):
    write_video(tmp_path / "film.mp4")
    said = run(recipe, (str(tmp_path / "film.mp4"), str(tmp_path / "gone.mp4")), tmp_path / "out")
    assert (frames(said), Counter(reasons(said).values())) == ({"film": 5}, {"missing-file": 1})


def test_nothing_but_bad_entries_is_a_data_error_that_quotes_the_first(recipe, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").symlink_to("nowhere")
    assert guarded(predict.main, lambda: predicting(recipe, tmp_path / "in", tmp_path / "out")) == 3
    assert "a.mp4: it cannot be opened" in capsys.readouterr().err


def test_a_tilde_is_the_home_folder_in_every_path_of_a_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_video(tmp_path / "film.mp4")
    shutil.copytree(recipe.run_folder, tmp_path / "run")
    said = []
    given = predicting(replace(recipe, folder="~/run", world=None), "~/film.mp4", Path("~/out"))
    assert guarded(lambda resolved: said.append(predict.main(resolved)) or {}, lambda: given) == 0
    assert said[0]["output"] == str(tmp_path / "out")
    assert said[0]["videos"][0]["path"] == str(tmp_path / "film.mp4")
    assert given.run_folder == tmp_path / "run"
    listed = resolved_recipe(predicting(recipe, ("~/a.mp4", "/b/*.jpg"), Path("~/out"))).predict
    assert listed.input == (str(tmp_path / "a.mp4"), "/b/*.jpg")
    assert listed.output == str(tmp_path / "out")
    assert len(load_system("~/run").predict("~/film.mp4").panoptic.frame_names) == 5
    assert replace(recipe, stage_one_from="~/run").stage_one_run == tmp_path / "run"
    assert replace(recipe, world=None, dataset=replace(recipe.dataset, root="~/set")).data_root == tmp_path / "set"
