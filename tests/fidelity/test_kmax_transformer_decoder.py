"""The k-means decoder, on images and on clips, its predictor and its semantic head give the reference's numbers."""

import pytest
import torch
from einops import rearrange

from model.converters.kmax import PREDICTOR, SEMANTIC_HEAD, decoder_rules, spelling
from model.converters.rename import load_strict, rename
from model.layers.convolution import BatchNormConfig
from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig, KMaxPredictor
from model.semantic_head import SemanticHead, SemanticHeadConfig
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

PATHS = cases("kmax_transformer_decoder") + cases("maxtron_transformer_decoder")


@pytest.mark.parametrize("path", PATHS, ids=case_id)
@torch.inference_mode()
def test_transformer_decoder_equals_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "kmax_predictor":
                check_predictor(case)
            case "kmax_decoder":
                check_decoder(case)
            case "kmax_first_prediction":
                check_first_prediction(case)
            case _ if "os8_channels" in case.arguments:
                check_semantic_head(case)
            case _:
                raise unhandled(case)


def check_predictor(case: Case) -> None:
    arguments = case.arguments
    inputs = case.inputs
    assert arguments["in_channel_query"], "the reference takes it and has 256 channels nevertheless"
    predictor = KMaxPredictor(KMaxDecoderConfig(), batch_norm=BatchNormConfig(),
                              pixel_channels=arguments["in_channel_pixel"], num_classes=arguments["num_classes"] - 1)
    load_strict(predictor, rename(case.state, PREDICTOR))
    prediction = predictor.eval()(inputs["pixel_feature"], mask_queries=inputs["mask_embeddings"],
                                  class_queries=inputs["class_embeddings"], frames=1)
    assert_close_to(case, "class_logits", prediction.class_logits)
    assert_close_to(case, "mask_logits", prediction.mask_logits)
    assert_close_to(case, "pixel_feature", prediction.pixel_features)


def check_semantic_head(case: Case) -> None:
    arguments = case.arguments
    inputs = case.inputs
    coarse, at8, at4 = (inputs[name] for name in ("x", "low_features_os8", "low_features_os4"))
    head = SemanticHead(SemanticHeadConfig(), num_classes=arguments["num_classes"] - 1,
                        channels=(arguments["os4_channels"], arguments["os8_channels"], 0, arguments["in_channels"]))
    load_strict(head, rename(case.state, SEMANTIC_HEAD))
    (name,) = case.outputs
    assert_close_to(case, name, head.eval()((at4, at8, None, coarse)))


def check_decoder(case: Case) -> None:
    arguments = case.arguments
    inputs = case.inputs
    is_clip = {"maxtron": True, "kmax": False}[arguments["flavour"]]
    # in evaluation the reference makes one clip of all frames it gets; cross-clip training alone splits them
    splits = is_clip and arguments["cross_clip_training"]
    stacked = inputs["panoptic_features"].shape[0]
    length = arguments["num_clip_frames"] if is_clip else 1
    frames = stacked if is_clip and not splits else length
    decoder = load_decoder(case)
    maps = (inputs["panoptic_features"], inputs["x.2"], inputs["x.1"], inputs["x.0"])
    prediction = decoder(maps, frames=frames, supervise=True)

    def layout(maps):
        return maps if is_clip else rearrange(maps, "b c 1 h w -> b c h w")

    assert_close_to(case, "pred_logits", prediction.class_logits)
    assert_close_to(case, "pred_masks", layout(prediction.mask_logits))
    assert_close_to(case, "pixel_feature", layout(prediction.pixel_features))
    if is_clip:
        assert_close_to(case, "pred_mask_embeddings", prediction.mask_embeddings)
        assert_close_to(case, "cluster_centers", prediction.queries)
    for index, layer in enumerate(prediction.auxiliary):
        assert_close_to(case, f"aux_outputs.{index}.pred_logits", layer.class_logits)
        assert_close_to(case, f"aux_outputs.{index}.pred_masks", layout(layer.mask_logits))
        assert_close_to(case, f"aux_outputs.{index}.pixel_feature", layout(layer.pixel_features))


def check_first_prediction(case: Case) -> None:
    """What the first layer of a clip decoder says: it depends on a tenth of the weights, which the repository holds."""
    arguments = case.arguments
    pixels = case.inputs["x.0"]
    frames = case.arguments["num_clip_frames"]
    assert arguments["flavour"] == "maxtron"
    (channels,) = arguments["in_channels"]
    decoder = KMaxDecoder(KMaxDecoderConfig(layers=(1, 0, 0), num_queries=arguments["num_queries"]),
                          num_classes=arguments["num_classes"], channels=(1, 1, 1, channels)).eval()
    renamed = rename(case.state, decoder_rules(predictor=spelling(case.state)))
    given = {name.removeprefix("query_decoder."): tensor for name, tensor in renamed.items()}
    load_strict(decoder, decoder.state_dict() | given)
    finest = torch.zeros(len(pixels), 1, *arguments["size"])
    (layer,) = decoder((finest, None, None, pixels), frames=frames, supervise=True).auxiliary
    assert_close_to(case, "aux_outputs.0.pred_logits", layer.class_logits)
    assert_close_to(case, "aux_outputs.0.pred_masks", layer.mask_logits)
    assert_close_to(case, "aux_outputs.0.pixel_feature", layer.pixel_features)


def load_decoder(case: Case) -> KMaxDecoder:
    """The decoder of the case under its weights; a semantic predictor beside it must convert too."""
    arguments = case.arguments
    classes = case.arguments["num_classes"]
    config = KMaxDecoderConfig(layers=tuple(arguments["dec_layers"]), num_queries=arguments["num_queries"],
                               drop_path=arguments["drop_path_prob"],
                               corners_by="width" if arguments["flavour"] == "maxtron" else "height")
    decoder = KMaxDecoder(config, num_classes=classes,
                          channels=(case.inputs["panoptic_features"].shape[1], *reversed(arguments["in_channels"][:3])))
    state = case.state
    has_head = arguments["add_aux_semantic_pred"]
    has_decoder = arguments["use_aux_semantic_decoder"]
    if has_head and not has_decoder:    # three convolutions, for training only, which no released model has
        state = {name: tensor for name, tensor in state.items() if "_auxiliary_semantic_predictor." not in name}
    renamed = rename(state, decoder_rules(predictor=spelling(state)))
    parts = {part: {name.removeprefix(f"{part}."): tensor for name, tensor in renamed.items()
                    if name.startswith(f"{part}.")} for part in ("query_decoder", "semantic_head")}
    load_strict(decoder, parts["query_decoder"])
    shapes = arguments["input_shape_from_backbone"]
    if has_head and has_decoder:
        head = SemanticHead(SemanticHeadConfig(), num_classes=classes,
                            channels=[shapes[level][0] for level in ("res2", "res3", "res4", "res5")])
        load_strict(head, parts["semantic_head"])
    else:
        assert not parts["semantic_head"]
    return decoder.eval()
