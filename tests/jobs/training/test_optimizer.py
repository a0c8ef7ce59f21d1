"""Parameter groups by name and by type of layer, and the shape of the schedule."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from jobs.training.optimizer import OptimizerConfig, build_optimizer, parameter_groups, rate_factor, set_rate
from model.backbone import Backbone, BackboneConfig
from tests.tiny_models import TINY_DEFORMABLE_TRAJECTORIES, TINY_WITHIN_CLIP, tiny_tube_link, tiny_video_kmax


def model() -> nn.Module:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net.head = nn.Linear(4, 2)
    net.frozen = nn.Linear(2, 2).requires_grad_(False)
    return net


def test_every_trainable_parameter_is_in_exactly_one_group():
    net = model()
    groups = parameter_groups(net, OptimizerConfig(multipliers=(("backbone", 0.1),)))
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters() if p.requires_grad)


def test_norms_and_biases_do_not_decay_and_the_backbone_learns_slower():
    net = model()
    groups = parameter_groups(net, OptimizerConfig(lr=1.0, weight_decay=0.05, multipliers=(("backbone", 0.1),)))
    group_of = {id(p): group for group in groups for p in group["params"]}
    assert group_of[id(net.backbone[0].weight)]["weight_decay"] == 0.05
    assert group_of[id(net.backbone[1].weight)]["weight_decay"] == 0
    assert group_of[id(net.head.bias)]["weight_decay"] == 0
    assert group_of[id(net.backbone[0].weight)]["lr"] == pytest.approx(0.1)
    assert group_of[id(net.head.weight)]["lr"] == pytest.approx(1.0)


def decaying(net: nn.Module, config: OptimizerConfig | None = None) -> set[str]:
    groups = parameter_groups(net, config or OptimizerConfig())
    ids = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, p in net.named_parameters() if id(p) in ids}


def test_the_shift_of_a_global_response_norm_decays_and_its_scale_does_not():
    names = decaying(Backbone(BackboneConfig(name="convnextv2_atto")))
    assert "network.stages_0.blocks.0.mlp.grn.bias" in names
    assert "network.stages_0.blocks.0.mlp.fc1.weight" in names
    assert not any(name.endswith(("grn.weight", "norm.bias", "fc1.bias")) for name in names)


def test_query_embeddings_never_decay_and_level_embeddings_only_outside_the_query_decoder():
    tube_link = tiny_tube_link(within_clip=TINY_DEFORMABLE_TRAJECTORIES)
    video_kmax = tiny_video_kmax(within_clip=TINY_WITHIN_CLIP)
    embeddings = {kind: {name for name in decaying(config.build())
                         if "embedding" in name or "quer" in name.rpartition(".")[2]}
                  for kind, config in (("tube_link", tube_link), ("video_kmax", video_kmax))}
    assert embeddings == {
        "tube_link": {"pixel_decoder.level_embedding", "pixel_decoder.clip_level_embedding"},
        "video_kmax": {"within_clip.level_embedding", "within_clip.clip_level_embedding"}}


def test_the_first_decay_rule_that_matches_wins_over_the_rules_for_norms_and_names():
    net = model()
    every = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    norms = {"backbone.1.weight", "backbone.1.bias"}
    for rules, exempt, expected in (
            ((), (), every - norms), ((("backbone", True),), ("backbone", "bias"), every - {"head.bias"}),
            ((("bias", False), ("backbone", True)), (), {name for name in every if name.endswith("weight")}),
            ((("backbone.1", True), ("backbone", False)), ("head",), norms)):
        assert decaying(net, OptimizerConfig(decay=rules, no_decay=exempt)) == expected


def test_a_rate_of_0_is_refused():
    with pytest.raises(ValueError, match=r"the factors of \['backbone.'\] are not above 0; .* optimizer.frozen"):
        OptimizerConfig(multipliers=(("backbone.", 0.0),))


def test_a_multiplier_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="backbnoe"):
        parameter_groups(model(), OptimizerConfig(multipliers=(("backbnoe", 0.1),)))


def test_poly_warms_up_linearly_and_ends_near_zero():
    config = OptimizerConfig(warmup_steps=10, warmup_factor=0.001, power=0.9)
    factors = [rate_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.001)
    assert all(a < b for a, b in itertools.pairwise(factors[:11]))
    assert factors[50] == pytest.approx(0.5 ** 0.9)
    assert factors[-1] == pytest.approx(0.01 ** 0.9)


def test_steps_fall_tenfold_at_each_milestone():
    config = OptimizerConfig(warmup_steps=0, schedule="steps", milestones=(5, 8))
    assert [rate_factor(s, 10, config) for s in (4, 5, 8)] == pytest.approx([1, 0.1, 0.01])


def test_the_schedule_keeps_the_factor_between_groups():
    optimizer = build_optimizer(model(), OptimizerConfig(lr=1.0, multipliers=(("backbone", 0.1),)))
    set_rate(optimizer, 0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.05, 0.5}
    assert isinstance(optimizer, torch.optim.AdamW)
