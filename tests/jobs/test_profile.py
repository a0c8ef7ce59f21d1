"""The cost of networks: the published numbers of Video-kMaX, and counts that do not depend on the machine."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jobs.config import override
from jobs.models import without_download
from jobs.profile import command, count, count_networks, main, shapes_only
from jobs.recipes import find_recipe

TINY = find_recipe("tiny")


def counted(name: str, *, size: tuple[int, int], frames: int) -> dict:
    recipe = find_recipe(name)
    if recipe.stage_two is not None:    # a small head
        recipe = override(recipe, ["stage_two.input.clips=1", "stage_two.head.layers=1"])
    return count_networks(recipe, without_download(recipe.stage_one.segmenter), size=size, frames=frames)[0].to_json()


@pytest.mark.parametrize(("name", "size", "frames", "ours", "published"), [
    ("vipseg_video_kmax_r50", (375, 1242), 1, (56.371, 82.555), (56.4, 83)),
    ("vipseg_video_kmax_r50", (375, 1242), 2, (56.371, 163.964), (56.4, 167)),
    ("vipseg_video_kmax_r50", (720, 1280), 1, (56.371, 160.391), (56.4, 162)),
    ("vipseg_video_kmax_r50", (720, 1280), 2, (56.371, 319.638), (56.4, 324)),
    ("kitti_step_video_kmax_axial_r50", (375, 1242), 1, (74.180, 117.325), (74.2, 118)),
    ("kitti_step_video_kmax_axial_r50", (375, 1242), 2, (74.180, 233.508), (74.2, 236)),
    ("kitti_step_video_kmax_axial_r50", (720, 1280), 1, (74.180, 229.270), (74.2, 231)),
    ("kitti_step_video_kmax_axial_r50", (720, 1280), 2, (74.180, 457.398), (74.2, 461)),
    ("vipseg_video_kmax_convnext_l", (375, 1242), 1, (231.628, 371.695), (231.6, 370)),
    ("vipseg_video_kmax_convnext_l", (375, 1242), 2, (231.628, 742.246), (231.6, 740)),
    ("vipseg_video_kmax_convnext_l", (720, 1280), 1, (231.628, 719.069), (231.6, 715)),
    ("vipseg_video_kmax_convnext_l", (720, 1280), 2, (231.628, 1436.992), (231.6, 1431)),
])
def test_video_kmax_costs_what_is_published(name, size, frames, ours, published):
    """All of arXiv 2304.04694, supplement, table 3; the counting rules are in the docstring of `jobs.profile`."""
    numbers = counted(name, size=size, frames=frames)
    parameters = numbers["parameters_m"]["total"]
    gflops = numbers["gflops"]["total"]
    assert (parameters, gflops) == pytest.approx(ours, abs=1e-3)
    assert round(parameters, 1) == published[0]
    assert gflops == pytest.approx(published[1], rel=0.02)


@pytest.mark.parametrize("name", ["coco_video_kmax_r50", "vipseg_original_video_kmax_convnext_l"])
def test_video_kmax_itself_costs_what_its_re_implementation_costs_but_for_the_rows_of_classes(name):
    backbone = "convnext_l" if "convnext_l" in name else "r50"
    ours, theirs = (counted(recipe, size=(65, 65), frames=2)["gflops"]
                    for recipe in (name, f"vipseg_video_kmax_{backbone}"))
    assert {part: ours[part] for part in ("backbone", "pixel_decoder")} == {
        part: theirs[part] for part in ("backbone", "pixel_decoder")}
    assert ours["total"] == pytest.approx(theirs["total"], rel=1e-3)


def test_weights_that_only_training_reads_are_named_and_none_is_left_out():
    numbers = counted("vipseg_video_kmax_r50_near_online", size=(65, 65), frames=2)
    assert numbers["training_only_m"].keys() == {"semantic_head", "query_decoder.layers.*.predictor.class_head"}
    assert numbers["parameters_m"].keys() == {"backbone", "within_clip", "pixel_decoder", "query_decoder", "total"}
    with torch.device("meta"):
        network = (find_recipe("vipseg_video_kmax_r50_near_online").stage_one.segmenter).build()
    total = numbers["parameters_m"]["total"] + sum(numbers["training_only_m"].values())
    assert total == pytest.approx(sum(weight.numel() for weight in network.parameters()) / 1e6, abs=2e-3)


def test_frames_of_a_clip_cost_the_backbone_the_same_each():
    one, three = (counted("tiny", size=(64, 64), frames=frames)["gflops"] for frames in (1, 3))
    assert three["backbone"] == pytest.approx(3 * one["backbone"], abs=2e-3)


def test_shapes_alone_give_the_flops_of_real_numbers():
    config = TINY.stage_one.segmenter
    segmenter = config.build().eval().requires_grad_(False)
    clip = torch.zeros(1, 2, 3, 64, 96)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        segmenter(clip)
    ours = count_networks(TINY, config, size=(64, 96), frames=2)[0]
    assert sum(ours.flops.values()) == counter.get_total_flops() // 2 > 0


class FusedAttention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class WrittenAttention(nn.Module):
    def forward(self, x):
        return (x @ x.mT).softmax(-1) @ x


def test_attention_counts_by_its_formula_whichever_kernel_runs_it():
    layer = nn.MultiheadAttention(16, 4, batch_first=True, device="meta").eval()
    with shapes_only():
        flops = [count(module, lambda module=module: module(torch.zeros(2, 4, 64, 16)))[1].flops["outside"]
                 for module in (FusedAttention(), WrittenAttention())]
        x = torch.zeros(2, 64, 16)
        _, layer_count = count(layer, lambda: layer(x, x, x, need_weights=False))
    assert flops == [2 * 2 * 4 * 64 * 64 * 16] * 2
    assert sum(layer_count.flops.values()) == 2 * (4 * 64 * 16 * 16 + 2 * 64 * 64 * 16)
    assert not layer_count.training_only


def test_the_head_is_counted_over_all_clips_of_the_recipe():
    """Each layer's trajectory attention and ASPP, the heads, and the masks of every clip."""
    head = count_networks(TINY, TINY.stage_one.segmenter, size=(64, 64), frames=2)[1]
    clips = TINY.stage_two.input.clips
    config = TINY.stage_two.head
    queries = TINY.stage_one.segmenter.query_decoder.num_queries
    assert head.flops["outside"] == clips * queries * config.embedding * 2 * 16 * 16
    assert head.flops.keys() == {"layers", "predictor", "outside"}
    assert not head.training_only


def test_the_last_line_is_json_with_all_numbers(capsys):
    assert command("tiny", repeats=2, set=("stage_one.input.clip_frames=3",)) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["recipe"], summary["size"], summary["clip_frames"], summary["repeats"]) == ("tiny", [64, 64], 3, 2)
    assert summary["frames_per_second"] == pytest.approx(3 / summary["seconds_per_clip"], rel=0.05)
    assert summary["peak_memory_gib"] > 0
    assert summary["segmenter"]["gflops"]["total"] > 0


def test_counting_alone_measures_nothing():
    assert "frames_per_second" not in main(TINY, size=(33, 65), clip_frames=1, repeats=0)


@pytest.mark.parametrize("wrong", [{"size": (0, 64)}, {"clip_frames": 0}, {"repeats": -1}])
def test_an_impossible_size_is_refused(wrong, capsys):
    assert command("tiny", **wrong) == 2
    assert "must be at least 1" in capsys.readouterr().err
