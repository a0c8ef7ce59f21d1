"""What all cross-clip heads have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from model.layers.convolution import BatchNormConfig, dot_pixels
from model.reads import Reads

MASK_NORM = "query_decoder.predictor.mask_norm."    # of a Video-kMaX: the scale of its masks


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The settings of a head. A subclass adds `kind`, its sizes and `build`."""

    reads: ClassVar[Reads] = Reads()
    at_test_time: ClassVar[type | None] = None      # settings that may differ then, a member of `HeadTestConfig`

    def build(self) -> nn.Module:
        """The head, freshly initialised."""
        raise NotImplementedError(f"{type(self).__name__} needs a method build")

    def as_released(self) -> Self:
        """The config of the same head in an official checkpoint."""
        return self


class Head(nn.Module):
    """A head whose masks are made like the segmenter's: dot products, under the scale of its mask norm if it has one.

    A subclass adds `forward`; see `model.cross_clip.CrossClipHead`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mask_scale", torch.ones(()))
        self.register_buffer("mask_shift", torch.zeros(()))

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """See `CrossClipHead`."""
        pixels = pixel_features.flatten(3)
        has_constant = mask_embeddings.shape[-1] > pixels.shape[2]          # of a frame detector, see `dot_pixels`
        logits = dot_pixels(mask_embeddings, pixels) if has_constant else mask_embeddings @ pixels
        return (logits * self.mask_scale + self.mask_shift).unflatten(3, pixel_features.shape[3:])

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Take over the scale of the segmenter's masks. segmenter: its state dict."""
        norm = {name.removeprefix(MASK_NORM): value for name, value in segmenter.items() if name.startswith(MASK_NORM)}
        if norm:
            scale = norm["weight"] / (norm["running_var"] + BatchNormConfig().eps).sqrt()
            self.mask_scale.copy_(scale[0])
            self.mask_shift.copy_((norm["bias"] - norm["running_mean"] * scale)[0])
