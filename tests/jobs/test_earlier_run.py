"""A run that an earlier version finished is recognised and used: nothing is trained or cached again.

`tests/earlier_runs/<commit>` holds the JSON files of a run of the recipe `tiny` as that commit wrote them, and learned
links where it had some. Other weights and shards are of today; the digests that name them are put in their place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import (
    cache_queries,
    draw_queries,
    evaluate,
    hand_over,
    inspect_cache,
    report,
    sync_tracking,
    train_stage_one,
    train_stage_two,
    verify_cache,
    verify_shards,
)
from jobs.cache_queries import cache_folder
from jobs.config import override
from jobs.handover.bundle import open_bundle
from jobs.models import load_system, read_card
from jobs.recipes.schema import Recipe
from model.association import LinksConfig
from pipeline.files import digest, sha256_of
from pipeline.foreign_files import own_json
from pipeline.shards import ShardSet
from tests.runs import FinishedRun, here, inferred, scored

STORED = Path(__file__).resolve().parents[1] / "earlier_runs"
EARLIER = sorted(path.name for path in STORED.iterdir())
WITH_LINKS = sorted(path.parent.name for path in STORED.glob("*/links_identity.json"))
LINKS = ("stage_two.links={}", "stage_two.links.input.clips=4", "stage_two.links.input.batch_size=4",
         "stage_two.links.fit.steps=4", "stage_two.links.optimizer.warmup_steps=0")


@pytest.fixture(params=EARLIER)
def earlier(request, finished_run: FinishedRun, tmp_path: Path) -> Recipe:
    """The finished run as the earlier version would have left it."""
    recipe = here(finished_run.copy(tmp_path / "run"))

    def stored(name: str) -> dict[str, Any]:
        return json.loads((STORED / request.param / f"{name}.json").read_text())

    def put(values: dict[str, Any], path: str) -> None:
        target = recipe.run_folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(values, indent=1, sort_keys=True))

    segmenter = read_card(recipe.segmenter_folder)["weights_sha256"]
    shards = ShardSet(recipe.shards_of("train")).fingerprint
    put({**stored("stage_one_identity"), "shards": shards}, "stage_one/identity.json")
    put({**stored("stage_one_model"), "weights_sha256": segmenter, "shards_fingerprint": shards, "identity": ""},
        "stage_one/model/model.json")
    made_from = {**stored("cache_manifest")["made_from"], "segmenter": segmenter, "shards": {"train": shards}}
    cache = digest({"schema": stored("cache_manifest")["schema"], **made_from})
    put({**stored("stage_two_identity"), "cache": cache}, "stage_two/identity.json")
    head = read_card(recipe.head_folder)["weights_sha256"]
    put({**stored("stage_two_model"), "weights_sha256": head, "segmenter_sha256": segmenter, "identity": ""},
        "stage_two/model/model.json")
    return put_links(recipe, STORED / request.param, cache, segmenter, put) if request.param in WITH_LINKS else recipe


def put_links(recipe: Recipe, stored: Path, cache: str, segmenter: str, put: Callable[[dict, str], None]) -> Recipe:
    """Add the links of an earlier version, with its weights, which are small."""
    put({**json.loads((stored / "links_identity.json").read_text()), "cache": cache}, "stage_two/links/identity.json")
    put({**json.loads((stored / "links_model.json").read_text()), "segmenter_sha256": segmenter,
         "cache_fingerprint": cache, "identity": ""}, "stage_two/links/model/model.json")
    shutil.copy(stored / "links_model.safetensors", recipe.links_folder / "model.safetensors")
    return override(recipe, LINKS)


def test_its_trainings_are_finished_and_its_cache_is_found(earlier):
    made = [path for folder in ("stage_one", "stage_two", "cache") for path in (earlier.run_folder / folder).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in made if path.suffix in (".safetensors", ".parquet")}
    assert train_stage_one.main(earlier)["resumed"]
    cache_queries.main(earlier)
    assert train_stage_two.main(earlier)["resumed"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [path.name for path in (earlier.run_folder / "cache").iterdir()] == [cache_folder(earlier).name]


def test_verbs_that_check_show_and_draw_take_it(earlier):
    for verb in (verify_shards, verify_cache, inspect_cache, draw_queries, report, sync_tracking):
        verb.main(earlier)
    handed = hand_over.main(earlier, hand_over.HandOverLine())
    assert open_bundle(handed["system"]).made_by["head_sha256"] == read_card(earlier.head_folder)["weights_sha256"]


@pytest.mark.parametrize("mode", ["near_online", "offline"])
def test_it_predicts_by_itself(earlier, mode):
    video = next((earlier.run_folder / "world" / "images").iterdir())
    assert load_system(earlier.run_folder, mode=mode).predict(video).panoptic.segments


@pytest.mark.parametrize("earlier", WITH_LINKS, indirect=True)
def test_its_links_are_finished_and_keep_who_is_who(earlier):
    assert train_stage_two.main(earlier) == {"model": str(earlier.head_folder), "resumed": True,
                                             "links": str(earlier.links_folder)}
    linked = inferred(earlier, association=LinksConfig())
    video = next((earlier.run_folder / "world" / "images").iterdir())
    system = load_system(earlier.run_folder, mode="near_online", inference=linked.inference)
    assert system.made_by["links_sha256"] == sha256_of(earlier.links_folder / "model.safetensors")
    assert system.predict(video).panoptic.segments
    for mode in ("near_online", "offline"):
        assert evaluate.main(scored(linked, mode=mode))["mode"] == f"{mode}_links"


def test_a_setting_that_has_changed_is_still_another_run(earlier):
    path = earlier.run_folder / "stage_one" / "identity.json"
    identity = own_json(path, cure="")
    identity["stage"]["optimizer"]["lr"] = 0.5
    path.write_text(json.dumps(identity))
    with pytest.raises(ValueError, match=r"stage\.optimizer\.lr: 0\.5 != "):
        train_stage_one.main(earlier)
