"""Learned links from the query cache to results, through every verb, in this process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jobs import cache_queries, demo, evaluate, make_shards, train_stage_two
from jobs.config import override
from jobs.models import head_card, load_system, read_card, save_model, segmenter_card, untrained_segmenter
from jobs.recipes import find_recipe
from jobs.verb import guarded
from model.association import LinksConfig
from pipeline.files import sha256_of
from pipeline.shards import ShardSet
from tests.runs import here, inferred, scored, tiny_run
from tests.untrained_run import moving_square

pytestmark = pytest.mark.slow

SHORT = ("stage_two.links={}", "stage_two.links.input.clips=4", "stage_two.links.input.batch_size=4",
         "stage_two.links.fit.steps=4", "stage_two.links.optimizer.warmup_steps=0", "stage_two.head=null",
         "evaluation.overlays=1")


def run_with_links(folder, name: str):
    """The recipe `name` with links alone, up to its cache; a segmenter that was never trained but is sure of much."""
    base = tiny_run(folder) if name == "tiny" else replace(find_recipe(name), folder=str(folder))
    recipe = here(override(base, SHORT))
    weights = untrained_segmenter(recipe).state_dict()
    bias = next(key for key in weights if key.endswith(("predictor.class_head.conv.bias", "class_head.bias")))
    weights[bias][-1] -= 6
    make_shards.main(recipe)
    classes = ShardSet(recipe.shards_of(recipe.train_split)).classes
    save_model(recipe.segmenter_folder, weights, segmenter_card(recipe, classes, shards=""))
    cache_queries.main(recipe)
    return recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    recipe = run_with_links(tmp_path_factory.mktemp("links") / "run", "tiny")
    said = train_stage_two.main(recipe)
    assert said.keys() == {"links"}
    return recipe


def with_association(recipe, **settings):
    return scored(inferred(recipe, association=LinksConfig(**settings)), mode="near_online")


def test_training_is_finished_once_and_leaves_the_head_alone(tiny):
    weights = tiny.links_folder / "model.safetensors"
    before = sha256_of(weights)
    assert train_stage_two.main(tiny) == {"links": str(tiny.links_folder)}
    assert sha256_of(weights) == before
    assert not tiny.head_folder.exists()
    card = read_card(tiny.links_folder)
    assert card["kind"] == "links"
    assert card["segmenter_sha256"] == read_card(tiny.segmenter_folder)["weights_sha256"]
    assert not torch.equal(load_file(weights)["mean"], torch.zeros(64))


def test_scores_lie_beside_those_without_links(tiny):
    plain = evaluate.main(scored(tiny, mode="near_online"))
    linked = evaluate.main(with_association(tiny))
    in_time = evaluate.main(with_association(tiny, streaming=True))
    assert [said["mode"] for said in (plain, linked, in_time)] == [
        "near_online", "near_online_links", "near_online_links_streaming"]
    assert linked["frames"] == plain["frames"] == in_time["frames"] > 0
    assert (tiny.run_folder / "scores" / "near_online_links" / "scores.json").is_file()
    assert demo.draw_compared(tiny).endswith(".mp4")


def test_a_head_reads_the_order_of_links(tiny, tmp_path):
    recipe = override(tiny, ["stage_two.head=" + '{"kind": "maxtron", "num_classes": 6, "dim": 64, "embedding": 64, '
                             '"layers": 1}'])
    head = recipe.head.build()
    head.initialise_from(load_file(recipe.segmenter_folder / "model.safetensors"))
    save_model(recipe.head_folder, head.state_dict(), head_card(recipe, read_card(recipe.segmenter_folder), ""))
    said = evaluate.main(scored(inferred(recipe, association=LinksConfig()), mode="offline"))
    assert said["mode"] == "offline_links"


def test_a_finished_run_predicts_and_streams_with_links(tiny):
    inference = replace(tiny.inference, association=LinksConfig())
    system = load_system(tiny.run_folder, mode="near_online", inference=inference)
    assert system.made_by["links_sha256"] == read_card(tiny.links_folder)["weights_sha256"]
    frames = [moving_square(frame, 64, 64) for frame in range(8)]
    parts = list(system.stream(iter(frames)))
    assert [len(part.panoptic.frame_names) for part in parts] == [2, 2, 2, 2]
    assert all(np.stack(list(part.panoptic.frames)).shape == (2, 64, 64) for part in parts)
    assert load_system(tiny.run_folder, mode="near_online").links is None


def test_links_that_are_not_there_are_named_with_the_cure(tiny, tmp_path, capsys):
    recipe = replace(tiny, folder=str(tmp_path / "other"), stage_one_from=tiny.folder)
    assert guarded(evaluate.main, lambda: with_association(recipe)) == 2
    said = capsys.readouterr().err
    assert "stage_two.links" in said
    assert "inference.association=hungarian" in said


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny_vis", "tiny_vita"])
def test_tracks_are_linked_too(tmp_path, name):
    recipe = run_with_links(tmp_path / "run", name)
    train_stage_two.main(recipe)
    said = evaluate.main(with_association(recipe))
    assert said["mode"] == "near_online_links"
    assert said["skipped"] == []
