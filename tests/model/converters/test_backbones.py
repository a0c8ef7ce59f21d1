"""Every naming of a backbone is ours name for name, and comes back."""

from __future__ import annotations

import pytest
import torch

from model.backbone import Backbone, BackboneConfig, load_timm
from model.converters.backbones import BACKBONES, CLASSIFIER, backbone_naming, our_shape, their_shape, usual_naming
from model.converters.rename import new_name, rename, reverse


def own_shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = Backbone(BackboneConfig(name=name)).network
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def foreign(name: str) -> dict[str, torch.Tensor]:
    """A timm or torchvision classification network's state dict, shapes only."""
    with torch.device("meta"):
        if name.startswith("torchvision/"):
            import torchvision  # importable since model.backbone has been imported
            return torchvision.models.get_model(name.removeprefix("torchvision/")).state_dict()
        return load_timm().create_model(name).state_dict()


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "test_resnet", "convnext_tiny", "convnextv2_atto",
                                  "swin_tiny_patch4_window7_224", "stdc1", "stdc2", "torchvision/resnet50",
                                  "torchvision/convnext_tiny", "torchvision/convnext_large"])
def test_imagenet_networks_are_our_backbone_beside_their_classifier(name):
    state = foreign(name)
    rules = (*BACKBONES[backbone_naming(state)], *CLASSIFIER)
    ours = {new: tuple(our_shape(tensor, name=new).shape) for key, tensor in state.items()
            if (new := new_name(key, rules)) is not None}
    assert ours == own_shapes(name.removeprefix("torchvision/"))
    left_out = [key for key in state if new_name(key, rules) is None]
    assert all(key.startswith(("fc.", "head.", "norm.", "classifier.")) for key in left_out)


@pytest.mark.parametrize(("name", "naming"), [("resnet50", "detectron2_resnet"), ("resnet18", "detectron2_resnet"),
                                              ("convnext_tiny", "convnext"), ("convnextv2_atto", "convnext")])
def test_official_names_go_there_and_back(name, naming):
    own = own_shapes(name)
    assert usual_naming(own) == naming
    official = rename(own, reverse(BACKBONES[naming]))
    assert len(official) == len(own)
    assert backbone_naming(official) == naming
    assert rename(official, BACKBONES[naming]) == own


@pytest.mark.parametrize("naming", list(BACKBONES))
def test_every_table_can_be_read_backwards(naming):
    assert len(reverse(BACKBONES[naming])) == len(BACKBONES[naming])


def test_vectors_with_axes_around_them_become_vectors_and_get_their_axes_back():
    for theirs, ours, shape in (("stages.0.1.grn.gamma", "stages_0.blocks.1.mlp.grn.weight", (1, 1, 1, 6)),
                                ("stages.0.1.grn.beta", "stages_0.blocks.1.mlp.grn.bias", (1, 1, 1, 6)),
                                ("stages.0.1.gamma", "stages_0.blocks.1.gamma", (6,)),
                                ("features.1.0.layer_scale", "stages_0.blocks.0.gamma", (6, 1, 1)),
                                ("downsample_layers.0.0.weight", "stem_0.weight", (6, 1, 2))):
        tensor = torch.randn(shape)
        flat = our_shape(tensor, name=ours)
        assert flat.ndim == (1 if "stem" not in ours else 3)
        assert torch.equal(their_shape(flat, name=theirs), tensor)


def test_an_unknown_network_has_no_naming():
    assert backbone_naming(["patch_embed.proj.weight"]) is None


def test_swin_goes_to_microsoft_s_names_in_detectron2_and_to_mmdetection_s_elsewhere():
    own = own_shapes("swin_tiny_patch4_window7_224")
    for mmdet, naming in ((False, "swin"), (True, "mmdet_swin")):
        assert usual_naming(own, mmdet=mmdet) == naming
        theirs = rename(own, reverse(BACKBONES[naming]))
        assert backbone_naming(theirs) == naming
        assert rename(theirs, BACKBONES[naming]) == own
    microsoft = rename(own, reverse(BACKBONES["swin"]))
    assert {"layers.2.blocks.5.attn.qkv.bias", "layers.0.blocks.1.mlp.fc1.weight", "patch_embed.norm.weight",
            "layers.0.downsample.reduction.weight"} <= microsoft.keys()


@pytest.mark.parametrize(("name", "last"), [("stdc1", "x32.0.7"), ("stdc2", "x32.0.13")])
def test_stdc_goes_to_tube_link_s_names_in_mmdetection_and_to_its_authors_elsewhere(name, last):
    own = own_shapes(name)
    for mmdet, naming in ((False, "stdc"), (True, f"tube_link_{name}")):
        assert usual_naming(own, mmdet=mmdet) == naming
        theirs = rename(own, reverse(BACKBONES[naming]))
        assert backbone_naming(theirs) == naming
        assert rename(theirs, BACKBONES[naming]) == own
    assert f"{last}.conv_list.3.bn.running_var" in theirs
