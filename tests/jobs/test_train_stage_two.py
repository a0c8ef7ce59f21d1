"""Stage two needs the query cache and the segmenter's heads, no frame; a cache of anything else is refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from jobs import train_stage_two
from jobs.models import load_head, load_segmenter, load_weights, read_card, save_model
from jobs.verb import guarded
from pipeline.errors import Mismatch
from pipeline.foreign_files import own_json
from pipeline.query_cache import part_path
from tests.runs import here

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def another_head(recipe):
    """One layer instead of two, for two steps."""
    stage = recipe.stage_two
    head = replace(stage.head, layers=1)
    fit = replace(stage.fit, steps=2)
    return replace(recipe, stage_two=replace(stage, head=head, fit=fit))


def test_another_head_is_trained_in_a_folder_of_its_own_when_every_frame_is_gone(finished_run, tmp_path):
    first = finished_run.copy(tmp_path / "first")
    for gone in ("world", "shards", "stage_two", "scores"):
        shutil.rmtree(first.run_folder / gone)
    recipe = here(another_head(replace(first, folder=str(tmp_path / "second"), stage_one_from=first.folder)))
    train_stage_two.main(recipe)
    assert recipe.head_folder.is_relative_to(tmp_path / "second")
    assert not first.head_folder.exists()
    segmenter, card = load_segmenter(recipe.segmenter_folder)
    head, _ = load_head(recipe.head_folder, segmenter_card=card)
    assert len(head.layers) == 1
    # It has moved away from where it started: the segmenter's heads and branches scaled by zero.
    start = recipe.stage_two.head.build()
    start.initialise_from(segmenter.state_dict())
    assert not head.layers[0].attention.scale.equal(start.layers[0].attention.scale)


def test_a_cache_of_another_segmenter_is_refused_and_both_are_named(finished_run, tmp_path, capsys):
    recipe = another_head(finished_run.copy(tmp_path / "run"))
    cached = read_card(recipe.segmenter_folder)["weights_sha256"]
    weights = load_weights(recipe.segmenter_folder)
    name = next(name for name in weights if name.endswith("class_head.conv.weight"))
    weights[name] = weights[name] + 1
    card = read_card(recipe.segmenter_folder)
    save_model(recipe.segmenter_folder, weights, {key: card[key] for key in card if key != "weights_sha256"})
    card = read_card(recipe.segmenter_folder)
    assert guarded(train_stage_two.main, lambda: recipe) == 4
    said = capsys.readouterr().err
    assert f"segmenter: the cache has '{cached}', expected '{card['weights_sha256']}'" in said
    assert "Run jobs.cache_queries" in said


def test_a_card_of_another_segmenter_is_the_reason_and_is_named(finished_run, tmp_path, capsys):
    recipe = another_head(finished_run.copy(tmp_path / "run"))
    path = recipe.segmenter_folder / "model.json"
    path.write_text(json.dumps(own_json(path, cure="") | {"weights_sha256": "0" * 64}))
    assert guarded(train_stage_two.main, lambda: recipe) == 4
    said = capsys.readouterr().err
    assert f"{path} lists 000000000000..." in said
    assert "run the training verb again" in said


def test_a_cache_made_with_other_settings_is_refused_by_field(finished_run):
    cache = finished_run.recipe.cache
    other = replace(finished_run.recipe, cache=replace(cache, views=3))
    with pytest.raises(Mismatch, match=r"manifest\.json was made from something else: cache: .*'views': 1"
                       r".*expected .*'views': 3"):
        train_stage_two.main(other)


def test_a_missing_cache_names_the_verb_that_makes_it(finished_run, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    shutil.rmtree(recipe.run_folder / "cache")
    assert guarded(train_stage_two.main, lambda: recipe) == 2
    assert "run jobs.cache_queries" in capsys.readouterr().err


def test_a_cut_part_is_found_before_any_worker_starts(finished_run, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    (folder,) = (recipe.run_folder / "cache").iterdir()
    part = part_path(folder, 1)
    part.write_bytes(part.read_bytes()[:-100])
    assert guarded(train_stage_two.main, lambda: recipe) == 3
    assert f"file {part}" in capsys.readouterr().err


def test_a_head_is_not_used_with_a_segmenter_it_does_not_belong_to(finished_run):
    _, card = load_segmenter(finished_run.recipe.segmenter_folder)
    with pytest.raises(Mismatch, match=r"belongs to segmenter .*train it again"):
        load_head(finished_run.recipe.head_folder, segmenter_card={**card, "weights_sha256": "0" * 64})
