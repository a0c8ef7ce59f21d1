"""VITA's object encoder, object decoder and heads equal the public code, through our own name table."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from model.contracts import VideoPrediction, VideoQueries
from model.converters.rename import load_strict, rename
from model.converters.vita import VITA
from model.cross_clip.vita import VitaHead, VitaHeadConfig
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled


def head_of(case: Case) -> VitaHead:
    """The head the constructor arguments of the reference describe, with the recorded weights.

    The arguments set aside say how training gathers queries and losses; `module` reads those that shape its outputs.
    """
    a = case.arguments["module"]
    a.set_aside("in_channels", "num_frames", "aux_loss", "clip_last_layer_num")
    head = VitaHead(VitaHeadConfig(
        num_classes=a["num_classes"], dim=a["hidden_dim"], embedding=a["mask_dim"], pixel_dim=a["conv_dim"],
        frame_queries=a["num_frame_queries"], num_queries=a["num_queries"], heads=a["nheads"],
        ffn=a["dim_feedforward"], encoder_layers=a["enc_layers"], decoder_layers=a["dec_layers"],
        window=a["enc_window_size"], pre_norm=a["pre_norm"],
        project=a["enforce_input_project"] or a["in_channels"] != a["hidden_dim"],
        similarity=("all" if a["sim_use_clip"] else "frames") if a["use_sim"] else None))
    load_strict(head, rename(case.state, VITA))
    return head.train(case.arguments.get("training", False))


def queries_of(frame_queries: Tensor) -> VideoQueries:
    """frame_queries: b t n c; VITA reads nothing else of the frames."""
    return VideoQueries(queries=frame_queries, mask_embeddings=frame_queries, class_logits=frame_queries)


def encoder(case: Case) -> None:
    """The reference pads before, and gives the object encoder projected queries; padding is our encoder's business."""
    tokens = rearrange(case.inputs["frame_query"], "t n b c -> b t n c")
    assert_close_to(case, "out", rearrange(head_of(case).encode(tokens), "b t n c -> t n b c"))


def module(case: Case) -> None:
    """In training the queries of L decoder layers and B clips, in evaluation those of the last layer and one video.

    `clip_last_layer_num` says how many layers the recorded queries come from; no computation depends on it.
    """
    a = case.arguments["module"]
    frame_queries = case.inputs["frame_query"]
    training = case.arguments["training"]
    frame_queries = frame_queries if training else frame_queries[-1:]
    layers = len(frame_queries)
    frames = a["num_frames"] if training else frame_queries.shape[1]
    predictions = head_of(case)(queries_of(rearrange(frame_queries, "l (b t) n c -> (l b) t n c", t=frames)))
    compare(case, "", predictions[-1], layers=layers)
    if training and a["aux_loss"]:
        for index, prediction in enumerate(predictions[:-1]):
            compare(case, f"aux_outputs.{index}.", prediction, layers=layers)


def compare(case: Case, prefix: str, prediction: VideoPrediction, *, layers: int) -> None:
    """Every output of one decoder layer; mask embeddings are the same in all frames."""
    a = case.arguments["module"]
    found = {"pred_logits": prediction.class_logits, "pred_mask_embed": prediction.mask_embeddings[:, 0]}
    if a["use_sim"]:
        found["pred_fq_embed"] = prediction.clip_similarity
    if a["use_sim"] and a["sim_use_clip"]:
        found["pred_cq_embed"] = prediction.video_similarity
    assert (prediction.clip_similarity is None) == (not a["use_sim"])
    assert torch.equal(*(prediction.mask_embeddings[:, frame] for frame in (0, -1)))
    for name, tensor in found.items():
        assert_close_to(case, prefix + name, rearrange(tensor, "(l b) ... -> l b ...", l=layers))


PROCEDURES = {"vita_encoder": encoder, "vita_module": module}


@pytest.mark.parametrize("path", cases("vita_module"), ids=case_id)
@torch.no_grad()
def test_the_head_equals_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
