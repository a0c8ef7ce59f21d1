"""The clip segmenter as a program of `torch.export`, for a fixed number and size of frames."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.system import System


class PlainSegmenter(nn.Module):
    """A segmenter that answers with a dict of tensors, the fields of `ClipPrediction` that it fills."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frames: Tensor, real_pixels: Tensor) -> dict[str, Tensor]:
        """frames: 1 t 3 H W uint8 RGB; real_pixels: 1 t H W bool, False where the canvas is padded."""
        prediction = self.segmenter(frames, real_pixels)
        values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def export_segmenter(system: System, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The segmenter of a system on clips of its length. size: height and width of the network input, pixels.

    The frames are those behind `System.resize`, and linking, merging and heads stay outside. Its module takes what
    `PlainSegmenter` takes.
    """
    frames = torch.zeros(1, system.clip_length, 3, *size, dtype=torch.uint8)
    real_pixels = torch.ones(1, system.clip_length, *size, dtype=torch.bool)
    with torch.no_grad():
        return torch.export.export(PlainSegmenter(system.segmenter.cpu().eval()), (frames, real_pixels))


def write_program(path: Path, program: torch.export.ExportedProgram) -> None:
    """Write a program; `torch.export.load` reads it."""
    torch.export.save(program, path)
