"""Attention and its two layers, compared with torch's own modules and the plain order of residuals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.layers.attention import DecoderLayer, EncoderLayer, MultiHeadAttention


@torch.no_grad()
def test_attention_is_softmax_over_the_allowed_keys():
    attention = MultiHeadAttention(8, 2)
    query = torch.randn(1, 3, 8)
    keys = torch.randn(1, 5, 8)
    values = torch.randn(1, 5, 8)
    allowed = torch.rand(1, 3, 5) > 0.4
    allowed[..., 0] = True
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict({"in_proj_weight": attention.project.weight, "in_proj_bias": attention.project.bias,
                            "out_proj.weight": attention.out.weight, "out_proj.bias": attention.out.bias})
    expected, _ = theirs(query, keys, values, attn_mask=(~allowed).repeat_interleave(2, 0))
    torch.testing.assert_close(attention(query, keys, values, allowed=allowed), expected, atol=1e-6, rtol=1e-5)
    changed = torch.where(allowed[0, 0, :, None], values, 100)
    torch.testing.assert_close(attention(query, keys, changed, allowed=allowed)[0, 0], expected[0, 0])


@torch.no_grad()
def test_one_row_of_allowed_keys_serves_all_queries():
    attention = MultiHeadAttention(8, 2)
    query = torch.randn(2, 3, 8)
    keys = torch.randn(2, 5, 8)
    row = torch.tensor([[[True, False, True, True, False]], [[False, True, True, False, True]]])
    torch.testing.assert_close(attention(query, keys, keys, allowed=row),
                               attention(query, keys, keys, allowed=row.expand(2, 3, 5)))


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_layers_are_residuals_in_their_order(pre_norm):
    x = torch.randn(1, 3, 8)
    position = torch.randn(3, 8)
    keys = torch.randn(1, 5, 8)
    values = torch.randn(1, 5, 8)
    decoder = DecoderLayer(8, heads=2, ffn=12, pre_norm=pre_norm)
    encoder = EncoderLayer(8, heads=2, ffn=12,
                                                                                        pre_norm=pre_norm)
    for norm in (part for layer in (decoder, encoder) for part in layer.modules() if isinstance(part, nn.LayerNorm)):
        nn.init.normal_(norm.weight)

    def step(x, norm, branch):
        return x + branch(norm(x)) if pre_norm else norm(x + branch(x))

    y = step(x, decoder.cross_norm, lambda y: decoder.cross(y + position, keys, values))
    y = step(y, decoder.self_norm, lambda y: decoder.self(y + position, y + position, y))
    torch.testing.assert_close(decoder(x, keys, values, position=position), step(y, decoder.ffn_norm, decoder.ffn))
    y = step(x, encoder.self_norm, lambda y: encoder.self(y, y, y))
    torch.testing.assert_close(encoder(x), step(y, encoder.ffn_norm, encoder.ffn))
