"""All verbs, tiny: every artefact is there, names what made it, and loses no frame; again gives the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from mlflow import MlflowClient

from jobs import cache_queries, evaluate, make_shards, promote, train_stage_one, train_stage_two
from jobs.models import load_segmenter, open_system, read_card
from jobs.promote import PromoteLine
from pipeline.clips import StoredVideoSource
from pipeline.files import sha256_of
from pipeline.metrics.vpq import VPQ
from pipeline.predictions import read_predictions
from pipeline.query_cache import QueryCache
from pipeline.shards import ShardSet
from tests.runs import here, scored

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MODES = ("near_online", "offline")


def cache_of(finished_run) -> QueryCache:
    return QueryCache(Path(finished_run.said["cache_queries"]["cache"]))


def predictions_of(finished_run, mode: str):
    (folder,) = (finished_run.recipe.run_folder / "scores" / mode / "predictions").iterdir()
    return folder, read_predictions(folder)


def files(folder: Path, *suffixes: str) -> dict[str, tuple[str, int]]:
    """Digest and time of every file below a folder; of those with certain suffixes where some are given."""
    return {str(path.relative_to(folder)): (sha256_of(path), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*")) if path.is_file() and (path.suffix in suffixes or not suffixes)}


def digests(found: dict[str, tuple[str, int]]) -> dict[str, str]:
    return {name: digest for name, (digest, _) in found.items()}


def test_every_artefact_names_what_made_it(finished_run):
    recipe = finished_run.recipe
    cache = cache_of(finished_run)
    train, val = (ShardSet(recipe.shards_of(split)) for split in ("train", "val"))
    segmenter = read_card(recipe.segmenter_folder)
    head = read_card(recipe.head_folder)
    assert finished_run.said["make_shards"]["train"]["fingerprint"] == train.fingerprint
    assert segmenter["shards_fingerprint"] == train.fingerprint
    assert sha256_of(recipe.segmenter_folder / "model.safetensors") == segmenter["weights_sha256"]
    assert cache.manifest["made_from"]["segmenter"] == segmenter["weights_sha256"]
    assert cache.manifest["made_from"]["shards"] == {"train": train.fingerprint}
    assert (head["segmenter_sha256"], head["cache_fingerprint"]) == (segmenter["weights_sha256"], cache.fingerprint)
    for mode in MODES:
        _, predictions = predictions_of(finished_run, mode)
        made_by = predictions.made_by
        assert (made_by["mode"], made_by["shards_fingerprint"]) == (mode, val.fingerprint)
        assert made_by["segmenter_sha256"] == segmenter["weights_sha256"]
        assert made_by.get("head_sha256") == (head["weights_sha256"] if mode == "offline" else None)


def test_no_frame_is_lost_between_the_data_set_and_the_score(finished_run):
    world = finished_run.recipe.data_root
    for split, videos in (("train", 12), ("val", 4)):
        names = (world / f"{split}.txt").read_text().split()
        stored = ShardSet(finished_run.recipe.shards_of(split)).videos
        assert sorted(video.video_id for video in stored) == sorted(names)
        assert len(names) == videos
        for video in stored:
            on_disk = sorted(path.stem for path in (world / "images" / video.video_id).glob("*.jpg"))
            assert [frame.name for frame in video.frames] == on_disk
    cache = cache_of(finished_run)
    for video in ShardSet(finished_run.recipe.shards_of("train")).videos:
        (group,) = cache.videos[video.video_id]
        assert sum(clip.num_frames for clip in cache.read(group)) == len(video.frames)
    for mode in MODES:
        folder, predictions = predictions_of(finished_run, mode)
        shards = ShardSet(finished_run.recipe.shards_of("val"))
        expected = {video.video_id: [frame.name for frame in video.frames] for video in shards.videos}
        assert finished_run.said[mode]["frames"] == sum(map(len, expected.values())) == 28
        assert {video: list(predictions[video].frame_names) for video in predictions} == expected
        assert len(list(folder.rglob("*.png"))) == 28
        assert finished_run.said[mode]["skipped"] == []


@pytest.mark.parametrize("mode", MODES)
def test_the_score_is_that_of_the_predictions_on_disk(finished_run, mode):
    shards = ShardSet(finished_run.recipe.shards_of("val"))
    (_, predictions) = predictions_of(finished_run, mode)
    metric = VPQ(shards.classes, windows=finished_run.recipe.evaluation.windows)
    for video in shards.videos:
        metric.update(predictions[video.video_id], shards.truth(video))
    assert metric.result().summary()["vpq"] == pytest.approx(finished_run.said[mode]["vpq"], abs=1e-9)


def test_a_head_that_has_learnt_nothing_leaves_the_near_online_result_as_it_is(finished_run):
    system = open_system(finished_run.recipe, "near_online")
    head = finished_run.recipe.stage_two.head.build()
    segmenter, _ = load_segmenter(finished_run.recipe.segmenter_folder)
    head.initialise_from(segmenter.state_dict())
    offline = replace(system, head=head.eval().requires_grad_(False))
    shards = ShardSet(finished_run.recipe.shards_of("val"))
    for video in shards.videos:
        source = StoredVideoSource(shards, video)
        one = system.predict(source).panoptic
        other = offline.predict(source).panoptic
        assert len(one.segments) > 1
        assert one.segments.keys() == other.segments.keys()
        assert all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames))


@pytest.mark.parametrize("mode", MODES)
def test_the_overlay_shows_every_frame(finished_run, mode):
    (overlay,) = finished_run.said[mode]["overlays"]
    with av.open(overlay) as video:
        assert sum(1 for _ in video.decode(video=0)) == 7


def test_mlflow_holds_a_child_of_one_parent_for_every_verb(finished_run):
    uri, parent = (finished_run.said["offline"][name] for name in ("tracking_uri", "mlflow_parent_run_id"))
    client = MlflowClient(uri)
    runs = {run.data.tags["verb"]: run for run in client.search_runs(
        [client.get_run(parent).info.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")}
    assert runs.keys() == {"make_shards", "train_stage_one", "cache_queries", "train_stage_two",
                           "evaluate_near_online", "evaluate_offline"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    artifacts = {verb: {Path(path).name for path in files(Path(run.info.artifact_uri.removeprefix("file://")))}
                 for verb, run in runs.items()}
    assert all({"recipe.json", "environment.json"} <= found for found in artifacts.values())
    assert {"manifest_train.json", "manifest_val.json"} <= artifacts["make_shards"]
    assert {"manifest.json", "model.json", "model.safetensors"} <= artifacts["train_stage_one"]
    assert {"manifest.json", "model.json", "model.safetensors"} <= artifacts["train_stage_two"]
    assert "manifest.json" in artifacts["cache_queries"]
    for mode in MODES:
        overlay = Path(finished_run.said[mode]["overlays"][0]).name
        assert {"scores.json", "classes.json", overlay} <= artifacts[f"evaluate_{mode}"]
        assert runs[f"evaluate_{mode}"].data.metrics["vpq"] == pytest.approx(finished_run.said[mode]["vpq"])
    for stage in ("train_stage_one", "train_stage_two"):
        data = runs[stage].data
        assert {"optimizer.lr", "fit.steps", "batch_size", "workers", "trainable_parameters"} <= data.params.keys()
        assert {"loss", "lr", "clips_per_second", "data_wait_share", "memory_gib"} <= data.metrics.keys()
        assert any(name.startswith("loss/") for name in data.metrics)
        assert [m.step for m in client.get_metric_history(runs[stage].info.run_id, "loss")] == [2, 4, 6]


def test_only_winners_are_registered_and_they_link_to_shards_cache_segmenter_and_code(finished_run):
    client = MlflowClient(finished_run.said["offline"]["tracking_uri"])
    recipe = finished_run.recipe
    for mode in ("near_online", "offline"):
        promote.main(scored(recipe, mode=mode), PromoteLine())
    segmenter, head = (client.get_model_version_by_alias(name, "champion") for name in ("segmenter", "cross_clip_head"))
    assert len(client.search_model_versions("name='segmenter'")) == 1
    cards = [read_card(folder) for folder in (finished_run.recipe.segmenter_folder, finished_run.recipe.head_folder)]
    assert [version.tags["sha256"] for version in (segmenter, head)] == [card["weights_sha256"] for card in cards]
    assert segmenter.tags["shards"] == cards[0]["shards_fingerprint"]
    assert head.tags["cache"] == cache_of(finished_run).fingerprint
    assert head.tags["segmenter"] == cards[0]["weights_sha256"]
    assert all(version.tags["code"] == card["code"]["commit"] for version, card in zip((segmenter, head), cards))
    assert (Path(segmenter.source.removeprefix("file://")) / "model.safetensors").is_file()


def test_every_verb_again_changes_nothing(finished_run, tmp_path):
    recipe = here(finished_run.copy(tmp_path / "again"))
    finished = files(recipe.run_folder, ".tar", ".safetensors")
    repeated = files(recipe.run_folder, ".png", ".parquet")
    manifests = [recipe.shards_of("train") / "manifest.json", recipe.shards_of("val") / "manifest.json",
                 recipe.run_folder / "cache" / cache_of(finished_run).folder.name / "manifest.json"]
    texts = [manifest.read_bytes() for manifest in manifests]
    make_shards.main(recipe)
    assert train_stage_one.main(recipe)["resumed"]
    assert cache_queries.main(recipe)["clips"] == finished_run.said["cache_queries"]["clips"]
    assert train_stage_two.main(recipe)["resumed"]
    assert evaluate.main(scored(recipe, mode="offline"))["vpq"] == finished_run.said["offline"]["vpq"]
    # Tars and weights are left alone, to the nanosecond; indexes and pictures are written again, with the same bytes.
    assert files(recipe.run_folder, ".tar", ".safetensors") == finished
    assert digests(files(recipe.run_folder, ".png", ".parquet")) == digests(repeated)
    assert [manifest.read_bytes() for manifest in manifests] == texts
    parts = {name: found for name, found in repeated.items() if name.startswith("cache/")}
    assert parts
    assert parts.items() <= files(recipe.run_folder, ".parquet").items()
