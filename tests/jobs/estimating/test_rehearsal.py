"""A rehearsal is the recipe with less data, whatever the recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.estimating.rehearsal import divided, network_size, rehearsed, second_call
from jobs.recipes import RECIPES, find_recipe


@pytest.mark.parametrize(("size", "part", "expected"), [
    ((769, 1345), 8, (97, 161)), ((769, 1345), 1, (769, 1345)), ((96, 96), 2, (32, 32)), ((384, 640), 4, (96, 160))])
def test_a_divided_size_is_one_that_networks_take(size, part, expected):
    assert divided(size, part) == expected


@pytest.mark.parametrize(("seconds", "calls"), [(0.1, 2), (0.9, 1)])
def test_a_first_call_that_takes_long_is_not_repeated(seconds, calls, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("jobs.estimating.rehearsal.time", SimpleNamespace(process_time=lambda: sum(clock)))
    assert second_call(lambda: clock.append(seconds), enough=0.5) == pytest.approx(seconds)
    assert len(clock) == 1 + calls


@pytest.mark.parametrize(("size", "drawn"), [((4320, 7680), (4096, 4096)), ((20, 500), (32, 500))])
def test_frames_of_any_size_have_a_rehearsal(size, drawn, tmp_path):
    world = rehearsed(find_recipe("demo"), tmp_path, size=size, frames=1, part=1).world
    assert ((world.height, world.width), world.frames) == (drawn, 1)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_a_rehearsal_with_its_own_networks(name, tmp_path):
    recipe = find_recipe(name)
    small = rehearsed(recipe, tmp_path, size=(720, 1280), frames=24, part=4)
    assert small.run_folder == Path(tmp_path)
    assert small.stage_one.input.augment.size == divided(network_size(recipe, (720, 1280)), 4)
    assert type(small.stage_one.segmenter) is type(recipe.stage_one.segmenter)
    assert (small.stage_two is None) == (recipe.stage_two is None)
    assert small.starts == {}
    assert small.cluster.in_process
