"""Frozen parts: no gradient, no place in the optimizer, evaluation mode, and the same bytes after a step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import MethodType

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.training.freezing import freeze
from jobs.training.loop import FitConfig, fit
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from model.backbone import Backbone, BackboneConfig
from model.layers.drop_path import DropPath

FROZEN = ("first.", "norm.")
CONFIG = OptimizerConfig(lr=0.1, warmup_steps=0, clip_norm=1.0, frozen=FROZEN)


class Batch:
    videos = ("a",)

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Module()
    net.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), DropPath(0.5), nn.Conv2d(4, 4, 3))
    net.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Dropout(0.5))
    net.second.norm = nn.BatchNorm2d(4)
    net.forward = lambda frames: net.second(net.first(frames))
    return net


def frozen_network() -> nn.Module:
    net = network()
    freeze(net, FROZEN)
    return net


def trained(net: nn.Module, config: OptimizerConfig) -> nn.Module:
    batches = (Batch(torch.randn(2, 3, 16, 16)) for _ in range(2))
    fit(net, batches, lambda batch: {"loss": net.forward(batch.frames).square().mean()}, rates=config,
        optimizer=build_optimizer(net, config), config=FitConfig(steps=2), log=lambda _: None, save=lambda _: None)
    return net


def test_a_step_leaves_the_frozen_weights_and_statistics_byte_for_byte():
    before = {name: value.clone() for name, value in network().state_dict().items()}
    after = trained(frozen_network().train(), CONFIG).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"second.0.weight", "second.0.bias"}


def test_frozen_parts_cost_no_gradient_and_have_no_place_in_the_optimizer():
    net = frozen_network()
    optimizer = build_optimizer(net, CONFIG)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2       # weight and bias of second.0
    features = net.first(torch.randn(2, 3, 16, 16))
    assert not features.requires_grad       # autograd keeps nothing of the frozen stage
    net.second(features).square().mean().backward()
    assert {name for name, weight in net.named_parameters() if weight.grad is not None} == {
        "second.0.weight", "second.0.bias"}


def test_the_gradient_norm_is_that_of_the_other_parts():
    net = frozen_network()
    net.forward(torch.randn(2, 3, 16, 16)).square().mean().backward()
    of_all = nn.utils.clip_grad_norm_(net.parameters(), 1e9)
    assert torch.equal(of_all, nn.utils.clip_grad_norm_(net.second[0].parameters(), 1e9))


def test_frozen_modules_stay_in_evaluation_mode_whatever_the_mode_of_the_model():
    net = frozen_network()
    for mode in (True, False, True):
        net.train(mode)
        assert {module.training for module in net.first.modules()} == {False}
        assert not net.second.norm.training
        assert net.second[1].training == net.training == mode
    frames = torch.randn(2, 3, 16, 16)
    assert torch.equal(net.first(frames), net.first(frames))        # no drop path


def test_a_frozen_backbone_follows_its_own_way_to_switch_modes():
    net = nn.Module()
    net.backbone = Backbone(BackboneConfig(name="test_resnet", frozen_statistics=True))
    net.head = nn.Linear(2, 2)
    freeze(net, ("backbone.",))
    assert {module.training for module in net.train().backbone.modules()} == {False}


@pytest.mark.parametrize(("parts", "complaint"), [
    (("first.", "fisrt."), r"optimizer\.frozen: \['fisrt\.'\] occur in the name of no parameter"),
    (("first.", "second."), r"freezes all 10 parameters, so nothing would be trained")])
def test_a_part_that_matches_nothing_and_a_model_without_anything_left_are_refused(parts, complaint):
    with pytest.raises(ValueError, match=complaint):
        freeze(network(), parts)


def test_workers_exchange_no_gradients_of_frozen_parts(tmp_path):
    """DDP of one process: its reducer waits for a gradient of every parameter that it knows, and would fail here."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        net = frozen_network().train()
        net.forward = MethodType(lambda self, frames: self.second(self.first(frames)), net)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        workers = nn.parallel.DistributedDataParallel(net)
        optimizer = build_optimizer(net, CONFIG)
        for _ in range(2):
            workers(torch.randn(2, 3, 16, 16)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    finally:
        dist.destroy_process_group()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"second.0.weight", "second.0.bias"}


def test_a_resumed_training_continues_with_the_same_groups():
    optimizer = build_optimizer(frozen_network(), CONFIG)
    again = build_optimizer(frozen_network(), replace(CONFIG, lr=0.2))
    again.load_state_dict(optimizer.state_dict())
    assert [len(group["params"]) for group in again.param_groups] == [1, 1]
    assert all(a["weight_decay"] < b["weight_decay"] for a, b in pairwise(again.param_groups))
