"""Mask2Former's decoders on frames, as VITA reads them, equal the public code through our own name tables."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.converters.mask2former import DETECTRON2_QUERY_DECODER, detectron2_pixel_decoder
from model.converters.rename import load_strict, rename
from model.pixel_decoders.mask2former import Mask2FormerPixelDecoder, Mask2FormerPixelDecoderConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig, MaskedAttentionDecoder
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

FEATURES = ("res2", "res3", "res4", "res5")


def pixel_decoder(case: Case) -> None:
    a = case.arguments
    channels, stride = ({name: a["input_shape"][name][part] for name in FEATURES} for part in (0, 1))
    a.set_aside("transformer_dropout")      # nothing is dropped in evaluation
    config = Mask2FormerPixelDecoderConfig(
        dim=a["conv_dim"], embedding=a["mask_dim"], heads=a["transformer_nheads"], ffn=a["transformer_dim_feedforward"],
        layers=a["transformer_enc_layers"], strides=tuple(stride[name] for name in a["transformer_in_features"]),
        finest=a["common_stride"], fuse_norm={"GN": "gn", "": None}[a["norm"]])
    decoder = Mask2FormerPixelDecoder(config, channels=list(channels.values())).eval()
    load_strict(decoder, rename(case.state, detectron2_pixel_decoder(finer=len(decoder.finer))))
    decoded = decoder([case.inputs[name] for name in FEATURES], frames=1)
    assert_close_to(case, "mask_features", decoded.pixel_features)
    assert_close_to(case, "finest_feature", decoded.maps[-1])
    for index, one in enumerate(decoded.maps[:3]):
        assert_close_to(case, f"multi_scale.{index}", one)


def query_decoder(case: Case) -> None:
    a = case.arguments["module"]
    assert a["mask_classification"], "a decoder without classes is no segmenter"
    maps = [case.inputs[f"x.{index}"] for index in range(sum(name.startswith("x.") for name in case.inputs))]
    config = Mask2FormerDecoderConfig(
        num_queries=a["num_queries"], dim=a["hidden_dim"], heads=a["nheads"], ffn=a["dim_feedforward"],
        layers=a["dec_layers"], levels=len(maps), positions="frame", pre_norm=a["pre_norm"],
        project_maps=a["enforce_input_project"])
    decoder = MaskedAttentionDecoder(config, channels=a["in_channels"], embedding=a["mask_dim"],
                                     num_classes=a["num_classes"]).eval()
    load_strict(decoder, rename(case.state, DETECTRON2_QUERY_DECODER))
    layers = decoder(maps, rearrange(case.inputs["mask_features"], "b d h w -> b d 1 h w"), supervise=True)
    for name, layer in zip([*(f"aux_outputs.{index}." for index in range(len(layers) - 1)), ""], layers, strict=True):
        assert_close_to(case, f"{name}pred_logits", layer.class_logits)
        assert_close_to(case, f"{name}pred_masks", layer.mask_logits[:, :, 0])
    queries = [decoder.norm(layer.queries) for layer in layers[1:]]     # the first is before any layer
    last = a["vita_last_layer_num"]
    assert_close_to(case, "frame_queries", torch.stack(queries[-last if case.arguments["training"] else -1:]))


PROCEDURES = {"m2f_pixel_decoder": pixel_decoder, "m2f_frame_decoder": query_decoder}
FAMILIES = ("mask2former_pixel_decoder", "mask2former_frame_decoder")


@pytest.mark.parametrize("path", [path for family in FAMILIES for path in cases(family)],
                         ids=lambda path: f"{path.parent.name}-{case_id(path)}")
@torch.no_grad()
def test_decoders_of_frames_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
