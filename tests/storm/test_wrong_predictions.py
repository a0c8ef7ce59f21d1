"""Predictions made by others: a wrong entry costs its video, is named and counted, and the other videos are scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs import evaluate, make_shards
from jobs.kept_predictions import evaluated_dataset
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import guarded, resolved
from pipeline.images import decode_png, encode_png
from pipeline.predictions import listed_videos
from pipeline.predictions.video_to_write import mask_as_text
from pipeline.shards import ShardSet
from tests.runs import here, scored, tiny_run

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Recipe, Path, dict[str, Any]]:
    """A run without training, its predictions, and their score."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("made") / "run"))
    make_shards.main(recipe)
    said = evaluate.main(scored(recipe, mode="untrained", overlays=0))
    return recipe, Path(said["predictions"]), said


@pytest.fixture
def panoptic(made, tmp_path) -> tuple[Recipe, Path]:
    """The run, to score a copy of its predictions, and that copy."""
    recipe, folder, _ = made
    shutil.copytree(folder, tmp_path / "theirs")
    return scored(recipe, predictions=str(tmp_path / "theirs"), output=str(tmp_path / "scores"),
                  overlays=0), tmp_path / "theirs"


def change_panoptic(folder: Path, change: Change) -> str:
    """Change the entry of the second video in pred.json; returns the name of the video."""
    pred = json.loads((folder / "pred.json").read_text())
    entry = pred["annotations"][1]
    video = entry["video_id"]
    change(entry)
    (folder / "pred.json").write_text(json.dumps(pred))
    return video


def segment(**fields: Any) -> Change:
    """Change the first segment of the first frame."""
    return lambda entry: entry["annotations"][0]["segments_info"][0].update(fields)


def frame(**fields: Any) -> Change:
    return lambda entry: entry["annotations"][0].update(fields)


WRONG_ENTRIES: dict[str, tuple[Change, str]] = {
    "frames are a number": (lambda entry: entry.update(annotations=7), "bad-json"),
    "no frames": (lambda entry: entry.pop("annotations"), "bad-json"),
    "a frame is a text": (lambda entry: entry["annotations"].__setitem__(0, "x"), "bad-json"),
    "a frame is missing": (lambda entry: entry["annotations"].pop(), "frame-mismatch"),
    "a frame is given twice": (lambda entry: entry["annotations"].append(entry["annotations"][0]), "frame-mismatch"),
    "another frame": (frame(file_name="99.png"), "frame-mismatch"),
    "a list as name": (frame(file_name=[7]), "bad-json"),
    "segments are null": (frame(segments_info=None), "bad-json"),
    "a segment is a list": (frame(segments_info=[[1]]), "bad-json"),
    "segments are lost": (frame(segments_info=[]), "unlisted-id"),
    "id is a text": (segment(id="seven"), "bad-json"), "id is 0": (segment(id=0), "bad-json"),
    "id is negative": (segment(id=-5), "bad-json"), "id of 30 bits": (segment(id=2**30), "bad-id"),
    "id of 900 bits": (segment(id=2**900), "bad-json"), "two ids of a track": (segment(id=12345), "bad-id"),
    "another id": (segment(id=12345, track_id=77), "unlisted-id"),
    "no category": (segment(category_id=None), "bad-json"),
    "category is a list": (segment(category_id=[1]), "bad-json"),
    "unknown category": (segment(category_id=999), "inconsistent-id"),
    "score is NaN": (segment(score=float("nan")), "bad-score"), "score is a text": (segment(score="0.9"), "bad-score"),
    "score of 4000 bits": (segment(score=2**4000), "bad-score"), "track is a text": (segment(track_id="x"), "bad-json"),
    "track is negative": (segment(track_id=-1), "bad-json"), "crowd is a list": (segment(iscrowd=[]), "bad-json")}


@pytest.mark.parametrize(("change", "reason"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES.keys())
def test_a_wrong_entry_of_a_panoptic_video_is_named(panoptic, change, reason):
    recipe, folder = panoptic
    video = change_panoptic(folder, change)
    score = evaluate.ScoreVideo(recipe=recipe)
    rows = [score(video=index) for index in range(len(score.shards.videos))]
    assert [row["video"] for row in rows if "reason" in row] == [video]
    (row,) = (row for row in rows if "reason" in row)
    assert row["reason"] == reason
    assert video in row["message"]


def grey(path: Path) -> None:
    path.write_bytes(encode_png(decode_png(path.read_bytes())[..., 0]))


def sixteen_bits(path: Path) -> None:
    cv2.imwrite(str(path), decode_png(path.read_bytes()).astype(np.uint16))


def half_size(path: Path) -> None:
    path.write_bytes(encode_png(decode_png(path.read_bytes())[::2, ::2]))


@pytest.mark.parametrize(("change", "reason"), [
    (grey, "corrupt-label"), (sixteen_bits, "corrupt-label"), (half_size, "size-differs"),
    (lambda path: path.write_bytes(path.read_bytes()[:50]), "corrupt-label"), (Path.unlink, "missing-label"),
    (lambda path: path.write_bytes(b"P6 1 1 255 aaa"), "corrupt-label")])
def test_a_wrong_map_is_named(panoptic, change, reason):
    recipe, folder = panoptic
    video = ShardSet(recipe.shards_of("val")).videos[0].video_id
    change(sorted((folder / "pan_pred" / video).iterdir())[-1])
    if change is half_size:     # every id is still there
        pred = json.loads((folder / "pred.json").read_text())
        assert pred["annotations"]
    row = evaluate.ScoreVideo(recipe=recipe)(video=0)
    assert (row["video"], row.get("reason")) == (video, reason)


def test_the_other_videos_are_scored_and_entries_without_a_video_are_counted(panoptic, made, capsys):
    recipe, folder = panoptic
    video = change_panoptic(folder, segment(score=float("nan")))
    pred = json.loads((folder / "pred.json").read_text())
    pred["annotations"] += [7, {"video_id": ["x"]}, {"video_id": "unknown"}]
    twice = pred["annotations"][2]
    pred["annotations"].append(twice)
    (folder / "pred.json").write_text(json.dumps(pred))
    said = evaluate.main(recipe)
    assert said["videos"] == made[2]["videos"] - 2
    assert {row["video"]: row["reason"] for row in said["skipped"]} == {video: "bad-score",
                                                                        twice["video_id"]: "duplicate-video"}
    assert [(row["reason"], row["entries"]) for row in said["stray_entries"]] == [("bad-json", 2)]
    printed = capsys.readouterr().out
    assert "skipped: video " in printed
    assert "not scored: file " in printed
    assert "(2 entries are so)" in printed
    saved = json.loads((evaluate.scores_folder(recipe) / "scores.json").read_text())
    assert saved["stray_entries"] == said["stray_entries"]


@pytest.mark.parametrize("add", [[7], []])
def test_under_strict_the_first_wrong_entry_stops(panoptic, capsys, add):
    recipe, folder = panoptic
    change_panoptic(folder, segment(score=float("nan")))
    pred = json.loads((folder / "pred.json").read_text())
    pred["annotations"] += add
    (folder / "pred.json").write_text(json.dumps(pred))
    assert guarded(evaluate.main, lambda: replace(recipe, strict=True)) == 3
    said = capsys.readouterr().err
    assert "error: " in said
    assert str(folder / "pred.json") in said


@pytest.mark.parametrize("content", ["[]", "{}", "7", '{"annotations": {}}', '{"annotations": 3}',
                                     '{"annotations": [3]}'])
def test_a_file_without_a_usable_entry_stops_the_scoring(panoptic, capsys, content):
    recipe, folder = panoptic
    (folder / "pred.json").write_text(content)
    assert guarded(evaluate.main, lambda: recipe) == 3
    assert str(folder / "pred.json") in capsys.readouterr().err


@pytest.fixture(scope="module")
def tracks(tmp_path_factory) -> tuple[Recipe, list[dict[str, Any]]]:
    """A run whose tracks are scored, and the true tracks as entries of a results.json."""
    recipe = here(resolved(replace(find_recipe("tiny_vis"), folder=str(tmp_path_factory.mktemp("vis") / "run"))))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=1, videos_val=3))
    make_shards.main(recipe)
    shards = ShardSet(recipe.shards_of("valid"))
    numbers = {name: video.number for name, video in listed_videos(evaluated_dataset(recipe)).items()}
    entries = [{"video_id": numbers[video.video_id], "score": 0.5,
                "category_id": shards.classes.classes[track.class_index].dataset_id,
                "segmentations": [mask_as_text(mask) for mask in track.masks]}
               for video in shards.videos for track in shards.truth_tracks(video).tracks]
    return recipe, entries


def test_a_wrong_track_costs_its_video_and_one_without_a_video_costs_none(tracks, tmp_path):
    recipe, entries = tracks
    wrong = next(index for index, entry in enumerate(entries) if entry["video_id"] != entries[0]["video_id"])
    entries = [*entries, 7, {"video_id": 10**40, "category_id": 1, "segmentations": []},
               {"video_id": True, "category_id": 1, "segmentations": []}]
    results = tmp_path / "results.json"
    recipe = scored(recipe, predictions=str(results), output=str(tmp_path / "scores"), overlays=0)
    for change, reason in (({"score": float("inf")}, "bad-score"), ({"score": 10**400}, "bad-score"),
                           ({"score": None}, "bad-score"), ({"category_id": 10**6}, "unknown-category"),
                           ({"segmentations": [None]}, "frame-mismatch"),
                           ({"segmentations": [{"size": [1, 1], "counts": "1"}] * len(entries[wrong]["segmentations"])},
                            "size-differs")):
        rows = [entry | change if index == wrong else entry for index, entry in enumerate(entries)]
        results.write_text(json.dumps(rows))
        if change != {"score": float("inf")}:
            score = evaluate.ScoreVideo(recipe=recipe)
            outcomes = [score(video=index) for index in range(3)]
            assert [row["reason"] for row in outcomes if "reason" in row] == [reason]
            continue
        said = evaluate.main(recipe)
        assert (said["videos"], said["ap"]) == (2, pytest.approx(100))
        assert [row["reason"] for row in said["skipped"]] == [reason]
        assert {row["reason"]: row["entries"] for row in said["stray_entries"]} == {
            "bad-json": 1, "unknown-video": 1, "missing-id": 1}


def test_predictions_of_another_kind_than_is_scored_are_refused(tracks, tmp_path, capsys):
    recipe = scored(tracks[0], predictions=str(tmp_path))
    assert guarded(evaluate.main, lambda: recipe) == 2
    assert "holds panoptic results, and inference.results=['tracks']" in capsys.readouterr().err


def test_extra_fields_that_are_no_numbers_do_not_matter(tracks, tmp_path):
    recipe, entries = tracks
    results = tmp_path / "results.json"
    results.write_text(json.dumps([entry | {"areas": [float("nan")], "deep": [[[{}]]]} for entry in entries]))
    score = evaluate.ScoreVideo(recipe=scored(recipe, predictions=str(results), overlays=0))
    assert all("reason" not in score(video=index) for index in range(3))


def test_results_of_other_videos_alone_are_not_scored_as_empty(tracks, tmp_path, capsys):
    recipe, entries = tracks
    results = tmp_path / "results.json"
    results.write_text(json.dumps([entry | {"video_id": 10**6} for entry in entries]))
    assert guarded(evaluate.main, lambda: scored(recipe, predictions=str(results), overlays=0)) == 3
    assert "which the json of the split does not list" in capsys.readouterr().err
