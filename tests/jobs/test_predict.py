"""Any video in, an overlay, PNGs and tracks out; a broken file is named and costs no other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from jobs import predict
from jobs.predict import PredictVideo
from jobs.verb import guarded
from pipeline.datasets.kitti_step import KittiStep
from pipeline.datasets.own_videos import OwnVideo
from pipeline.datasets.synthetic import write_world
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, encode_jpeg, encode_png
from pipeline.predictions import read_predictions
from pipeline.visualise.video_writer import VideoWriter
from tests.runs import here

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FRAMES = 5


def predicting(recipe, given: Path, output: Path, **changes):
    return replace(recipe, predict=replace(recipe.predict, input=str(given), output=str(output), **changes))


def moving_square(frame: int, height: int = 50, width: int = 71) -> np.ndarray:
    picture = np.full((height, width, 3), 60, np.uint8)
    picture[10:30, 5 + 4 * frame:25 + 4 * frame] = (200, 40, 40)
    return picture


def write_video(path: Path) -> None:
    with VideoWriter(path, fps=6) as video:
        for frame in range(FRAMES):
            video.write(moving_square(frame))


def write_frames(folder: Path) -> None:
    folder.mkdir()
    for frame in range(FRAMES):
        (folder / f"{3 * frame:05d}.jpg").write_bytes(encode_jpeg(moving_square(frame), quality=95))


def frames_of(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_file_and_a_folder_of_frames_give_overlay_pictures_and_tracks(finished_run, cluster, tmp_path):
    given = tmp_path / "given"
    output = tmp_path / "out"
    given.mkdir()
    write_video(given / "film.mp4")
    write_frames(given / "stills")
    said = predict.main(predicting(finished_run.copy(tmp_path / "run"), given, output))
    assert said["skipped"] == []
    assert {video["video"]: video["frames"] for video in said["videos"]} == {"film": FRAMES, "stills": FRAMES}
    for video in said["videos"]:
        assert frames_of(Path(video["overlay"])) == FRAMES
        assert len(list((output / "pan_pred" / video["video"]).glob("*.png"))) == FRAMES
    tracks = json.loads((output / "tracks.json").read_text())
    assert {track["video_id"] for track in tracks} <= {"film", "stills"}
    assert all(len(track["segmentations"]) == FRAMES for track in tracks)
    assert sum(video["segments"] for video in said["videos"]) >= len(tracks)


def test_each_broken_file_is_named_and_skipped_and_the_good_one_is_done(finished_run, cluster, tmp_path, real_data):
    given = Path(shutil.copytree(real_data / "raw_videos" / "broken", tmp_path / "given"))
    broken = {path.name for path in given.iterdir()}
    write_video(given / "good.mp4")
    said = predict.main(predicting(finished_run.copy(tmp_path / "run"), given, tmp_path / "out", mode="near_online"))
    skipped = {video["video"]: video for video in said["skipped"]}
    assert set(skipped) == broken
    assert all(name in video["message"] and video["reason"] for name, video in skipped.items())
    assert [video["video"] for video in said["videos"]] == ["good"]


def test_strict_stops_at_the_first_broken_file(finished_run, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    recipe = predicting(finished_run.recipe, tmp_path / "empty.mp4", tmp_path / "out")
    video = OwnVideo(name="empty", path=recipe.predict.input).to_text()
    recipe = predict.with_mode(recipe)
    assert PredictVideo(recipe=recipe)(video=video)["reason"] == "empty-file"
    with pytest.raises(BadInput, match=r"empty\.mp4"):
        PredictVideo(recipe=replace(recipe, strict=True))(video=video)


def test_nothing_but_broken_files_is_a_data_error_that_quotes_the_first(finished_run, tmp_path, capsys):
    (tmp_path / "empty.mp4").write_bytes(b"")
    recipe = predicting(finished_run.copy(tmp_path / "run"), tmp_path / "empty.mp4", tmp_path / "out")
    assert guarded(predict.main, lambda: here(recipe)) == 3
    said = capsys.readouterr().err
    assert "none of 1 videos could be read" in said
    assert "the file is empty (0 bytes)" in said


def test_results_of_another_model_are_not_mixed(finished_run, tmp_path):
    recipe = here(finished_run.copy(tmp_path / "run"))
    write_video(tmp_path / "film.mp4")
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", mode="near_online"))
    with pytest.raises(ValueError, match="mode"):
        predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", mode="offline"))


def test_the_kitti_step_reader_reads_what_is_predicted_in_kitti_step(finished_run, tmp_path):
    recipe = here(finished_run.copy(tmp_path / "run"))
    write_frames(tmp_path / "stills")
    predict.main(predicting(recipe, tmp_path / "stills", tmp_path / "out", mode="near_online",
                            formats=("kitti_step", "vipseg")))
    root = tmp_path / "set"
    frames = root / "images" / "val" / "stills"
    frames.mkdir(parents=True)
    for picture in (tmp_path / "stills").iterdir():
        (frames / f"{picture.stem}.png").write_bytes(encode_png(decode_jpeg(picture.read_bytes())))
    (root / "panoptic_maps").mkdir()
    (tmp_path / "out" / "panoptic_maps").rename(root / "panoptic_maps" / "val")
    shutil.copy(write_world(tmp_path / "kitti", replace(recipe.world, layout="kitti_step")) / "categories.json", root)
    dataset = KittiStep(str(root), split="val")
    record = dataset.read("stills")
    written = read_predictions(tmp_path / "out")["stills"]
    assert len(record.frames) == FRAMES
    assert written.segments
    for frame, ids in zip(record.frames, written.frames, strict=True):
        numbers = np.array([(info.dataset_id + 1) << 16 for info in dataset.classes.classes])
        assert (dataset.frame_ids(record, frame) == np.where(ids < 0, 0, numbers[ids // 10_000] + ids % 10_000)).all()
