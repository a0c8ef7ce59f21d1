"""The work of a verb follows from the recipe: clips that share frames cost more, and a stage that is kept nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.estimating.amounts import amounts_of
from jobs.estimating.schedule import ENDLESS, Cluster
from jobs.estimating.unit_costs import Cost, Training, UnitCosts
from jobs.estimating.verbs import planned
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from model.association.stitching import StitchingConfig

SECOND = Cost(seconds=1.0, memory=1.0)
STEP = Training(sample=SECOND, update=1.0, weights=100.0)
# A clip of two frames takes 8 seconds in the network, and whatever else is done with a frame 1 second.
COSTS = UnitCosts(start=Cost(seconds=0.0), draw=SECOND, shard=SECOND, decode=SECOND, step=STEP, clip=Cost(seconds=8.0),
                  score=Cost(seconds=5.0), offline=Cost(seconds=5.0), cache=Cost(seconds=10.0), head=STEP, links=STEP,
                  matrix_rate=1.0)
FREE = Cluster(storage=ENDLESS, network=ENDLESS, latency=0.0, driver=0.0, tracker=0.0, start=0.0, cpus=1)


@pytest.fixture(autouse=True)
def measured_on_a_core(monkeypatch):
    """The unit costs are those of a machine without a GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def seconds(recipe: Recipe, cluster: Cluster = FREE, *, costs: UnitCosts = COSTS) -> dict[str, float]:
    """Verb -> its time."""
    return {verb.verb: verb.work.time(cluster) for verb in planned(recipe, amounts_of(recipe), costs, cluster)}


def test_a_gpu_makes_the_network_faster_and_nothing_else():
    demo = find_recipe("demo")
    frames = demo.world.videos_val * demo.world.frames
    assert seconds(demo)["evaluate, near-online"] == pytest.approx(5 * frames)
    ten_times = replace(FREE, gpus=1, gpu_rate=10.0)
    assert seconds(demo, ten_times)["evaluate, near-online"] == pytest.approx((1 + 0.4) * frames)


def test_a_frame_that_clips_share_is_computed_in_each():
    demo = find_recipe("demo")
    linked = replace(demo, inference=replace(demo.inference, association=StitchingConfig(overlap=1)))
    costs = replace(COSTS, score=Cost(seconds=1 + 4 * 22 / 12))         # 11 clips of two frames in a video of 12
    ten_times = replace(FREE, gpus=1, gpu_rate=10.0)
    frames = demo.world.videos_val * demo.world.frames
    assert seconds(linked, ten_times, costs=costs)["evaluate, near-online"] == pytest.approx(
        (1 + 0.4 * 22 / 12) * frames)


def test_a_segmenter_that_is_kept_is_not_trained():
    frozen = find_recipe("youtube_vis_2019_vita_r50_frozen")
    assert not frozen.stage_one.train
    first = next(verb for verb in planned(frozen, amounts_of(frozen), COSTS, FREE) if verb.verb == "train_stage_one")
    assert first.work.time(FREE) == 0.0
    assert first.written == STEP.weights
