"""Backbone maps: sizes, official settings, and errors for unknown names."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.backbone import _TORCHVISION_SCHEMAS, KNOWN_NETWORKS, Backbone, BackboneConfig, load_timm
from model.layers.convolution import BatchNormConfig

timm = load_timm()

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
    backbone = backbone_of(name)
    frames = torch.randn(2, 3, 65, 64)
    for together, first, second in zip(backbone(frames), backbone(frames[:1]), backbone(frames[1:])):
        torch.testing.assert_close(together, torch.cat([first, second]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_convnext", "convnextv2_atto"])
@torch.inference_mode()
def test_convnext_of_official_sizes_is_timm_with_zeros_before_stem_and_down_sampling(name):
    """Padding a frame of 1 + 32 k by hand, as the official code always does, gives the same as our hooks."""
    backbone = backbone_of(name)
    frames = torch.randn(1, 3, 65, 97)
    plain = timm.create_model(name, features_only=True).eval()
    plain.load_state_dict(backbone.network.state_dict())
    x = plain.stages_0(plain.stem_1(plain.stem_0(F.pad(frames, (1, 2, 1, 2)))))
    expected = [x]
    for stage in (plain.stages_1, plain.stages_2, plain.stages_3):
        expected.append(stage(F.pad(expected[-1], (0, 1, 0, 1))))
    for ours, theirs in zip(backbone(frames), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.inference_mode()
def test_sizes_that_tile_give_the_maps_of_timm():
    backbone = backbone_of("test_convnext")
    frames = torch.randn(1, 3, 64, 96)
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


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_drop_path_grows_linearly_over_all_blocks_to_the_configured_rate(name):
    backbone = backbone_of(name, drop_path=0.3)
    blocks = [module for module in backbone.modules() if type(module).__name__ == "ConvNeXtBlock"]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]        # the first block has none
    assert rates == pytest.approx(torch.linspace(0, 0.3, len(blocks)).tolist())
    assert not any(hasattr(module, "drop_prob") and module.drop_prob for module in backbone_of(name).modules())


def test_resnet50_is_the_official_one():
    """Stride in the 3x3 convolution, a 7x7 stem, nothing frozen; the published size less the classifier."""
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(name="resnet50"))
    strided = {name: module.kernel_size for name, module in backbone.network.named_modules()
               if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and "downsample" not in name}
    assert strided == {"conv1": (7, 7), **{f"layer{layer}.0.conv2": (3, 3) for layer in (2, 3, 4)}}
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 25_557_032 - 2048 * 1000 - 1000
    assert backbone.channels == (256, 512, 1024, 2048)


@pytest.mark.parametrize(("name", "published"), [("convnext_large", 197_767_336), ("convnextv2_large", 197_956_840)])
def test_the_large_convnexts_are_the_official_ones(name, published):
    """Layer norms of eps 1e-6; V1 scales its branches from 1e-6 on, V2 normalises responses (GRN) instead."""
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(name=name, drop_path=0.3))
    assert {module.eps for module in backbone.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}
    assert [name.endswith(".gamma") for name, _ in backbone.named_parameters()].count(True) == 36 * ("v2" not in name)
    assert sum("grn" in name for name, _ in backbone.named_modules()) == 36 * ("v2" in name)
    classifier_and_norm = 1536 * 1000 + 1000 + 2 * 1536
    assert sum(parameter.numel() for parameter in backbone.parameters()) == published - classifier_and_norm
    assert backbone.channels == (192, 384, 768, 1536)
    small = timm.create_model("convnext_atto", features_only=True)
    assert {parameter.max().item() for name, parameter in small.named_parameters() if "gamma" in name} == {
        torch.tensor(1e-6).item()}


@torch.inference_mode()
def test_layer_norms_compute_in_float32_under_autocast():
    norm = next(module for module in backbone_of("test_convnext").modules() if isinstance(module, nn.LayerNorm))
    x = 1000 + torch.randn(1, norm.normalized_shape[0], 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = norm(x)
    assert torch.equal(under_autocast, norm(x))


@pytest.mark.parametrize("shift", [0, 3])
@torch.inference_mode()
def test_shifted_windows_of_swin_neither_wrap_nor_mix_with_padding(shift):
    """A token reaches the tokens of its own window, whose borders lie at shift + 7 i, and no other."""
    block = backbone_of("swin_tiny_patch4_window7_224").network.layers_3.blocks[shift // 3]
    assert block.shift_size == (shift, shift)       # also at stride 32, where timm would use a single window
    height = 9
    width = 17
    x = torch.randn(1, height, width, 768)
    changed = x.clone()
    changed[0, 1, 2] += 1
    window = [(torch.arange(side) - shift).div(7, rounding_mode="floor") for side in (height, width)]
    same = (window[0] == window[0][1])[:, None] & (window[1] == window[1][2])
    moved = (block._attn(changed) - block._attn(x)).abs().amax(-1)[0] > 0
    assert torch.equal(moved, same)


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
@torch.inference_mode()
def test_output_norms_normalise_every_map_over_its_channels(name):
    backbone = backbone_of(name, output_norms=True)
    frames = torch.randn(1, 3, 64, 96)
    plain = backbone_of(name)
    plain.network.load_state_dict(backbone.network.state_dict())
    for normed, raw in zip(backbone(frames), plain(frames)):
        expected = F.layer_norm(raw.movedim(1, -1), (raw.shape[1],)).movedim(-1, 1)
        torch.testing.assert_close(normed, expected, atol=1e-4, rtol=1e-4)


def test_frozen_statistics_do_not_move_in_training():
    for frozen in (False, True):
        backbone = backbone_of("test_resnet", frozen_statistics=frozen).train()
        norm = next(module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d))
        before = norm.running_mean.clone()
        backbone(torch.randn(2, 3, 64, 64))
        assert torch.equal(norm.running_mean, before) == frozen


def test_an_unknown_name_is_refused_with_near_matches():
    with pytest.raises(ValueError, match=r"'resnet5O'; near matches: resnet50"):
        BackboneConfig(name="resnet5O")
    with pytest.raises(ValueError, match=r"drop_path=1\.5"):
        BackboneConfig(drop_path=1.5)


def test_a_network_without_the_four_strides_is_refused():
    with pytest.raises(ValueError, match="choose a network with maps at strides"):
        Backbone(BackboneConfig(name="vit_tiny_patch16_224"))


def test_importing_timm_again_leaves_torchvision_alone():
    """The workaround acts on a failed import only; declaring the same operators twice would raise an error."""
    before = list(_TORCHVISION_SCHEMAS)
    load_timm.cache_clear()
    assert load_timm() is timm
    assert before == _TORCHVISION_SCHEMAS


def test_timm_has_every_network_whose_name_is_accepted_without_asking_it():
    assert [name for name in KNOWN_NETWORKS if not timm.is_model(name)] == []
