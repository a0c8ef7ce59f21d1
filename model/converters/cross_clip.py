"""Names of MaXTron's official cross-clip heads: source name -> ours, readable backwards.

The names are those inside the head; a whole checkpoint carries them behind `cross_clip_tracking_module.` (Video-kMaX)
or `panoptic_head.` (Tube-Link).
"""

from __future__ import annotations

from model.converters.rename import Rules

LAYERS: Rules = (       # the same in both flavours
    (r"transformer_trajectory_self_attention_layers\.(\d+)\.self_attn\.(.+)",
     r"layers.\1.attention.branch.attention.\2"),
    (r"transformer_trajectory_self_attention_layers\.(\d+)\.norm\.(.+)", r"layers.\1.attention.norm.\2"),
    (r"conv_short_aggregate_layers\.(\d+)\._aspp_conv(\d+)\.(.+)", r"layers.\1.aspp.branch.aspp.convolutions.\2.\3"),
    (r"conv_short_aggregate_layers\.(\d+)\._proj_conv_bn_act\.(.+)", r"layers.\1.aspp.branch.aspp.join.\2"),
    (r"conv_norms\.(\d+)\.(.+)", r"layers.\1.aspp.norm.\2"),
)

# TACJu/MaXTron, MaXTron_Video-kMaX, CrossClipTrackingModule -> model.cross_clip.maxtron.MaXTronHead
MAXTRON_KMAX: Rules = (
    *LAYERS,
    (r"_class_embedding_projection\.(.+)", r"predictor.class_projection.\1"),
    (r"_mask_embedding_projection\.(.+)", r"predictor.mask_projection.\1"),
    (r"_predictor\._transformer_mask_head\.(.+)", r"predictor.mask_head.\1"),
    (r"_predictor\._transformer_class_head\.(.+)", r"predictor.class_head.\1"),
    (r"_predictor\._transformer_class_activation_head\.(.+)", r"predictor.class_weight.\1"),
    (r"_predictor\._pixel_space_mask_batch_norm\.(.+)", r"predictor.mask_norm.\1"),
)

# TACJu/MaXTron, MaXTron_Tube-Link, Mask2FormerVideoCCHeadTube -> model.cross_clip.tube_link.TubeLinkHead
MAXTRON_TUBE_LINK: Rules = (
    *LAYERS,
    (r"activation_proj\.(.+)", r"predictor.class_weight.\1"),
)

# What that head shares with the query decoder before it: source name -> ours in the head, beside the decoder's.
SHARED_HEADS: Rules = (
    (r"transformer_decoder\.post_norm\.(.+)", r"predictor.norm.\1"),
    (r"cls_embed\.(.+)", r"predictor.class_head.\1"),
    (r"mask_embed\.(\d)\.(.+)", r"predictor.mask_head.\1.\2"),
)
