"""Backbone maps: sizes, official settings, and errors for names that do not exist."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.backbone import _TORCHVISION_SCHEMAS, Backbone, BackboneConfig, _import_timm, timm
from model.layers.convolution import BatchNormConfig

NAMES = ["test_resnet", "resnet18", "test_convnext", "convnext_atto", "convnextv2_atto", "convnext_tiny",
         "swin_tiny_patch4_window7_224"]


def backbone_of(name: str, **changes) -> Backbone:
    return Backbone(BackboneConfig(name=name, **changes)).eval()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_side_is_the_input_side_over_the_stride_rounded_up(name):
    backbone = backbone_of(name)
    for height, width in [(65, 97), (64, 96), (66, 67)]:
        maps = backbone(torch.randn(1, 3, height, width))
        expected = [(1, channels, math.ceil(height / stride), math.ceil(width / stride))
                    for channels, stride in zip(backbone.channels, backbone.strides)]
        assert [tuple(map_.shape) for map_ in maps] == expected


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
@torch.inference_mode()
def test_the_official_size_gives_the_official_maps(name):
    maps = backbone_of(name)(torch.randn(1, 3, 769, 129))
    assert [tuple(map_.shape[-2:]) for map_ in maps] == [(193, 33), (97, 17), (49, 9), (25, 5)]


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
@torch.inference_mode()
def test_a_batch_of_two_equals_two_batches_of_one(name):
    backbone, frames = backbone_of(name), torch.randn(2, 3, 65, 64)
    for together, first, second in zip(backbone(frames), backbone(frames[:1]), backbone(frames[1:])):
        torch.testing.assert_close(together, torch.cat([first, second]), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_convnext_of_odd_sizes_is_timm_with_zeros_before_stem_and_down_sampling():
    """Padding a frame by hand as the official code does, down to stride 8, gives the same as our hooks."""
    backbone, frames = backbone_of("test_convnext"), torch.randn(1, 3, 33, 33)
    plain = timm.create_model("test_convnext", features_only=True).eval()
    plain.load_state_dict(backbone.network.state_dict())
    stride4 = plain.stages_0(plain.stem_1(plain.stem_0(F.pad(frames, (1, 2, 1, 2)))))
    stride8 = plain.stages_1(F.pad(stride4, (0, 1, 0, 1)))
    ours = backbone(frames)
    torch.testing.assert_close(ours[0], stride4)
    torch.testing.assert_close(ours[1], stride8)


@torch.inference_mode()
def test_sizes_that_tile_stay_as_timm_has_them():
    backbone, frames = backbone_of("test_convnext"), torch.randn(1, 3, 64, 96)
    plain = timm.create_model("test_convnext", features_only=True).eval()
    plain.load_state_dict(backbone.network.state_dict())
    for ours, theirs in zip(backbone(frames), plain(frames)):
        torch.testing.assert_close(ours, theirs)


def test_every_batch_norm_has_the_configured_eps_and_momentum():
    backbone = backbone_of("test_resnet", batch_norm=BatchNormConfig(eps=0.01, momentum=0.2))
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.01, 0.2)}
    official = [module for module in backbone_of("test_resnet").modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in official} == {(1e-3, 0.01)}


def test_drop_path_grows_linearly_to_the_configured_rate():
    backbone = backbone_of("convnext_atto", drop_path=0.3)
    rates = [module.drop_prob for module in backbone.modules() if type(module).__name__ == "DropPath"]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)


@torch.inference_mode()
def test_layer_norms_compute_in_float32_under_autocast():
    norm = next(module for module in backbone_of("test_convnext").modules() if isinstance(module, nn.LayerNorm))
    x = 1000 + torch.randn(1, norm.normalized_shape[0], 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = norm(x)
    assert torch.equal(under_autocast, norm(x))


def test_an_unknown_name_is_refused_with_near_matches():
    with pytest.raises(ValueError, match=r"'resnet5O'; near matches: resnet50"):
        BackboneConfig(name="resnet5O")
    with pytest.raises(ValueError, match=r"drop_path=1\.5"):
        BackboneConfig(drop_path=1.5)


def test_a_network_without_the_four_strides_is_refused():
    with pytest.raises(ValueError, match="choose a network with maps at strides"):
        Backbone(BackboneConfig(name="vit_tiny_patch16_224"))


def test_importing_timm_again_leaves_torchvision_alone():
    """The guard acts on a failed import only; a second declaration of the same operators would raise."""
    before = list(_TORCHVISION_SCHEMAS)
    assert _import_timm() is timm
    assert before == _TORCHVISION_SCHEMAS
