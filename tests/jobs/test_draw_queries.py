"""`draw_queries` draws where queries find their segments, over all videos of a split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import draw_queries
from jobs.draw_queries import mean_locations
from model.postprocess.panoptic import PanopticConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from pipeline.images import decode_image
from pipeline.query_locations import query_locations
from tests.untrained_run import untrained_on_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained segmenter whose every query may have a segment."""
    recipe = untrained_on_shards(tmp_path_factory.mktemp("queries"))
    everything = PanopticConfig(thing=0.0, stuff=0.0, pixel=0.05, overlap=0.0)
    return replace(recipe, inference=replace(recipe.inference, panoptic=everything))


def test_every_query_with_a_segment_has_a_place_on_the_frame(run):
    result = draw_queries.main(run)
    folder = Path(result["folder"])
    locations = json.loads((folder / "locations.json").read_text())
    assert {kind: len(queries) for kind, queries in locations.items()} == {
        "things": result["things"], "stuff": result["stuff"]}
    assert result["things"] + result["stuff"] > 0
    assert all(0 < query[axis] < 1 for queries in locations.values() for query in queries for axis in "xy")
    assert decode_image((folder / "locations.png").read_bytes()).ndim == 3


def test_locations_are_means_over_segments():
    sums = np.array([[0, 0, 0], [1.5, 0.5, 2]])
    assert mean_locations(sums) == [{"query": 1, "x": 0.75, "y": 0.25, "segments": 2}]


def test_a_system_that_paints_tubes_is_refused(run):
    class Tubes:
        inference = replace(run.inference, panoptic=TubePanopticConfig())

    with pytest.raises(ValueError, match="kind 'tube'"):
        query_locations(Tubes(), None)
