"""Scores: of predictions on disk as of the model itself, with every missing or broken video named."""

from __future__ import annotations

import json
import shutil

import pytest
from mlflow import MlflowClient

from jobs import evaluate
from jobs.evaluate import ScoreVideo
from jobs.verb import guarded
from model.association import ClipWiseConfig, MemoryBufferConfig, NaiveBufferConfig, StitchingConfig
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.predictions import read_predictions
from pipeline.shards import ShardSet
from tests.roads import damage, scored, tiny_road

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_predictions_on_disk_score_like_the_model_that_made_them_without_it(road, cluster, tmp_path):
    recipe = road.copy(tmp_path / "road")
    (predictions,) = (recipe.road / "scores" / "offline" / "predictions").iterdir()
    for stage in ("stage_one", "stage_two"):
        shutil.rmtree(recipe.road / stage)
    said = evaluate.main(scored(recipe, predictions=str(predictions)))
    assert said["mode"] == "predictions"
    assert {name: said[name] for name in ("vpq", "vpq_thing", "vpq_stuff", "frames")} == {
        name: road.said["offline"][name] for name in ("vpq", "vpq_thing", "vpq_stuff", "frames")}


def test_the_shares_of_single_videos_add_up_to_the_score(road):
    score = ScoreVideo(recipe=scored(road.recipe, mode="near_online", keep_predictions=False, overlays=0))
    shards = ShardSet(road.recipe.shards_of("val"))
    card = Scorecard(shards.classes, ("panoptic",), windows=road.recipe.evaluation.windows)
    for video in reversed(shards.videos):
        card.merge(Scorecard.from_json(score(video=video.index)["scores"]))
    found = headline(card.scores())
    assert found["mvc8"] is None            # every video is shorter
    for name in ("vpq", "stq", "sq", "aq", "miou"):
        assert found[name] == pytest.approx(road.said["near_online"][name], abs=1e-9)


def test_a_video_that_cannot_be_read_is_named_and_counted_by_reason(road, tmp_path):
    recipe = scored(road.copy(tmp_path / "road"), mode="near_online")
    shards = ShardSet(recipe.shards_of("val"))
    damage(shards, shards.videos[1])
    score = ScoreVideo(recipe=recipe)
    bad, good = score(video=1), score(video=2)
    assert bad["reason"] == "corrupt-image"
    assert shards.videos[1].video_id in bad["skipped"]
    assert good["frames"] == 7


def test_a_video_without_a_prediction_is_named(road, tmp_path):
    recipe = road.copy(tmp_path / "road")
    (predictions,) = (recipe.road / "scores" / "offline" / "predictions").iterdir()
    missing = ShardSet(recipe.shards_of("val")).videos[0].video_id
    kept = [video for video in read_predictions(predictions) if video != missing]
    found = json.loads((predictions / "pred.json").read_text())
    found["annotations"] = [entry for entry in found["annotations"] if entry["video_id"] in kept]
    (predictions / "pred.json").write_text(json.dumps(found))
    result = ScoreVideo(recipe=scored(recipe, predictions=str(predictions)))(video=0)
    assert result["reason"] == "no-prediction"
    assert missing in result["skipped"]


@pytest.mark.parametrize(("mode", "gone"), [("near_online", "stage_one"), ("offline", "stage_two")])
def test_a_missing_model_stops_before_any_worker_and_says_what_to_run(road, tmp_path, capsys, mode, gone):
    recipe = road.copy(tmp_path / "road")
    shutil.rmtree(recipe.road / gone)
    assert guarded(evaluate.main, lambda: scored(recipe, mode=mode)) == 2
    assert "run the training verb first" in capsys.readouterr().err


@pytest.mark.parametrize("association", [StitchingConfig(), NaiveBufferConfig(overlap=0), ClipWiseConfig()])
def test_every_association_scores_the_tiny_road(road, association):
    recipe = scored(road.recipe, association=association, keep_predictions=False, overlays=0)
    said = ScoreVideo(recipe=recipe)(video=0)
    assert said["frames"] == 7
    assert said["matching"]["clips"] == {"stitching": 0, "naive_buffer": 4, "clip_wise": 4}[association.name]
    assert evaluate.scores_folder(recipe) == road.recipe.road / "scores" / f"near_online_{association.name}"


def test_the_matching_space_is_summed_over_videos_and_tracked(road, tmp_path, monkeypatch):
    recipe = scored(road.copy(tmp_path / "road"), association=MemoryBufferConfig(), keep_predictions=False, overlays=0)
    monkeypatch.setattr(evaluate, "connect", lambda cluster: None)
    monkeypatch.setattr(evaluate, "actor_stream", lambda rows, actor, *, arguments, **resources: (
        {**actor(**arguments)(**row), "matching": {"clips": 6, "total": 9, "largest": 3 + row["video"]}}
        for row in rows))
    said = evaluate.main(recipe)
    assert said["matching_space"] == {"average": 1.5, "max": 6}
    tracked = MlflowClient(said["tracking_uri"]).get_run(said["mlflow_run_id"]).data.metrics
    assert (tracked["matching_space_average"], tracked["matching_space_max"]) == (1.5, 6)
    scores = json.loads((evaluate.scores_folder(recipe) / "scores.json").read_text())
    assert (scores["mode"], scores["matching_space"]) == ("near_online_memory_buffer", said["matching_space"])


def test_windows_without_those_of_the_protocol_are_refused():
    with pytest.raises(ValueError, match="VPQ is the mean over 1, 2, 4 and 6"):
        scored(tiny_road("unused"), windows=(1, 2))
