"""A folded network computes what the network computes, with fewer norms."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from jobs.recipes import find_recipe
from model.backbone import KNOWN_NETWORKS, Backbone, BackboneConfig
from model.folding import fold_norms


def lived_in(network: nn.Module) -> nn.Module:
    """The frozen network with the statistics and scales of one that has learned."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval().requires_grad_(False)


def norms(network: nn.Module) -> int:
    """The number of batch norms."""
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def tensors(result: object) -> list[Tensor]:
    """All tensors of a result, whatever holds them."""
    if isinstance(result, Tensor):
        return [result]
    if is_dataclass(result):
        result = [getattr(result, field.name) for field in fields(result)]
    return [tensor for value in result for tensor in tensors(value)] if isinstance(result, tuple | list) else []


@pytest.mark.parametrize("recipe", ["tiny", "tiny_vis", "tiny_vita", "synthetic_vss"])
def test_a_segmenter_gives_the_same_clips(recipe: str):
    torch.manual_seed(0)
    config = find_recipe(recipe).stage_one
    segmenter = lived_in(config.segmenter.build())
    clip = torch.randint(0, 256, (1, config.segmenter_frames, 3, 64, 96), dtype=torch.uint8)
    folded = fold_norms(deepcopy(segmenter))
    results = tensors(segmenter(clip))
    assert len(results) >= 4
    for one, other in zip(tensors(folded(clip)), results, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert norms(folded) < norms(segmenter) / 2 or norms(segmenter) == 0


@pytest.mark.parametrize("name", sorted(KNOWN_NETWORKS - {"convnext_large", "convnextv2_large", "resnet101",
                                                          "swin_base_patch4_window12_384",
                                                          "swin_large_patch4_window12_384"}))
def test_backbones_of_recipes_give_the_same_maps(name: str):
    backbone, folded = same_maps(name, size=(64, 96))
    assert norms(folded) < norms(backbone) / 2


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto", "swin_tiny_patch4_window7_224"])
def test_small_relatives_of_the_large_backbones_give_the_same_maps(name: str, monkeypatch):
    monkeypatch.setattr("model.folding.KNOWN_NETWORKS", {*KNOWN_NETWORKS, name})
    same_maps(name, size=(65, 97))


def same_maps(name: str, *, size: tuple[int, int]) -> tuple[Backbone, Backbone]:
    """A backbone and its folded copy, whose maps of a frame were found to be the same."""
    torch.manual_seed(0)
    backbone = lived_in(Backbone(BackboneConfig(name=name)))
    frames = torch.randn(1, 3, *size)
    folded = fold_norms(deepcopy(backbone))
    for one, other in zip(folded(frames), backbone(frames), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())
    return backbone, folded


def test_a_backbone_that_no_recipe_names_keeps_its_norms():
    backbone = lived_in(Backbone(BackboneConfig(name="resnet18")))
    count = norms(backbone)
    assert norms(fold_norms(backbone)) == count > 0


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))


def test_a_norm_that_also_activates_stays():
    class Activating(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Activating(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    kinds = [type(module) for module in fold_norms(network)]
    assert kinds == [nn.Conv2d, Activating, nn.Conv2d, nn.Identity]
