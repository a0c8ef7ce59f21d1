"""MaXTron's cross-clip head on Video-kMaX and its parts equal the public code, through our own name table."""

from __future__ import annotations

import pytest
from einops import rearrange

from model.contracts import VideoQueries
from model.converters.cross_clip import MAXTRON_KMAX
from model.converters.rename import load_strict, rename
from model.cross_clip.layers import QueryTrajectories, Residual
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from model.layers.temporal_aspp import TemporalASPP
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

NORMS = {"ln": "ln", "syncbn": "bn", "none": None}


def official_head(arguments, state, *, num_classes: int) -> MaXTronHead:
    """The head a case describes, with its weights. arguments: of the reference's constructor."""
    head = MaXTronHead(MaXTronHeadConfig(
        num_classes=num_classes, layers=arguments["num_layers"], attention_dropout=arguments["attn_drop"],
        aspp_dropout=arguments["aspp_drop"], aspp_kernels=tuple(arguments["kernel_sizes"]),
        aspp_rates=tuple(arguments["atrous_rates"]), aspp_norm=NORMS[arguments["norm_fn"]], start="official"))
    load_strict(head, rename(state, MAXTRON_KMAX))
    return head.eval()


def part(state, *, official_prefix: str, our_prefix: str) -> dict:
    """Weights of a part, renamed by the table of the whole head."""
    renamed = rename({f"{official_prefix}{name}": tensor for name, tensor in state.items()}, MAXTRON_KMAX)
    return {name.removeprefix(our_prefix): tensor for name, tensor in renamed.items()}


def module(case: Case) -> None:
    a = case.arguments
    head = official_head(a, case.state, num_classes=a["num_classes"])
    queries = rearrange(case.inputs["clip_query"], "b n k c -> b k n c")
    pixels = rearrange(case.inputs["panoptic_features"], "b d (k t) h w -> b k d t h w", t=a["num_clip_frames"])
    layers = head(VideoQueries(queries=queries, mask_embeddings=queries, class_logits=queries))
    names = [f"aux_outputs.{layer}." for layer in range(len(layers) - 1)] + [""]
    for name, prediction in zip(names, layers, strict=True):
        assert_close_to(case, f"{name}pred_logits", prediction.class_logits)
        masks = head.mask_logits(prediction.mask_embeddings, pixels)
        assert_close_to(case, f"{name}pred_masks", rearrange(masks, "b k n t h w -> b n (k t) h w"))


def temporal_aspp(case: Case) -> None:
    """The flavours spell their rates differently."""
    a = case.arguments
    rates = a["dilation_rates" if "dilation_rates" in a else "atrous_rates"]
    block = TemporalASPP(a["in_channels"], out_dim=a["output_channels"], rates=tuple(rates),
                         kernels=tuple(a["kernel_sizes"]), norm=NORMS[a["norm_fn"]])
    load_strict(block, part(case.state, official_prefix="conv_short_aggregate_layers.0.",
                            our_prefix="layers.0.aspp.branch.aspp."))
    assert_close_to(case, "out", block.eval()(case.inputs["x"]))


def trajectory_layer(case: Case) -> None:
    a = case.arguments
    config = MaXTronHeadConfig(num_classes=1, dim=a["d_model"], heads=a["nhead"], start="official")
    layer = Residual(QueryTrajectories(config), config)
    load_strict(layer, part(case.state, official_prefix="transformer_trajectory_self_attention_layers.0.",
                            our_prefix="layers.0.attention."))
    x = rearrange(case.inputs["x"], "b (k n) c -> b k n c", k=a["num_clips"], n=a["num_queries"])
    assert_close_to(case, "out", rearrange(layer.eval()(x), "b k n c -> b (k n) c"))


PROCEDURES = {"cc_module": module, "cc_aspp": temporal_aspp, "cc_trajectory_layer": trajectory_layer}


@pytest.mark.parametrize("path", cases("cross_clip_kmax"), ids=case_id)
def test_the_head_and_its_parts_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
