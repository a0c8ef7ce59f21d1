"""Names of Tube-Link's modules for linking tubes (video panoptic) -> ours, readable backwards.

They stand at the top of a checkpoint, beside backbone and head.
"""

from __future__ import annotations

from model.converters.rename import Rules

TUBE_LINKING: Rules = (
    (r"attention_previous_track\.attn\.(.+)", r"attention.\1"),
    (r"attention_previous_norm_track\.(.+)", r"attention_norm.\1"),
    (r"link_ffn_track\.layers\.0\.0\.(.+)", r"ffn.linear1.\1"),
    (r"link_ffn_track\.layers\.1\.(.+)", r"ffn.linear2.\1"),
    (r"link_ffn_norm_track\.(.+)", r"ffn_norm.\1"),
    (r"embed_fcs\.([01])\.(.+)", r"embed.\1.\2"),      # linear without bias, layer norm; then ReLU
    (r"fc_embed\.(.+)", r"embed.3.\1"),
    (r"track_head\.fcs\.0\.(.+)", r"head.0.\1"),        # a ReLU after each
    (r"track_head\.fcs\.1\.(.+)", r"head.2.\1"),
    (r"track_head\.fc_embed\.(.+)", r"head.4.\1"),
)
