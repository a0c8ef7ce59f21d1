"""Names of VITA's module (sukjunhwang/VITA) -> ours, readable backwards.

A whole checkpoint carries them behind `vita_module.`, beside a frame detector with detectron2's names of Mask2Former.
"""

from __future__ import annotations

from model.converters.mask2former import ATTENTION, DETECTRON2_QUERIES_AND_HEADS, detectron2_decoder_layers
from model.converters.rename import Rules, nested

VITA: Rules = (
    *DETECTRON2_QUERIES_AND_HEADS,
    (r"fq_pos\.weight", "frame_query_positions"),
    (r"input_proj_dec\.(.+)", r"project.\1"),
    *nested(ATTENTION, r"enc_self_attn\.(\d+)\.self_attn\.", r"encoder.\1.self."),
    (r"enc_self_attn\.(\d+)\.norm\.(.+)", r"encoder.\1.self_norm.\2"),
    (r"enc_ffn\.(\d+)\.norm\.(.+)", r"encoder.\1.ffn_norm.\2"),
    (r"enc_ffn\.(\d+)\.(linear[12]\..+)", r"encoder.\1.ffn.\2"),
    *detectron2_decoder_layers("decoder"),
    (r"vita_mask_features\.(.+)", r"mask_features.\1"),
    (r"sim_embed_frame\.(.+)", r"frame_similarity.\1"),
    (r"sim_embed_clip\.(.+)", r"video_similarity.\1"),
)
