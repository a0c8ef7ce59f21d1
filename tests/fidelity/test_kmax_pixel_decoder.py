"""The kMaX pixel decoder and its axial attention give the recorded numbers of the reference."""

import pytest
import torch

from model.converters.kmax import AXIAL_ATTENTION, PIXEL_DECODER
from model.converters.rename import load_strict, rename
from model.layers.axial_attention import AxialAttention2d
from model.layers.convolution import BatchNormConfig
from model.pixel_decoders.kmax import KMaxPixelDecoder, KMaxPixelDecoderConfig
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled


@pytest.mark.parametrize("path", cases("kmax_pixel_decoder"), ids=case_id)
@torch.inference_mode()
def test_pixel_decoder_equals_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "kmax_axial_attention":
                check_axial_attention(case)
            case "kmax_pixel_decoder":
                check_pixel_decoder(case)
            case _:
                raise unhandled(case)


def check_axial_attention(case: Case) -> None:
    arguments = case.arguments
    assert tuple(arguments["query_shape"]) == case.inputs["x"].shape[-2:], "ours takes the size from the input"
    attention = AxialAttention2d(arguments["in_planes"], key_depth=arguments["filters"] * arguments["key_expansion"],
                                 value_depth=arguments["filters"] * arguments["value_expansion"],
                                 heads=arguments["num_heads"], batch_norm=BatchNormConfig()).eval()
    load_strict(attention, rename(case.state, AXIAL_ATTENTION))
    assert_close_to(case, "out", attention(case.inputs["x"]))


def check_pixel_decoder(case: Case) -> None:
    arguments = case.arguments
    levels = sorted(arguments["input_shape"].items(), key=lambda level: level[1][1])
    assert [stride for _, (_, stride) in levels] == [4, 8, 16, 32]
    config = KMaxPixelDecoderConfig(blocks=tuple(arguments["dec_layers"]), widths=tuple(arguments["dec_channels"]),
                                    kinds=tuple(arguments["layer_types"]), drop_path=arguments["drop_path_prob"])
    decoder = KMaxPixelDecoder(config, channels=[channels for _, (channels, _) in levels]).eval()
    load_strict(decoder, rename(case.state, PIXEL_DECODER))
    maps = [case.inputs[name] for name, _ in levels]
    for level, stride in zip(maps, (4, 8, 16, 32)):     # ours takes the sizes from the input
        assert list(level.shape[-2:]) == [side // stride + side % 2 for side in arguments["spatial_shape"]]
    finest, *others = decoder(maps)
    assert_close_to(case, "panoptic_features", finest)
    for index, level in enumerate(reversed(others)):
        assert_close_to(case, f"multi_scale.{index}", level)
