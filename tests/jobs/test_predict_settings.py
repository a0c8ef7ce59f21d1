"""What can be set for `predict`: parts of videos, classes and scores; runs into one folder add up."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from jobs import predict
from jobs.config import override
from jobs.recipes.schema import PredictConfig
from jobs.verb import guarded
from model.labels import VOID
from pipeline.images import encode_jpeg
from pipeline.predictions import read_predictions
from tests.pipeline.visualise.test_sound import beeps, film
from tests.untrained_run import moving_square, predicting, untrained_run, write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"))


def rows(output: Path) -> list[dict]:
    return json.loads((output / "tracks.json").read_text())


def test_every_nth_frame_between_two_times_keeps_its_name_and_time(recipe, tmp_path):
    write_video(tmp_path / "film.mp4", 12, fps=4)
    said = predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", every=2, start=0.5, end=2.0))
    assert said["videos"][0]["frames"] == 3
    assert read_predictions(tmp_path / "out")["film"].frame_names == ("000002", "000004", "000006")
    assert rows(tmp_path / "out")
    for row in rows(tmp_path / "out"):
        assert row["frame_names"] == ["000002", "000004", "000006"]
        assert row["times"] == pytest.approx([0.5, 1.0, 1.5], abs=1e-3)


def test_the_sound_of_the_chosen_part_is_in_the_overlay(recipe, tmp_path):
    film(tmp_path / "film.mkv", "matroska", "libx264", "libopus", seconds=3)
    said = predict.main(predicting(recipe, tmp_path / "film.mkv", tmp_path / "out", start=0.5, end=2.0, every=3))
    assert said["videos"][0]["sound"]
    assert {5, 6} <= set(beeps(Path(said["videos"][0]["overlay"]))) <= {4, 5, 6, 7, 14, 15}


def test_a_folder_of_frames_has_the_rate_that_is_set(recipe, tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(4):
        (tmp_path / "frames" / f"{index}.jpg").write_bytes(encode_jpeg(moving_square(index)))
    said = predict.main(predicting(recipe, tmp_path / "frames", tmp_path / "out", fps=2.0))
    with av.open(said["videos"][0]["overlay"]) as overlay:
        assert [frame.time for frame in overlay.decode(video=0)] == [0.0, 0.5, 1.0, 1.5]


def test_videos_that_share_batches_have_the_results_that_they_have_alone(recipe, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for name, frames in {"a": 3, "b": 5, "d": 1}.items():
        write_video(given / f"{name}.mp4", frames)
    (given / "c.mp4").write_bytes(b"no film")
    found = []
    for together in (1, 3):
        output = tmp_path / f"out_{together}"
        said = predict.main(override(predicting(recipe, given, output), [f"inference.clips_together={together}"]))
        assert [video["video"] for video in said["skipped"]] == ["c.mp4"]
        assert [(video["video"], video["frames"]) for video in said["videos"]] == [("a", 3), ("b", 5), ("d", 1)]
        found.append(read_predictions(output))
    for name in ("a", "b", "d"):
        for one, other in zip(*(videos[name].frames for videos in found), strict=True):
            assert (one == other).mean() > 0.99


def test_times_after_the_end_of_one_video_cost_that_video(recipe, tmp_path):
    for name, frames in (("short", 3), ("long", 12)):
        write_video(tmp_path / "in" / f"{name}.mp4", frames, fps=4)
    said = predict.main(predicting(recipe, tmp_path / "in", tmp_path / "out", start=1.0))
    assert [video["video"] for video in said["videos"]] == ["long"]
    assert [(video["video"], video["reason"]) for video in said["skipped"]] == [("short.mp4", "no-frames")]


def test_only_the_chosen_classes_and_scores_are_kept(recipe, tmp_path):
    write_video(tmp_path / "film.mp4")
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "all"))
    everything = read_predictions(tmp_path / "all")["film"]
    names = [info.name for info in everything_classes(tmp_path / "all")]
    scores = sorted(segment.score for segment in everything.segments.values())
    assert len(scores) > 1
    wanted = names[next(iter(everything.segments.values())).class_index]
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "class", classes=(wanted.upper(),)))
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "score", threshold=scores[-1]))
    for folder, keeps in (("class", lambda segment: names[segment.class_index] == wanted),
                          ("score", lambda segment: segment.score >= scores[-1])):
        video = read_predictions(tmp_path / folder)["film"]
        expected = {i: segment for i, segment in everything.segments.items() if keeps(segment)}
        assert video.segments == expected
        for ids, before in zip(video.frames, everything.frames, strict=True):
            assert (ids == np.where(np.isin(before, list(expected)), before, VOID)).all()


def everything_classes(folder: Path):
    return read_predictions(folder).classes.classes


def test_nothing_above_the_threshold_is_a_video_without_objects(recipe, tmp_path):
    write_video(tmp_path / "film.mp4")
    said = predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", threshold=1.0))
    assert said["videos"][0]["segments"] == 0
    assert rows(tmp_path / "out") == []


def test_a_class_that_the_model_lacks_is_refused_before_a_video_is_read(recipe, tmp_path, capsys):
    write_video(tmp_path / "film.mp4")
    given = predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", classes=("disk",))
    assert guarded(predict.main, lambda: given) == 2
    assert "no class 'disk'; did you mean ['disc']" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_into_one_folder_add_up(recipe, tmp_path):
    for name in ("a/film.mp4", "b/film.mp4", "b/other.mp4"):
        write_video(tmp_path / name)
    output = tmp_path / "out"
    assert predict.main(predicting(recipe, tmp_path / "a", output))["kept"] == []
    before = [row for row in rows(output) if row["video_id"] == "film"]
    said = predict.main(predicting(recipe, tmp_path / "b", output))
    assert said["kept"] == ["film"]
    assert {video["video"] for video in said["videos"]} == {"film_mp4", "other"}
    assert set(read_predictions(output)) == {"film", "film_mp4", "other"}
    assert [row for row in rows(output) if row["video_id"] == "film"] == before
    assert {row["video_id"] for row in rows(output)} == {"film", "film_mp4", "other"}
    again = predict.main(predicting(recipe, tmp_path / "b", output))
    assert {video["video"] for video in again["videos"]} == {"film_mp4", "other"}
    assert set(read_predictions(output)) == {"film", "film_mp4", "other"}


@pytest.mark.parametrize(("changes", "difference"), [
    ({"formats": ("vipseg",)}, "holds 1 other videos.*'a'"), ({"threshold": 0.5}, "threshold: they have None"),
    ({"classes": ("disc",)}, "classes: they have None")])
def test_other_settings_do_not_drop_the_results_of_an_earlier_run(recipe, tmp_path, changes, difference):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4")
    predict.main(predicting(recipe, tmp_path / "a.mp4", tmp_path / "out"))
    with pytest.raises(ValueError, match=rf"{difference}.*--set predict\.output="):
        predict.main(predicting(recipe, tmp_path / "b.mp4", tmp_path / "out", **changes))
    assert set(read_predictions(tmp_path / "out")) == {"a"}


def test_all_videos_of_a_folder_may_be_predicted_again_in_other_formats(recipe, tmp_path):
    write_video(tmp_path / "a.mp4")
    for formats in ((), ("vipseg",)):
        predict.main(predicting(recipe, tmp_path / "a.mp4", tmp_path / "out", formats=formats))
    assert set(read_predictions(tmp_path / "out")) == {"a"}


def test_the_mode_is_what_the_run_has(recipe, tmp_path, capsys):
    write_video(tmp_path / "film.mp4")
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out"))
    assert "predicting near-online" in capsys.readouterr().out
    assert read_predictions(tmp_path / "out").made_by["mode"] == "near_online"
    with pytest.raises(FileNotFoundError, match="run the training verb first"):
        predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out", mode="offline"))


def test_a_list_of_inputs_is_set_as_json_and_a_path_as_a_word(recipe):
    assert override(recipe, ["predict.input=a b.mp4"]).predict.input == "a b.mp4"
    assert override(recipe, ['predict.input=["a.mp4", "b/*.mp4"]']).predict.input == ("a.mp4", "b/*.mp4")


@pytest.mark.parametrize("changes", [{"every": 0}, {"start": -1}, {"start": 2, "end": 2}, {"fps": 0}, {"fps": 1e6},
                                     {"fps": float("nan")}, {"start": float("nan")}, {"end": float("nan")},
                                     {"threshold": 1.5}])
def test_settings_that_cannot_be_meant_are_refused(changes):
    with pytest.raises(ValueError, match=r"predict\."):
        PredictConfig(**changes)
