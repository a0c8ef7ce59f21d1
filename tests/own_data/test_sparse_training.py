"""Videos that are labelled at every fifth frame go through both stages and are scored, in every family of networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cache_queries import cache_folder
from jobs.recipes.schema import Recipe
from pipeline.query_cache import QueryCache
from pipeline.shards import ShardSet
from tests.own_data.exports import export
from tests.own_data.test_no_objects import all_verbs, on_own_data
from tests.own_data.test_partial_labels import forget
from tests.own_data.worlds import SOURCES
from tests.test_vita_run import jointly

pytestmark = pytest.mark.slow
FRAMES = 11
LABELLED = range(0, FRAMES, 5)


def panoptic(folder: Path) -> Recipe:
    root = SOURCES["vipseg"].write(folder / "data", videos_train=3, videos_val=2, frames=FRAMES)
    for video in ("train_00000", "train_00001", "train_00002"):
        forget(root, "vipseg", video, range(0) if video == "train_00002" else LABELLED)
    return on_own_data("tiny", folder / "run", root)


def tracks(folder: Path, name: str) -> Recipe:
    world = SOURCES["youtube_vis"].write(folder / "world", videos_train=3, videos_val=2, frames=FRAMES)
    root = export("labelme", world, folder / "data")
    for video in (root / "train").iterdir():
        for path in video.glob("*.json"):
            if int(path.stem) not in LABELLED or video.name == "train_00002":
                path.unlink()
    recipe = on_own_data(name, folder / "run", root)
    recipe = replace(recipe, dataset=replace(recipe.dataset, name="labelme"))
    return replace(recipe, evaluation=replace(recipe.evaluation, split="val"))


@pytest.mark.long
@pytest.mark.parametrize("family", ["tiny", "tiny_vis", "tiny_vita", "joint"])
def test_a_sparse_set_trains_through_both_stages_and_is_scored(tmp_path, family, capsys):
    recipe = panoptic(tmp_path) if family == "tiny" else tracks(tmp_path, "tiny_vis" if family == "tiny_vis"
                                                                else "tiny_vita")
    if family == "joint":
        recipe = jointly(recipe, clip_frames=2)
    scores = all_verbs(recipe)
    said = capsys.readouterr().out
    assert "left out: 1 videos without labels" in said
    assert f"{2 * (FRAMES - len(LABELLED))} frames have no label" in said
    shards = ShardSet(recipe.shards_of("train"))
    assert sorted(len(video.labelled) for video in shards.videos) == [0, len(LABELLED), len(LABELLED)]
    assert all((mode["videos"], mode["skipped"]) == (2, []) for mode in scores)
    if recipe.stage_two is not None:
        cache = QueryCache(cache_folder(recipe))
        clips = [clip for group in range(len(cache.groups)) for clip in cache.read(group)]
        for clip in clips:
            shown = np.isin(clip.start_frame + clip.pixel_positions[:, 0], list(LABELLED))
            assert not clip.pixel_weights[~shown].any()
        assert {bool(clip.pixel_weights.any()) for clip in clips} == {False, True}
    for stage in ("stage_one", "stage_two"):
        path = recipe.run_folder / stage / "progress.jsonl"
        if path.exists():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert lines
            assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
