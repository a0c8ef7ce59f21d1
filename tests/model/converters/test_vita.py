"""The complete layout of an official VITA: nothing is left over on either side, and the way back is the way in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.backbone import BackboneConfig
from model.contracts import VideoQueries
from model.converters.layouts import HEAD, Detectron2Layout, read_layout, usual_layout
from model.converters.official import Conversion, has_head, to_ours, to_theirs
from model.cross_clip.vita import VitaHead, VitaHeadConfig
from model.segmenters.mask2former import Mask2Former, Mask2FormerConfig
from tests.model.converters.recorded_layouts import random_state, shapes_only

NAME = "vita_r50_youtubevis2019"
LAYOUT = Detectron2Layout(backbone="detectron2_resnet")
SEGMENTER = Mask2FormerConfig(num_classes=40)
VITA = VitaHeadConfig(num_classes=40)
CONSTANTS = {"criterion.empty_weight", "vita_criterion.empty_weight"}


def own_weights(config: Mask2FormerConfig = SEGMENTER, head: VitaHeadConfig | None = VITA) -> dict[str, Tensor]:
    with torch.device("meta"):
        weights = dict(Mask2Former(config).state_dict())
        if head is not None:
            weights |= {f"{HEAD}{name}": tensor for name, tensor in VitaHead(head).state_dict().items()}
    return weights


def convert(state: dict[str, Tensor], own: dict[str, Tensor] | None = None) -> Conversion:
    return to_ours(state, layout=read_layout(state), own=own_weights() if own is None else own)


def test_every_name_maps_or_is_a_constant_and_comes_back_as_the_same_tensor():
    """What is from scratch are counters of norms whose statistics are frozen."""
    state = shapes_only(NAME)
    assert read_layout(state) == LAYOUT
    assert has_head(state)
    conversion = convert(state)
    assert conversion.unused.keys() == CONSTANTS
    assert conversion.names.keys() == state.keys() - CONSTANTS
    assert all(name.endswith(".num_batches_tracked") for name in conversion.from_scratch)
    back = to_theirs(own_weights() | conversion.weights, layout=LAYOUT)
    assert back.keys() == conversion.names.keys()
    assert all(back[key] is state[key] for key in back)
    assert usual_layout(conversion.weights, family="detectron2") == LAYOUT


@torch.inference_mode()
def test_random_values_run_and_come_back_byte_for_byte():
    state = random_state(NAME)
    conversion = convert(state)
    segmenter = Mask2Former(SEGMENTER)
    head = VitaHead(VITA)
    counters = {name: torch.tensor(0) for name in conversion.from_scratch}
    segmenter.load_state_dict({key: tensor for key, tensor in (conversion.weights | counters).items()
                               if not key.startswith(HEAD)}, strict=True, assign=True)
    head.load_state_dict({key.removeprefix(HEAD): tensor for key, tensor in conversion.weights.items()
                          if key.startswith(HEAD)}, strict=True, assign=True)
    frame = segmenter.eval()(torch.randint(0, 256, (1, 1, 3, 32, 32), dtype=torch.uint8))
    queries = VideoQueries(queries=frame.queries[:, None], mask_embeddings=frame.mask_embeddings[:, None],
                           class_logits=frame.class_logits[:, None])
    video = head.eval()(queries)[-1]
    masks = head.mask_logits(video.mask_embeddings, frame.pixel_features[:, None, :, 0])
    assert masks.shape == (1, 1, 100, 8, 8)
    assert masks.isfinite().all()
    back = to_theirs(conversion.weights | counters, layout=LAYOUT)
    assert back.keys() == state.keys() - CONSTANTS
    assert all(back[key].dtype == tensor.dtype and torch.equal(tensor, state[key]) for key, tensor in back.items())


def test_a_coco_mask2former_of_detectron2_starts_the_frame_detector_but_for_its_class_rows():
    """Without VITA, with 80 classes, and with the older name of the learned queries."""
    state = {name.replace("query_feat", "static_query"): tensor for name, tensor in shapes_only(NAME).items()
             if name.startswith(("backbone.", "sem_seg_head."))}
    for part in ("weight", "bias"):
        name = f"sem_seg_head.predictor.class_embed.{part}"
        state[name] = state[name].new_empty(81, *state[name].shape[1:])
    assert read_layout(state) == replace(LAYOUT, queries="static_query")
    assert not has_head(state)
    conversion = convert(state, own_weights(head=None))
    assert set(conversion.unused.values()) == {"81 class rows, the recipe's model has 41"}
    rows = {name for name in conversion.from_scratch if not name.endswith(".num_batches_tracked")}
    assert rows == {"query_decoder.class_head.weight", "query_decoder.class_head.bias"}
    back = to_theirs(conversion.weights, layout=read_layout(state))
    assert back.keys() == state.keys() - conversion.unused.keys()


def test_swin_is_spelt_as_detectron2_spells_it_and_comes_back():
    swin = replace(SEGMENTER, backbone=BackboneConfig(name="swin_tiny_patch4_window7_224", output_norms=True))
    own = own_weights(swin)
    layout = usual_layout(own, family="detectron2")
    state = to_theirs(own, layout=layout)
    assert {"backbone.patch_embed.proj.weight", "backbone.norm3.weight", "backbone.layers.2.downsample.norm.bias",
            "vita_module.fq_pos.weight"} <= state.keys()
    assert read_layout(state) == layout == Detectron2Layout(backbone="swin")
    conversion = convert(state, own)
    assert not conversion.unused
    assert not conversion.from_scratch
    assert conversion.weights.keys() == own.keys()


@pytest.mark.parametrize(("change", "complaint"), [
    ({"encoder_layers": 3}, r"vita_module\.enc_self_attn\.3\..*: the recipe's model has no head\.encoder\.3"),
    ({"decoder_layers": 6}, r"our head\.decoder\.3\..*: not in the checkpoint"),
    ({"frame_queries": 200}, r"shape \(100, 256\), the recipe's head\.frame_query_positions has \(200, 256\)"),
], ids=["fewer-layers", "more-layers", "other-detector"])
def test_a_recipe_of_another_network_is_refused_with_the_weights_that_do_not_fit(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        convert(shapes_only(NAME), own_weights(head=replace(VITA, **change)))
