"""Scores: of predictions on disk as of the model itself, with every missing or broken video named."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from jobs import evaluate
from jobs.cluster import results_of
from jobs.evaluate import ScoreVideo
from jobs.recipes import find_recipe
from jobs.verb import guarded, resolved
from model.association import ClipWiseConfig, MemoryBufferConfig, NaiveBufferConfig, StitchingConfig
from model.contracts import VideoResults
from model.postprocess.panoptic import PanopticConfig
from pipeline.errors import BadInput
from pipeline.foreign_files import own_json
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.predictions import read_predictions
from pipeline.shards import ShardSet, make_shards
from tests.pipeline.shards.toy_videos import toy_videos
from tests.runs import damage, here, inferred, scored, tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_predictions_on_disk_score_like_the_model_that_made_them_without_it(finished_run, tmp_path):
    recipe = here(finished_run.copy(tmp_path / "run"))
    (predictions,) = (recipe.run_folder / "scores" / "offline" / "predictions").iterdir()
    for stage in ("stage_one", "stage_two"):
        shutil.rmtree(recipe.run_folder / stage)
    said = evaluate.main(scored(recipe, predictions=str(predictions)))
    assert said["mode"] == "predictions"
    assert {name: said[name] for name in ("vpq", "vpq_thing", "vpq_stuff", "frames")} == {
        name: finished_run.said["offline"][name] for name in ("vpq", "vpq_thing", "vpq_stuff", "frames")}


def test_the_shares_of_single_videos_add_up_to_the_score(finished_run):
    score = ScoreVideo(recipe=scored(finished_run.recipe, mode="near_online", keep_predictions=False, overlays=0))
    shards = ShardSet(finished_run.recipe.shards_of("val"))
    card = Scorecard(shards.classes, ("panoptic",), windows=finished_run.recipe.evaluation.windows)
    for video in reversed(shards.videos):
        card.merge(Scorecard.from_json(score(video=video.index)["scores"]))
    found = headline(card.scores())
    assert found["mvc8"] is None            # every video is shorter
    for name in ("vpq", "stq", "sq", "aq", "miou"):
        assert found[name] == pytest.approx(finished_run.said["near_online"][name], abs=1e-9)


def test_videos_that_share_batches_have_the_scores_that_they_have_alone(finished_run, cluster):
    recipe = scored(finished_run.recipe, mode="near_online", keep_predictions=False, overlays=0)
    rows = [{"video": video} for video in range(4)]
    found = [sorted(results_of(ScoreVideo, rows, arguments={"recipe": inferred(recipe, clips_together=together)},
                               cluster=recipe.cluster, together=together), key=lambda result: result["video"])
             for together in (1, 3)]
    for alone, together in zip(*found, strict=True):
        assert [alone[name] for name in ("video", "frames")] == [together[name] for name in ("video", "frames")]
        scores = [headline(Scorecard.from_json(video["scores"]).scores()) for video in (alone, together)]
        for name in ("vpq", "stq", "miou"):
            assert scores[1][name] == pytest.approx(scores[0][name], abs=0.1)


def test_a_video_that_cannot_be_read_is_named_and_counted_by_reason(finished_run, tmp_path):
    recipe = scored(finished_run.copy(tmp_path / "run"), mode="near_online")
    shards = ShardSet(recipe.shards_of("val"))
    damage(shards, shards.videos[1])
    score = ScoreVideo(recipe=recipe)
    bad = score(video=1)
    good = score(video=2)
    assert bad["reason"] == "corrupt-image"
    assert bad["video"] == shards.videos[1].video_id
    assert shards.videos[1].video_id in bad["message"]
    assert good["frames"] == 7
    with pytest.raises(BadInput, match=shards.videos[1].video_id):
        ScoreVideo(recipe=replace(recipe, strict=True))(video=1)


def test_a_split_of_which_nothing_can_be_scored_is_a_data_error_that_quotes_the_first(
        finished_run, tmp_path, monkeypatch, capsys):
    recipe = scored(finished_run.copy(tmp_path / "run"), mode="near_online")
    shards = ShardSet(recipe.shards_of("val"))
    for video in shards.videos:
        damage(shards, video)
    assert guarded(evaluate.main, lambda: here(recipe)) == 3
    assert f"none of 4 videos could be read; the first: video {shards.videos[0].video_id!r}" in capsys.readouterr().err


def test_scores_of_empty_results_say_that_nothing_was_predicted(finished_run, tmp_path, capsys):
    recipe = scored(here(finished_run.copy(tmp_path / "run")), mode="near_online", overlays=0)
    said = evaluate.main(inferred(recipe, panoptic=PanopticConfig(thing=1.0, stuff=1.0)))
    assert said["vpq"] == 0
    assert "nothing was predicted in any of 4 videos" in capsys.readouterr().out
    evaluate.main(recipe)
    assert "nothing was predicted" not in capsys.readouterr().out


def test_predictions_of_other_classes_or_of_nowhere_are_refused(finished_run, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    (predictions,) = (recipe.run_folder / "scores" / "offline" / "predictions").iterdir()
    found = own_json(predictions / "predictions.json", cure="")
    found["classes"]["classes"].reverse()
    (predictions / "predictions.json").write_text(json.dumps(found))
    assert guarded(evaluate.main, lambda: scored(recipe, predictions=str(predictions))) == 4
    assert "score them on shards of the data set they were made for" in capsys.readouterr().err
    assert guarded(evaluate.main, lambda: scored(recipe, predictions=str(tmp_path / "nowhere"))) == 2
    assert "nowhere does not exist; give a folder of predictions" in capsys.readouterr().err


def test_a_video_without_a_prediction_is_named(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    (predictions,) = (recipe.run_folder / "scores" / "offline" / "predictions").iterdir()
    missing = ShardSet(recipe.shards_of("val")).videos[0].video_id
    kept = [video for video in read_predictions(predictions) if video != missing]
    found = json.loads((predictions / "pred.json").read_text())
    found["annotations"] = [entry for entry in found["annotations"] if entry["video_id"] in kept]
    (predictions / "pred.json").write_text(json.dumps(found))
    result = ScoreVideo(recipe=scored(recipe, predictions=str(predictions)))(video=0)
    assert result["reason"] == "no-prediction"
    assert missing in result["message"]


@pytest.mark.parametrize(("mode", "gone"), [("near_online", "stage_one"), ("offline", "stage_two")])
def test_a_missing_model_stops_before_any_worker_and_says_what_to_run(finished_run, tmp_path, capsys, mode, gone):
    recipe = finished_run.copy(tmp_path / "run")
    shutil.rmtree(recipe.run_folder / gone)
    assert guarded(evaluate.main, lambda: scored(recipe, mode=mode)) == 2
    assert "run the training verb first" in capsys.readouterr().err


@pytest.mark.parametrize("association", [StitchingConfig(), NaiveBufferConfig(overlap=0), ClipWiseConfig()])
def test_every_association_scores_the_tiny_run(finished_run, association):
    recipe = inferred(scored(finished_run.recipe, keep_predictions=False, overlays=0), association=association)
    said = ScoreVideo(recipe=recipe)(video=0)
    assert said["frames"] == 7
    assert said["matching"]["clips"] == {"stitching": 0, "naive_buffer": 4, "clip_wise": 4}[association.kind]
    scores = finished_run.recipe.run_folder / "scores"
    assert evaluate.scores_folder(recipe) == scores / f"near_online_{association.kind}"


def test_the_matching_space_is_summed_over_videos_and_tracked(finished_run, tmp_path, monkeypatch):
    recipe = scored(finished_run.copy(tmp_path / "run"), keep_predictions=False, overlays=0)
    recipe = inferred(recipe, association=MemoryBufferConfig())
    monkeypatch.setattr(evaluate, "results_of", lambda actor, rows, **options: (
        {**result, "matching": {"clips": 6, "total": 9, "largest": 3 + row["video"]}}
        for row, result in zip(rows, results_of(actor, rows, **options))))
    said = evaluate.main(here(recipe))
    assert said["matching_space"] == {"average": 1.5, "max": 6}
    tracked = MlflowClient(said["tracking_uri"]).get_run(said["mlflow_run_id"]).data.metrics
    assert (tracked["matching_space_average"], tracked["matching_space_max"]) == (1.5, 6)
    scores = json.loads((evaluate.scores_folder(recipe) / "scores.json").read_text())
    assert (scores["mode"], scores["matching_space"]) == ("near_online_memory_buffer", said["matching_space"])


def test_sets_of_videos_are_scored_apart_printed_and_tracked(tmp_path, monkeypatch, capsys):
    recipe = resolved(replace(find_recipe("tiny_vis"), folder=str(tmp_path / "run")))
    sets = tmp_path / "sets.json"
    sets.write_text(json.dumps({"short": ["a", "b"], "long": ["c"]}))
    recipe = scored(recipe, split="val", predictions="found by the stream below", video_sets=str(sets))
    make_shards(toy_videos(tmp_path / "toy", {"a": 2, "b": 3, "c": 4}), recipe.shards_of("val"), split="val")

    def found(actor, rows, **_):
        """What is there, but nothing in video c, and b cannot be read."""
        shards = ShardSet(recipe.shards_of("val"))
        for video, truth in ((video, shards.truth_tracks(video)) for video in shards.videos):
            card = evaluate.scorecard(recipe, shards.classes)
            tracks = tuple(replace(track, score=0.5) for track in truth.tracks if video.video_id != "c")
            card.update(VideoResults(tracks=replace(truth, tracks=tracks)), VideoResults(tracks=truth))
            yield {"video": "b", "message": "b is broken", "reason": "corrupt-image"} if video.video_id == "b" else {
                "video": video.video_id, "scores": card.to_json(), "frames": len(video.frames),
                "matching": {"clips": 0, "total": 0, "largest": 0}}

    monkeypatch.setattr(evaluate, "results_of", found)
    monkeypatch.setattr(evaluate, "stored_predictions", lambda *_: {"a": None})
    said = evaluate.main(here(recipe))
    found_ap = {name: round(part["ap"]) for name, part in said["video_sets"].items()}
    assert found_ap == {"short": 100, "long": 0, "all": 50}
    assert json.loads((evaluate.scores_folder(recipe) / "scores.json").read_text())["video_sets"] == said["video_sets"]
    assert re.search(r"^short +100\.0", capsys.readouterr().out, flags=re.M)
    tracked = MlflowClient(said["tracking_uri"]).get_run(said["mlflow_run_id"]).data.metrics
    assert (round(tracked["ap_of_long"]), round(tracked["ap_of_all"])) == (0, 50)


@pytest.mark.parametrize("sets", [{"short": ["a"]}, {"short": ["a", "b"], "long": ["b"]}, {"all": ["a", "b", "c"]},
                                  {"all": ["a", "b", "c", "c"]}])
def test_sets_that_do_not_part_the_split_are_refused_before_anything_is_scored(tmp_path, sets):
    make_shards(toy_videos(tmp_path / "toy", {"a": 1, "b": 1}), tmp_path / "val", split="val")
    path = tmp_path / "sets.json"
    shards = ShardSet(tmp_path / "val")
    with pytest.raises(FileNotFoundError, match=r"no file .*sets\.json; evaluation\.video_sets names a json"):
        evaluate.read_video_sets(str(path), shards)
    path.write_text(json.dumps(sets))
    with pytest.raises(ValueError, match=r"1 videos are not in exactly one of the sets .*, first '[bc]'"):
        evaluate.read_video_sets(str(path), shards)
    assert evaluate.read_video_sets("", shards) == {}


def test_sets_of_videos_need_tracks():
    with pytest.raises(ValueError, match="add 'tracks', or leave video_sets empty"):
        scored(tiny_run("unused"), video_sets="sets.json")


def test_windows_without_those_of_the_protocol_are_refused():
    with pytest.raises(ValueError, match="VPQ is the mean over 1, 2, 4 and 6"):
        scored(tiny_run("unused"), windows=(1, 2))
