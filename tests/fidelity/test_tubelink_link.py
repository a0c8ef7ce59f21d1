"""Linking of tubes, the embedding head and the contrastive losses equal the public code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.converters.rename import rename
from model.converters.tube_linking import TUBE_LINKING
from model.losses.linking import LinkingLossConfig, contrast_loss, cosine_loss
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled


def official_linking(case: Case) -> TubeLinking:
    """The reference's weights under our names; none is left over, none is missing that the case uses."""
    state = rename(case.state, TUBE_LINKING)
    linking = TubeLinking(TubeLinkingConfig(
        dim=case.inputs["key_query"].shape[-1], ffn=case.arguments["feedforward_channels"],
        link=any(name.startswith("attention") for name in state))).eval()
    missing, unknown = linking.load_state_dict(state, strict=False)
    assert not unknown
    assert not missing or (case.arguments["link_only"] and all(name.startswith(("embed", "head")) for name in missing))
    return linking


@pytest.mark.parametrize("path", cases("tubelink_link"), ids=case_id)
def test_linking_embeddings_and_losses_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "tl_link" or case.arguments["layout"] not in ("train", "test"):
            raise unhandled(case)
        linking = official_linking(case)
        key = case.inputs["key_query"]
        reference = case.inputs["ref_query"]
        if case.arguments["layout"] == "test" and key.shape[1] == 1:     # queries, then the clip
            key = key.transpose(0, 1)
            reference = reference.transpose(0, 1)
        linked = key
        with torch.no_grad():
            if case.arguments["link"]:
                linked = linking(key, reference, official_compat=case.arguments["layout"] == "test")
            if "linked_query" in case.outputs:
                assert_close_to(case, "linked_query", linked.reshape(case.outputs["linked_query"].shape))
            if not case.arguments["link_only"]:
                compare_losses(case, linking, linked, reference)


def compare_losses(case: Case, linking: TubeLinking, linked: Tensor, reference: Tensor) -> None:
    tracks = case.inputs["gt_match"][case.inputs["key_assigned"]]
    embeddings = [linking.embeddings(queries[0, case.inputs[f"{name}_positive"]])
                  for name, queries in (("key", linked), ("ref", reference))]
    dot = embeddings[0] @ embeddings[1].T
    cosine = F.normalize(embeddings[0], dim=-1) @ F.normalize(embeddings[1], dim=-1).T
    labels = (tracks[:, None] == case.inputs["ref_assigned"]).int()
    config = LinkingLossConfig()
    results = {"key_embedding": embeddings[0], "ref_embedding": embeddings[1], "dot_product": dot, "cosine": cosine,
               "target": labels, "weight": (labels.sum(1) > 0).float(),
               "loss.loss_track": config.contrast_weight * contrast_loss(dot, labels),
               "loss.loss_track_aux": config.cosine_weight * cosine_loss(
                   cosine, labels, margin=config.negative_margin, ratio=config.negatives_per_positive)}
    for name, result in results.items():
        if name in case.outputs:
            assert_close_to(case, name, result)
