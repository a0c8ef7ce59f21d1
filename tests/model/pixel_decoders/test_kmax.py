"""kMaX pixel decoder: sizes, independence of frames and configuration."""

import pytest
import torch

from model.layers.convolution import BatchNormConfig
from model.pixel_decoders.kmax import KMaxBlock, KMaxPixelDecoder, KMaxPixelDecoderConfig

CHANNELS = (6, 8, 10, 12)    # strides 4, 8, 16, 32
SMALL = KMaxPixelDecoderConfig(blocks=(1, 2, 1, 1), widths=(16, 8, 4, 4))
PYRAMID = KMaxPixelDecoderConfig(blocks=(0, 0, 0, 0), widths=(8, 8, 8, 8), kinds=("bottleneck",) * 4)


def maps_of(height: int, width: int, batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, c, -(-height // s), -(-width // s)) for c, s in zip(CHANNELS, (4, 8, 16, 32))]


@pytest.mark.parametrize("config", [SMALL, PYRAMID], ids=["axial", "plain pyramid"])
@pytest.mark.parametrize("size", [(65, 97), (64, 96), (97, 64)])
def test_every_map_keeps_its_size_and_gets_the_stated_channels(config, size):
    decoder = KMaxPixelDecoder(config, channels=CHANNELS)
    maps = maps_of(*size)
    decoded = decoder(maps)
    assert [tuple(level.shape[2:]) for level in decoded] == [tuple(level.shape[2:]) for level in maps]
    assert tuple(level.shape[1] for level in decoded) == decoder.out_channels


def test_blocks_output_four_times_the_base_width_and_empty_stages_the_base_width():
    assert KMaxPixelDecoder(SMALL, channels=CHANNELS).out_channels == (16, 16, 32, 64)
    assert KMaxPixelDecoder(PYRAMID, channels=CHANNELS).out_channels == (8, 8, 8, 12)


@torch.inference_mode()
def test_a_batch_of_two_equals_two_batches_of_one():
    decoder = KMaxPixelDecoder(SMALL, channels=CHANNELS).eval()
    maps = maps_of(65, 97)
    together = decoder(maps)
    for item in range(2):
        for level, alone in zip(together, decoder([m[item:item + 1] for m in maps])):
            torch.testing.assert_close(level[item:item + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_fresh_block_is_its_shortcut():
    block = KMaxBlock(16, width=4, kind="bottleneck", heads=8, drop_path=0.0, batch_norm=BatchNormConfig())
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), torch.nn.functional.gelu(x))    # the last norm of the branch starts at zero


def test_maps_too_large_for_axial_attention_are_refused_with_a_cure():
    decoder = KMaxPixelDecoder(SMALL, channels=CHANNELS)
    maps = [torch.zeros(1, c, 1, -(-8200 // s)) for c, s in zip(CHANNELS, (4, 8, 16, 32))]
    with pytest.raises(ValueError, match="bottleneck"):
        decoder(maps)


@pytest.mark.parametrize(("change", "message"), [
    ({"blocks": (1, 1, 1)}, "four entries"),
    ({"blocks": (-1, 1, 1, 1)}, "0 or more"),
    ({"kinds": ("axial", "axial", "bottleneck", "plain")}, "plain"),
    ({"widths": (12, 8, 4, 4)}, "heads"),
])
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        KMaxPixelDecoderConfig(**change)
