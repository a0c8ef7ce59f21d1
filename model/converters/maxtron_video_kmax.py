"""Names of MaXTron's official within-clip module (MaXTron_Video-kMaX) -> ours, readable backwards.

The names are those inside the module; a whole checkpoint carries them under `sem_seg_head.wc_module.`.
"""

from __future__ import annotations

from model.converters.rename import Rules, nested

_NORMS_AND_FFN: Rules = (
    (r"norm1\.(.+)", r"attention_norm.\1"),
    (r"(linear[12]\..+)", r"ffn.\1"),
    (r"norm2\.(.+)", r"ffn_norm.\1"),
)

TRAJECTORY_LAYER: Rules = (
    (r"(height|width)_attn\.(.+)", r"passes.\1.\2"),
    (r"temporal_attn\.(.+)", r"passes.space.\1"),
    *_NORMS_AND_FFN,
)

TRAJECTORY_STACK: Rules = nested(TRAJECTORY_LAYER, r"temporal_layers\.(\d+)\.", r"layers.\1.")

DEFORMABLE_LAYER: Rules = (
    (r"self_attn\.(.+)", r"attention.\1"),
    *_NORMS_AND_FFN,
)

_ENCODER = r"within_clip_tracking_module\.transformer\."

WITHIN_CLIP: Rules = (
    *(rule for theirs, ours in (("input", "in"), ("output", "out")) for rule in (
        (rf"within_clip_tracking_module\.{theirs}_proj\.(\d)\.0\.(.+)", rf"projections_{ours}.\1.conv.\2"),
        (rf"within_clip_tracking_module\.{theirs}_proj\.(\d)\.1\.(.+)", rf"projections_{ours}.\1.norm.\2"),
    )),
    (rf"{_ENCODER}level_embed_2d", "level_embedding"),
    (rf"{_ENCODER}level_embed_3d", "clip_level_embedding"),
    *nested(DEFORMABLE_LAYER, rf"{_ENCODER}encoder\.spatial_layers\.(\d+)\.", r"spatial_layers.\1."),
    *nested(TRAJECTORY_STACK, rf"{_ENCODER}encoder\.temporal_layers\.(\d+)\.", r"trajectory_stacks.\1."),
)
