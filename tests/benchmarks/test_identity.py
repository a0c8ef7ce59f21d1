"""The table of associations at toy size: every row is scored or says that its model is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.identity import COLUMNS, PRESETS, ROWS, compared, held_out, line
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from pipeline.datasets.synthetic import world_classes
from tests.runs import tiny_run


def with_segmenter(recipe: Recipe) -> Recipe:
    """The recipe, with a finished segmenter that has learnt nothing in its folder, and no head."""
    with held_out(recipe, replace(recipe.world, videos_train=0, videos_val=1)) as shards:
        card = segmenter_card(recipe, shards.classes, shards.fingerprint)
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(), card)
    return recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    return with_segmenter(tiny_run(tmp_path_factory.mktemp("identity") / "run"))


def test_every_row_is_scored_or_says_that_it_is_not_trained(recipe):
    rows = list(compared(recipe, ["cross", "reappear"], videos=1))
    assert [(row["world"], row["association"]) for row in rows] == [
        (world, row.name) for world in ("cross", "reappear") for row in ROWS]
    names = COLUMNS["panoptic"]
    for row in rows:
        if "missing" in row:
            assert row["missing"] == "not trained"
        else:
            assert row.keys() == {"name", "world", "association", *names}
            assert all(0 <= row[name] <= 100 for name in names if row[name] is not None)
    scored = {row["association"] for row in rows if "missing" not in row}
    assert {"near-online", "memory buffer", "oracle (uses the labels)"} <= scored
    assert "cross-clip head" not in scored


def test_tracks_have_rows_too_and_say_what_does_not_fit(tmp_path):
    recipe = with_segmenter(resolved(replace(find_recipe("tiny_vis"), folder=str(tmp_path / "run"))))
    rows = {row["association"]: row for row in compared(recipe, ["crowd"], videos=1)}
    for name in ("near-online", "oracle (uses the labels)"):
        assert set(COLUMNS["tracks"]) < rows[name].keys()
    assert rows["memory buffer"]["missing"].startswith("does not fit: ")


def test_a_line_has_a_cell_for_every_number():
    names = COLUMNS["panoptic"]
    scores = {"world": "hard", "association": "near-online", **dict.fromkeys(names, 12.34), "switches": 3, "k=12": None}
    assert line(scores, names).split() == ["hard", "near-online", *["12.3"] * 6, "-", "12.3", "12.3", "3"]
    assert line({**scores, "missing": "not trained"}, names).endswith("not trained")


def test_every_preset_can_be_drawn_for_every_recipe_on_a_world():
    for preset in PRESETS:
        for name in ("synthetic_mixed", "synthetic_hard", "synthetic_vis_hard"):
            world = find_recipe(name).world
            assert world_classes(replace(world, preset=preset, frames=48))
