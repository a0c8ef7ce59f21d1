"""Names of kMaX-DeepLab and MaXTron (Video-kMaX) decoders -> ours, module by module.

The sources are the state dicts of `kMaXPixelDecoder`, `kMaXTransformerDecoder` and `MaXTronTransformerDecoder`; in a
checkpoint they stand behind `sem_seg_head.pixel_decoder.` and `sem_seg_head.predictor.`. Every table can be read
backwards with `rename.reverse`.
"""

from __future__ import annotations

from typing import Literal

from model.converters.rename import Rules, nested

AXIAL_ATTENTION: Rules = (
    (r"_(height|width)_axis\.qkv_transform\.conv\.weight", r"\1.project.conv.weight"),
    (r"_(height|width)_axis\._batch_norm_qkv\.(.+)", r"\1.project.norm.\2"),
    (r"_(height|width)_axis\._(query|key|value)_rpe\._embeddings\.weight", r"\1.relative_\2"),
    (r"_(height|width)_axis\._batch_norm_similarity\.(.+)", r"\1.similarity_norm.\2"),
    (r"_(height|width)_axis\._batch_norm_retrieved_output\.(.+)", r"\1.output_norm.\2"),
)

PREDICTOR: Rules = (
    (r"_pixel_space_head_conv0bnact\.(.+)", r"pixel_depthwise.\1"),
    (r"_pixel_space_head_conv1bnact\.(.+)", r"pixel_hidden.\1"),
    (r"_pixel_space_head_last_convbn\.(.+)", r"pixel_out.\1"),
    (r"_transformer_(mask|class)_head\.(.+)", r"\1_head.\2"),
    (r"_pixel_space_mask_batch_norm\.(.+)", r"mask_norm.\1"),
)

SEMANTIC_HEAD: Rules = (
    (r"_aspp\._aspp_conv(\d)\.(.+)", r"pyramid.branches.\1.\2"),
    (r"_aspp\._aspp_pool\.(.+)", r"pyramid.pool.\1"),
    (r"_aspp\._proj_conv_bn_act\.(.+)", r"pyramid.project.\1"),
    (r"_low_level_projection_os8\.(.+)", r"fuses.0.project.\1"),
    (r"_low_level_fusion_os8_conv0_bn_act\.(.+)", r"fuses.0.depthwise.\1"),
    (r"_low_level_fusion_os8_conv1_bn_act\.(.+)", r"fuses.0.pointwise.\1"),
    (r"_low_level_projection_os4\.(.+)", r"fuses.1.project.\1"),
    (r"_low_level_fusion_os4_conv0_bn_act\.(.+)", r"fuses.1.depthwise.\1"),
    (r"_low_level_fusion_os4_conv1_bn_act\.(.+)", r"fuses.1.pointwise.\1"),
    (r"conv_block_0\.(.+)", r"depthwise.\1"),
    (r"conv_block_1\.(.+)", r"pointwise.\1"),
    (r"final_conv\.(.+)", r"classify.\1"),
)


PIXEL_DECODER: Rules = (
    (r"_in_norms\.(\d)\.(.+)", r"input_norms.\1.\2"),
    (r"_resized_fuses\.(\d)\._conv_bn_(low|high)\.(.+)", r"fuses.\1.\2.\3"),
    *nested((
        (r"_conv1_bn_act\.(.+)", r"reduce.\1"),
        (r"_conv2_bn_act\.(conv\..+|norm\..+)", r"mix.\1"),
        (r"_conv3_bn\.(.+)", r"expand.\1"),
        (r"_shortcut\.(.+)", r"shortcut.\1"),
        *nested(AXIAL_ATTENTION, r"_attention\.", "mix."),
    ), r"_stages\.(\d)\._blocks\.(\d+)\.", r"stages.\1.\2."),
)


def decoder_rules(*, predictor: Literal["_predictor", "_predcitor"] = "_predictor") -> Rules:
    """Names of the transformer decoder with its auxiliary semantic predictor.

    predictor: kMaX-DeepLab's image decoder, and so every COCO checkpoint, spells it `_predcitor`; MaXTron's clip
    decoder spells it `_predictor`. `spelling` tells them apart.
    The semantic predictor becomes `semantic_head.*`, everything else `query_decoder.*`.
    """
    head = nested(PREDICTOR, rf"{predictor}\.", "predictor.")
    layer = (
        (r"_query_conv1_bn_act\.(.+)", r"query_in.\1"),
        (r"_pixel_conv1_bn_act\.(.+)", r"pixel_in.\1"),
        (r"_pixel_v_conv_bn\.(.+)", r"pixel_value.\1"),
        (r"_kmeans_query_batch_norm_retrieved_value\.(.+)", r"kmeans_norm.\1"),
        (r"_kmeans_query_conv3_bn\.(.+)", r"kmeans_out.\1"),
        (r"_query_qkv_conv_bn\.(.+)", r"attention.project.\1"),
        (r"_query_self_attention\._batch_norm_similarity\.(.+)", r"attention.similarity_norm.\1"),
        (r"_query_self_attention\._batch_norm_retrieved_value\.(.+)", r"attention.output_norm.\1"),
        (r"_query_conv3_bn\.(.+)", r"attention_out.\1"),
        (r"_query_ffn_conv1_bn_act\.(.+)", r"ffn_in.\1"),
        (r"_query_ffn_conv2_bn\.(.+)", r"ffn_out.\1"),
        *head,
    )
    decoder = (
        (r"_cluster_centers\.weight", r"initial_queries"),
        (r"_(class|mask)_embedding_projection\.(.+)", r"\1_projection.\2"),
        *nested(layer, r"_kmax_transformer_layers\.(\d+)\.", r"layers.\1."),
        *head,
    )
    return (*nested(decoder, "", "query_decoder."),
            *nested(SEMANTIC_HEAD, r"_auxiliary_semantic_predictor\.", "semantic_head."))


def spelling(names) -> Literal["_predictor", "_predcitor"]:
    """Which of the two spellings of "predictor" the names of a transformer decoder use."""
    return "_predcitor" if any("_predcitor." in name for name in names) else "_predictor"
