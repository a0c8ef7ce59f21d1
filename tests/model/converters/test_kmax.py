"""Names of the official decoders: everything maps, and maps back."""

import json

import pytest
import torch

from model.converters.kmax import AXIAL_ATTENTION, PIXEL_DECODER, PREDICTOR, decoder_rules, spelling
from model.converters.rename import nested, new_name, reverse
from model.pixel_decoders.kmax import KMaxPixelDecoder, KMaxPixelDecoderConfig
from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig
from model.semantic_head import SemanticHead, SemanticHeadConfig
from tests.conftest import SHARED

LAYOUTS = SHARED / "parity" / "state_dict_layouts"
R50 = (256, 512, 1024, 2048)


@pytest.fixture
def shapes_only():
    with torch.device("meta"):
        yield


def layout(name: str, prefix: str) -> dict[str, tuple[int, ...]]:
    """Names behind a prefix and their shapes, of a complete official model."""
    path = LAYOUTS / f"{name}.json"
    if not path.exists():
        pytest.skip("the layouts of official models are not beside this checkout")
    weights = json.loads(path.read_text())["weights"]
    return {key.removeprefix(prefix): tuple(shape) for key, (_, shape) in weights.items() if key.startswith(prefix)}


def shapes_of(module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


@pytest.mark.usefixtures("shapes_only")
def test_official_pixel_decoder_is_ours_name_for_name_and_back():
    official = layout("kmax_r50_coco", "sem_seg_head.pixel_decoder.")
    renamed = {new_name(name, PIXEL_DECODER): shape for name, shape in official.items()}
    assert renamed == shapes_of(KMaxPixelDecoder(KMaxPixelDecoderConfig(), channels=R50))
    backwards = reverse(PIXEL_DECODER)
    assert {new_name(name, backwards): shape for name, shape in renamed.items()} == official


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize(("model", "classes", "expected"), [
    ("kmax_r50_coco", 133, "_predcitor"), ("maxtron_kmax_within_clip_r50_vipseg", 124, "_predictor")])
def test_official_transformer_decoder_is_ours_name_for_name_and_back(model, classes, expected):
    official = layout(model, "sem_seg_head.predictor.")
    assert spelling(official) == expected
    rules = decoder_rules(predictor=spelling(official))
    renamed = {new_name(name, rules): shape for name, shape in official.items()}
    channels = KMaxPixelDecoder(KMaxPixelDecoderConfig(), channels=R50).out_channels
    decoder = KMaxDecoder(KMaxDecoderConfig(), channels=channels, num_classes=classes)
    head = SemanticHead(SemanticHeadConfig(), channels=R50, num_classes=classes)
    assert renamed == shapes_of(decoder, "query_decoder.") | shapes_of(head, "semantic_head.")
    backwards = reverse(rules)
    assert {new_name(name, backwards): shape for name, shape in renamed.items()} == official


def test_nested_rules_count_their_groups_on():
    rules = nested(AXIAL_ATTENTION, r"stage(\d)\.block(\d)\.", r"s\1.b\2.")
    assert new_name("stage3.block7._width_axis._key_rpe._embeddings.weight", rules) == "s3.b7.width.relative_key"


def test_the_predictor_alone_has_no_rule_for_a_foreign_name():
    with pytest.raises(KeyError):
        new_name("_pixel_space_head_conv9.weight", PREDICTOR)
