"""Reading pixels by attention is its formula, and the latent memory reads every frame by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from model.layers.convolution import BatchNormConfig
from model.layers.query_reading import LatentReading, SoftmaxReading

HEADS = 2
OPTIONS = {"heads": HEADS, "batch_norm": BatchNormConfig()}


def plain(reading: SoftmaxReading, queries: Tensor, pixels: Tensor, values: Tensor) -> Tensor:
    """One query and one head after the other. queries c n, pixels and values c p -> c n."""
    query = reading.query(queries[None])[0].chunk(HEADS)
    key = reading.key(pixels[None])[0].chunk(HEADS)
    norm = reading.similarity_norm
    columns = []
    for index in range(queries.shape[1]):
        parts = []
        for head, value in enumerate(values.chunk(HEADS)):
            dots = query[head][:, index] @ key[head]
            dots = (dots - norm.running_mean[head]) / (norm.running_var[head] + norm.eps).sqrt()
            weights = (dots * norm.weight[head] + norm.bias[head]).softmax(0)
            parts.append(value @ weights)
        columns.append(torch.cat(parts))
    return torch.stack(columns, 1)


def random_norms(module: torch.nn.Module) -> torch.nn.Module:
    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


@torch.inference_mode()
def test_it_is_the_formula_of_attention():
    torch.manual_seed(0)
    reading = random_norms(SoftmaxReading(8, **OPTIONS))
    queries, pixels, values = torch.randn(2, 8, 3), torch.randn(2, 8, 5), torch.randn(2, 8, 5)
    expected = torch.stack([plain(reading, *parts) for parts in zip(queries, pixels, values)])
    torch.testing.assert_close(reading(queries, pixels, values), expected)


@torch.inference_mode()
def test_a_latent_memory_reads_every_frame_by_itself():
    torch.manual_seed(0)
    reading = random_norms(LatentReading(8, **OPTIONS))
    queries, pixels, values = torch.randn(8, 3), torch.randn(8, 2, 5), torch.randn(8, 2, 5)
    latents = torch.cat([queries + plain(reading.of_frames, queries, pixels[:, frame], values[:, frame])
                         for frame in range(2)], 1)
    expected = plain(reading.of_latents, queries, latents, latents)
    result = reading(queries[None], pixels.flatten(1)[None], values.flatten(1)[None], frames=2)[0]
    torch.testing.assert_close(result, expected)
