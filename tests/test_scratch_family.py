"""A new segmenter and a new head, each in a file of its own, need nothing but their place in a union and a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobs import cache_queries, config, evaluate, make_shards, models, predict, train_stage_one, train_stage_two
from jobs.config import from_json, override, to_json
from jobs.models import load_system
from jobs.recipes import find_recipe, schema
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from model import families
from tests.runs import here, scored
from tests.scratch_family import ROW, ScratchHeadConfig, ScratchSegmenterConfig

THINGS = 3
SHORT = {"steps": 2, "log_every": 1, "checkpoint_every": 2}


@pytest.fixture
def scratch(monkeypatch, tmp_path) -> Iterator[Recipe]:
    """The recipe `tiny_vis` with a segmenter and a head that the table did not know before."""
    for module in (schema, models):
        monkeypatch.setattr(module, "SegmenterConfig", module.SegmenterConfig | ScratchSegmenterConfig)
        monkeypatch.setattr(module, "CrossClipConfig", module.CrossClipConfig | ScratchHeadConfig)
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, ROW])
    recipe = find_recipe("tiny_vis")
    one = recipe.stage_one
    two = recipe.stage_two
    forget_types()
    yield here(resolved(replace(
        recipe, folder=str(tmp_path / "run"), world=replace(recipe.world, videos_train=4, videos_val=2),
        stage_one=replace(one, segmenter=ScratchSegmenterConfig(num_classes=THINGS), fit=replace(one.fit, **SHORT)),
        stage_two=replace(two, head=ScratchHeadConfig(num_classes=THINGS), fit=replace(two.fit, **SHORT),
                          optimizer=replace(two.optimizer, multipliers=())))))
    forget_types()


def forget_types() -> None:
    """The unions are written down once in a real program, so their types are remembered."""
    for remembered in (config._field_types, config._adapter):
        remembered.cache_clear()


@pytest.mark.slow
def test_a_scratch_family_trains_is_cached_scored_and_predicts(scratch, tmp_path):
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(scratch)
    for mode in ("near_online", "offline"):
        scores = evaluate.main(scored(scratch, mode=mode))
        assert (scores["videos"], scores["frames"]) == (2, 14)
        assert 0 <= scores["ap"] <= 100
    (video, *_) = sorted((scratch.data_root / "valid" / "JPEGImages").iterdir())
    found = replace(scratch, predict=replace(scratch.predict, input=str(video), output=str(tmp_path / "out")))
    assert predict.main(found)["skipped"] == []
    system = load_system(scratch.run_folder)
    assert system.head.config == scratch.stage_two.head
    assert len(system.predict(video).tracks.frame_names) == 7


def test_a_scratch_family_is_read_back_and_set_by_its_kind(scratch):
    assert from_json(schema.SegmenterConfig, to_json(scratch.stage_one.segmenter)) == scratch.stage_one.segmenter
    changed = override(scratch, ['stage_two.head={"kind": "scratch", "num_classes": 3}'])
    assert changed.stage_two.head == ScratchHeadConfig(num_classes=THINGS)
    with pytest.raises(ValueError, match=r"scratch makes tracks, semantic near-online, not panoptic"):
        override(scratch, ['inference.results=["panoptic"]'])
    with pytest.raises(ValueError, match=r"stage_two\.head\.dim=8 does not fit .* dim=16; set stage_two\.head\.dim=16"):
        override(scratch, ["stage_two.head.dim=8"])


def test_a_segmenter_without_a_row_is_refused_by_name():
    recipe = find_recipe("tiny_vis")
    with pytest.raises(ValueError, match=r"ScratchSegmenterConfig has no row in model\.families\.FAMILIES"):
        replace(recipe.stage_one, segmenter=ScratchSegmenterConfig(num_classes=THINGS))
