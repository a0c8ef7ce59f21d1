"""Names of Mask2Former decoders -> ours, module by module, readable backwards: mmdetection's and detectron2's.

Checkpoints of Tube-Link, MaXTron on Tube-Link and mmdetection carry the first behind `panoptic_head.`; those of VITA
and Mask2Former carry the second behind `sem_seg_head.pixel_decoder.` and `sem_seg_head.predictor.`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from model.converters.maxtron_video_kmax import DEFORMABLE_LAYER, TRAJECTORY_STACK
from model.converters.rename import Rules, nested

ATTENTION: Rules = (          # queries, keys and values packed; torch's own names
    (r"in_proj_(weight|bias)", r"project.\1"),
    (r"out_proj\.(.+)", r"out.\1"),
)

MmdetRelease = Literal[2, 3]


class _LayerNames(NamedTuple):
    """The parts of a transformer layer, as patterns; releases of mmdetection name them differently."""

    deformable: str
    cross: str
    own: str                # self-attention of the queries
    ffn: str


_LAYER_NAMES: dict[MmdetRelease, _LayerNames] = {
    2: _LayerNames(deformable=r"attentions\.0", cross=r"attentions\.0", own=r"attentions\.1", ffn=r"ffns\.0"),
    3: _LayerNames(deformable="self_attn", cross="cross_attn", own="self_attn", ffn="ffn"),
}


def _mmdet_ffn(theirs: str) -> Rules:
    return ((rf"{theirs}\.layers\.0\.0\.(.+)", r"ffn.linear1.\1"),
            (rf"{theirs}\.layers\.1\.(.+)", r"ffn.linear2.\1"))


def _mmdet_blocks(theirs: str, ours: str) -> Rules:
    return ((rf"{theirs}\.(\d)\.conv\.(.+)", rf"{ours}.\1.conv.\2"),
            (rf"{theirs}\.(\d)\.gn\.(.+)", rf"{ours}.\1.norm.\2"))


def mmdet_deformable(release: MmdetRelease = 2) -> Rules:
    """Deformable attention and the trajectory attention inside it, which stand beside each other in our decoder."""
    attention = rf"layers\.(\d+)\.{_LAYER_NAMES[release].deformable}\."
    return (
        (rf"{attention}gamma", r"trajectories.\1.scale"),
        *nested(TRAJECTORY_STACK, rf"{attention}temporal_layer\.", r"trajectories.\1.stack."),
        (rf"{attention}(.+)", r"layers.\1.attention.\2"),
    )


def mmdet_pixel_decoder(release: MmdetRelease = 2) -> Rules:
    """release: the major version of mmdetection. Tube-Link and MaXTron are built on 2."""
    return (
        *_mmdet_blocks("input_convs", "projections"),
        (r"level_encoding\.weight", "level_embedding"),
        (r"level_3d_encodeing\.weight", "clip_level_embedding"),
        *nested(mmdet_deformable(release), r"encoder\.", ""),
        *nested((*_mmdet_ffn(_LAYER_NAMES[release].ffn),
                 (r"norms\.0\.(.+)", r"attention_norm.\1"),
                 (r"norms\.1\.(.+)", r"ffn_norm.\1")),
                r"encoder\.layers\.(\d+)\.", r"layers.\1."),
        *_mmdet_blocks("lateral_convs", "laterals"),
        *_mmdet_blocks("output_convs", "fuses"),
        (r"mask_feature\.(.+)", r"pixel_out.conv.\1"),
    )


def mmdet_query_decoder(release: MmdetRelease = 2) -> Rules:
    """release: the major version of mmdetection. Tube-Link and MaXTron are built on 2."""
    names = _LAYER_NAMES[release]
    return (
        (r"query_feat\.weight", "initial_queries"),
        (r"query_embed\.weight", "query_positions"),
        (r"level_embed\.weight", "level_embedding"),
        (r"decoder_input_projs\.(\d)\.(.+)", r"projections.\1.\2"),
        *nested((
            *nested(ATTENTION, rf"{names.cross}\.attn\.", "cross."),
            *nested(ATTENTION, rf"{names.own}\.attn\.", "self."),
            *_mmdet_ffn(names.ffn),
            (r"norms\.0\.(.+)", r"cross_norm.\1"),
            (r"norms\.1\.(.+)", r"self_norm.\1"),
            (r"norms\.2\.(.+)", r"ffn_norm.\1"),
        ), r"transformer_decoder\.layers\.(\d+)\.", r"layers.\1."),
        (r"transformer_decoder\.post_norm\.(.+)", r"norm.\1"),
        (r"cls_embed\.(.+)", r"class_head.\1"),
        (r"mask_embed\.(\d)\.(.+)", r"mask_head.\1.\2"),
    )


def detectron2_pixel_decoder(*, finer: int = 1) -> Rules:
    """finer: maps below those that attend to each other; detectron2 counts them from the finest, we from the coarse."""
    fuses = tuple(rule for index in range(finer) for theirs, ours in (("adapter", "laterals"), ("layer", "fuses"))
                  for rule in (
                      (rf"{theirs}_{index + 1}\.norm\.(.+)", rf"{ours}.{finer - 1 - index}.norm.\1"),
                      (rf"{theirs}_{index + 1}\.(weight|bias)", rf"{ours}.{finer - 1 - index}.conv.\1")))
    return (
        (r"input_proj\.(\d)\.0\.(.+)", r"projections.\1.conv.\2"),
        (r"input_proj\.(\d)\.1\.(.+)", r"projections.\1.norm.\2"),
        (r"transformer\.level_embed", "level_embedding"),
        *nested(DEFORMABLE_LAYER, r"transformer\.encoder\.layers\.(\d+)\.", r"layers.\1."),
        *fuses,
        (r"mask_features\.(.+)", r"pixel_out.conv.\1"),
    )


def detectron2_decoder_layers(ours: str) -> Rules:
    """Cross-attention, self-attention and feed-forward of each layer, together at `ours`.0 and so on."""
    return (
        *nested(ATTENTION, r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.", rf"{ours}.\1.cross."),
        *nested(ATTENTION, r"transformer_self_attention_layers\.(\d+)\.self_attn\.", rf"{ours}.\1.self."),
        (r"transformer_(cross|self)_attention_layers\.(\d+)\.norm\.(.+)", rf"{ours}.\2.\1_norm.\3"),
        (r"transformer_ffn_layers\.(\d+)\.norm\.(.+)", rf"{ours}.\1.ffn_norm.\2"),
        (r"transformer_ffn_layers\.(\d+)\.(linear[12]\..+)", rf"{ours}.\1.ffn.\2"),
    )


# The learned queries and what reads them in the end: the same names in the frame decoder and in VITA.
DETECTRON2_QUERIES_AND_HEADS: Rules = (
    (r"query_feat\.weight", "initial_queries"),
    (r"query_embed\.weight", "query_positions"),
    (r"decoder_norm\.(.+)", r"norm.\1"),
    (r"class_embed\.(.+)", r"class_head.\1"),
    *((rf"mask_embed\.layers\.{layer}\.(.+)", rf"mask_head.{2 * layer}.\1") for layer in range(3)),
)

DETECTRON2_QUERY_DECODER: Rules = (
    *DETECTRON2_QUERIES_AND_HEADS,
    (r"level_embed\.weight", "level_embedding"),
    (r"input_proj\.(\d)\.(.+)", r"projections.\1.\2"),
    *detectron2_decoder_layers("layers"),
)
