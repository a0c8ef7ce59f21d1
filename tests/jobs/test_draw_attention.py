"""`draw_attention` reads the maps of every part that takes part, and draws only what there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs import draw_attention
from jobs.draw_attention import AttentionLine, read_point
from jobs.models import head_card, links_card, read_card, save_model
from jobs.recipes.tiny import tiny_links
from model.association import LinksConfig
from pipeline.images import decode_image
from tests.runs import inferred
from tests.untrained_run import predicting, untrained_run, write_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained segmenter, head and links, and a video of three clips."""
    folder = tmp_path_factory.mktemp("attention")
    recipe = untrained_run(folder / "run")
    recipe = replace(recipe, stage_two=replace(recipe.stage_two, links=tiny_links()))
    card = read_card(recipe.segmenter_folder)
    torch.manual_seed(0)
    save_model(recipe.head_folder, recipe.head.build().state_dict(), head_card(recipe, card, cache="x"))
    embedding = recipe.stage_one.segmenter.query_decoder.embedding
    network = recipe.stage_two.links.network
    links = network.build(embedding=embedding)
    save_model(recipe.links_folder, links.state_dict(), links_card(recipe, network, card, cache="x"))
    return predicting(recipe, write_video(folder / "square.mp4", frames=6), folder / "out")


@pytest.mark.parametrize("association", ["hungarian", "links"])
def test_trajectory_clips_and_links_are_drawn(run, association):
    recipe = run if association == "hungarian" else inferred(run, association=LinksConfig())
    said = draw_attention.main(recipe, AttentionLine(point="12,20", frame=3))
    assert (said["clip"], said["first_frame_of_clip"]) == (1, 2)
    assert len(said["track"]) == 2
    assert sum(said["clips"]) == pytest.approx(1, abs=1e-4)
    assert len(said["clips"]) == 3
    assert (said["links"] is None) == (association == "hungarian")
    if association == "links":
        assert len(said["links"]) == 3
        assert all(0 <= probability <= 1 for probability in said["links"])
    folder = Path(said["folder"])
    assert {path.name for path in folder.iterdir()} == {"trajectory.png", "clips.png", "attention.json"}
    assert decode_image((folder / "trajectory.png").read_bytes()).shape[1] == 2 * 240      # the frames of the clip


def test_near_online_has_a_trajectory_alone(run):
    recipe = replace(run, predict=replace(run.predict, mode="near_online"))
    said = draw_attention.main(recipe, AttentionLine(point="12,20", stride=32))
    assert said["clips"] is said["links"] is None
    assert said["track"]


@pytest.mark.parametrize(("line", "message"), [
    (AttentionLine(point="12"), "must be x,y in pixels"), (AttentionLine(point="12,20", frame=6), "frames 0 to 5"),
    (AttentionLine(point="500,20"), "outside the frame of 72x50"),
    (AttentionLine(point="12,20", stride=8), r"no trajectory attention at stride 8; it is at \[16, 32\]")])
def test_what_is_not_there_is_named(run, line, message):
    with pytest.raises(ValueError, match=message):
        draw_attention.main(run, line)


def test_a_point_is_two_numbers():
    assert read_point("120,80.5") == (120, 80.5)
